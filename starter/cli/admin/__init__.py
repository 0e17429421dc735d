"""Commands for the operators of the platform: set-up, services, rate limits, encryption keys, retention."""
