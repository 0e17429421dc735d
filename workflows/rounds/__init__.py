"""Rounds: the delivery loop that workflows share, the handlers that control it, and what it shows in the Temporal UI."""
