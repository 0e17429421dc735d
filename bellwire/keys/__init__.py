"""Keys: the key ring that encrypts private data, signing keys of webhooks, client certificates."""
