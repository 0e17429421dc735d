"""Nexus: the service `bellwire`, by which workflows of other namespaces and languages publish events and wait for them."""

from bellwire.nexus.service import BellwireService, EventInput, WaitInput

__all__ = ["BellwireService", "EventInput", "WaitInput"]
