"""Formats: durations, host names, JSON values of Python values and their sizes, mailboxes, media types, phone numbers, storable text,
strict JSON, timestamps and web URLs.
"""
