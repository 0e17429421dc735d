"""Maintenance of the registry: retention, purging, erasing, rekeying."""
