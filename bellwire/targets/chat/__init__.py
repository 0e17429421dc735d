"""Targets of chat providers, one module each."""
