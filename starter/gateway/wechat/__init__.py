"""Callbacks of WeChat: what became of messages, and what users agree to."""
