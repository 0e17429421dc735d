"""Formats: durations, host names, mailboxes, media types, phone numbers, storable text, strict JSON and web URLs."""
