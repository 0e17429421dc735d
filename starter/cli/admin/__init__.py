"""Commands for the platform: set-up, limits, keys, retention, suppressions, bounces."""
