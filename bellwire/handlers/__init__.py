"""Handlers: functions of a service that are called for events, durably: publish/subscribe within code.

A handler is a subscription like any other. The platform keeps its deliveries; the service only runs the function.
"""

from bellwire.handlers.handlers import Handlers
from bellwire.handlers.outcomes import Reject, Retry, current_delivery

__all__ = ["Handlers", "Reject", "Retry", "current_delivery"]
