"""Maintenance of the registry: retention, purging, erasure, rekeying."""
