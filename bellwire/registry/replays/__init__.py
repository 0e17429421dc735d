"""Replays: rows, and the selection of past events and deliveries."""
