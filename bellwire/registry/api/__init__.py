"""What the HTTP API stores: its keys, the log of changes, and the responses to repeated requests."""
