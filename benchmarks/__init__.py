"""Benchmarks: Bellwire against bare Temporal or bare HTTP, as ratios within one run. `python -m benchmarks [NAME ...]`."""
