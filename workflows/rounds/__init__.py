"""Rounds: the delivery loop of a run, its controls, and what it shows in the Temporal UI."""
