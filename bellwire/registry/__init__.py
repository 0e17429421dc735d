"""The registry: stores tenants, subscriptions, events, deliveries and attempts in SQLite or PostgreSQL."""

from bellwire.registry.events import StoredEvent
from bellwire.registry.matching import Match
from bellwire.registry.registry import Registry

__all__ = ["Match", "Registry", "StoredEvent"]
