"""Registers handlers with the platform, through a workflow: a service has no access to the registry."""

import asyncio
import logging
from collections.abc import Callable

from temporalio.client import WorkflowFailureError

from bellwire.client import Client
from bellwire.contract import (
    REGISTER_HANDLERS,
    HandlerRegistration,
    HandlerRegistrationResult,
    new_registration_id,
)
from bellwire.errors import HandlersConflict, SubscriptionInvalid, TemporalUnavailable
from bellwire.targets.handler import handler_queue
from bellwire.temporal.workers import last_poll, run_short

_logger = logging.getLogger("bellwire.handlers")

#: Seconds that the platform has to register handlers.
TIMEOUT = 30.0
#: Seconds between two tries while the platform is not available: at first, and at most.
FIRST_DELAY, MAX_DELAY = 1.0, 30.0


#: Makes the registration, by whether some process of the service polls.
Registering = Callable[[bool], HandlerRegistration]


async def register(service: str, client: Client, registration: Registering) -> HandlerRegistrationResult:
    """Register handlers, and wait while the platform is not available.

    Raises HandlersConflict, SubscriptionInvalid.
    """
    delay = FIRST_DELAY
    while True:
        try:
            is_live = await last_poll(client.temporal, handler_queue(service)) is not None
            result = await _register(client, registration(is_live))
        except (TemporalUnavailable, WorkflowFailureError) as error:
            _logger.warning("handlers of %s are not registered yet: %s", service, error)
            await asyncio.sleep(delay)
            delay = min(2 * delay, MAX_DELAY)
            continue
        if result.conflict:
            raise HandlersConflict(result.refused)
        if result.refused is not None:
            raise SubscriptionInvalid(result.refused)
        _logger.info(
            "registered %d handlers of %s: %d new, %d changed",
            len(result.subscriptions),
            service,
            len(result.created),
            len(result.updated),
        )
        return result


async def _register(client: Client, registration: HandlerRegistration) -> HandlerRegistrationResult:
    return await run_short(
        client.temporal,
        REGISTER_HANDLERS,
        registration,
        result_type=HandlerRegistrationResult,
        timeout=TIMEOUT,
        id=new_registration_id(registration.service),
        static_summary=f"handlers of {registration.service}",
    )
