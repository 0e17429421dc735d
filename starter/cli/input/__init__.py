"""What commands read: documents, mails, durations."""
