"""Receivers on this machine: real servers that the demo and tests deliver to."""
