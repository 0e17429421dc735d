"""The catalog of event types: what publishers may publish, and what subscribers get."""

from bellwire.catalog.catalog import Catalog
from bellwire.catalog.event_types import EventType, NewEventType, TypeVersion

__all__ = ["Catalog", "EventType", "NewEventType", "TypeVersion"]
