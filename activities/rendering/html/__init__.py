"""The HTML of mails as it is sent: styles inlined, only allowed elements, attributes and URLs, and its plain text."""
