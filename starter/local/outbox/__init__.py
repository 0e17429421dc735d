"""Outbox: what `dev` catches of mails, SMS and webhooks, and the page that shows it."""
