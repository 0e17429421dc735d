"""Use cases for the operators of the platform: set-up, rate limits, encryption keys, retention."""
