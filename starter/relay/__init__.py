"""The relay: publishes what services have inserted into the outbox in their own databases."""
