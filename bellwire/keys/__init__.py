"""Keys: the key ring for data at rest and in transit, webhook signing keys, client certificates."""
