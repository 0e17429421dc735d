"""The embedded stack: Temporal dev server, registry, worker and receivers on one machine."""
