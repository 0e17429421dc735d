"""Formats: durations, host names, JSON values and their sizes, mailboxes, media types, phone numbers, storable text, strict JSON,
timestamps and web URLs.
"""
