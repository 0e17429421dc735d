"""Commands for events and their deliveries."""
