"""Measurements of Bellwire against the bare thing, as ratios within one run. `python -m benchmarks [NAME ...]`."""
