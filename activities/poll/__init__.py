"""The poll channel."""
