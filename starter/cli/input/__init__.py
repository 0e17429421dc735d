"""What commands read from files, stdin and options: documents, mails, durations."""
