"""Commands for subscriptions and for the people and endpoints that they deliver to."""
