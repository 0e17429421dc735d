"""Testing: a whole Bellwire in the process of a service's tests, where days of retries take less than a second.

It needs `pip install bellwire[testing]`, which brings Temporal's time-skipping server; nothing is downloaded later.
"""

from bellwire.testing.captured import CapturedAttempt, CapturedDelivery
from bellwire.testing.environment import (
    BellwireEnvironment,
    SkippingClient,
    bellwire_environment,
)
from bellwire.testing.responses import Response, deferred, delivered, rejected
from bellwire.testing.server import time_skipping_server

__all__ = [
    "BellwireEnvironment",
    "CapturedAttempt",
    "CapturedDelivery",
    "Response",
    "SkippingClient",
    "bellwire_environment",
    "deferred",
    "delivered",
    "rejected",
    "time_skipping_server",
]
