"""The SMS channel and its providers."""
