"""Use cases for events and their deliveries."""
