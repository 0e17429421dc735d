"""Replays of past events and deliveries."""
