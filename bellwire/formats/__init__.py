"""Formats: durations, media types, strict JSON and web URLs."""
