"""Bellwire over HTTP, for programs that do not reach Temporal."""
