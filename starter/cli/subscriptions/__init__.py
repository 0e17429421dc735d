"""Commands for subscriptions and their templates."""
