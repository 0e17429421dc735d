"""Temporal: connection, payload encryption and publications."""
