"""Writes docs/reference from the code: `python -m docs.generator`, or `make reference`. A test compares the two.

Collectors read the code (`settings`, `cli`, `reasons`, `log_events`, `metrics`, `python_api`, …). Where the code has no
sentence for a row, meanings.toml has one; a row without a meaning, and a meaning without a row, are errors.
"""
