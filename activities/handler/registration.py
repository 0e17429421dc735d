"""HandlerRegistry: the activity that stores the subscriptions of a service's handlers."""

from collections.abc import Callable
from typing import Any

import structlog
from temporalio import activity

from bellwire.contract import (
    HandlerDeclaration,
    HandlerRegistration,
    HandlerRegistrationResult,
    handler_subscription_id,
)
from bellwire.errors import HandlersConflict, SubscriptionInvalid
from bellwire.registry import Registry
from bellwire.subscriptions import Subscription
from bellwire.targets import HandlerTarget

log = structlog.get_logger("bellwire")


class HandlerRegistry:
    """The activity `register_handlers`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    @property
    def activities(self) -> list[Callable[..., Any]]:
        """It, to be registered with a worker."""
        return [self.register_handlers]

    @activity.defn
    async def register_handlers(self, registration: HandlerRegistration) -> HandlerRegistrationResult:
        """Store the subscriptions of a service's handlers. What is refused is `refused`, and no failure."""
        service = registration.service
        try:
            declared = [_subscription(registration, handler) for handler in registration.handlers]
            registered = await self._registry.handlers.register(
                service,
                registration.application,
                declared,
                is_live=registration.is_live,
                take_over=registration.replace,
                since={
                    each.id: handler.since
                    for handler, each in zip(registration.handlers, declared, strict=True)
                    if handler.since is not None
                },
            )
        except (HandlersConflict, SubscriptionInvalid) as error:
            log.warning("handlers.refused", service=service, application=registration.application, reason=str(error))
            return HandlerRegistrationResult(refused=str(error), conflict=isinstance(error, HandlersConflict))
        log.info(
            "handlers.registered",
            service=service,
            application=registration.application,
            handlers=len(declared),
            created=list(registered.created),
            updated=list(registered.updated),
        )
        return HandlerRegistrationResult(
            subscriptions={
                handler.name: each.id for handler, each in zip(registration.handlers, declared, strict=True)
            },
            created=registered.created,
            updated=registered.updated,
        )


def _subscription(registration: HandlerRegistration, handler: HandlerDeclaration) -> Subscription:
    """The subscription of a handler. Raises SubscriptionInvalid."""
    return Subscription(
        id=handler_subscription_id(registration.service, handler.name),
        tenant=registration.tenant,
        types=handler.types,
        filters=handler.filters,
        target=HandlerTarget(service=registration.service, name=handler.name),
        retry_schedule=handler.retry_schedule,
        rate_limit=handler.rate_limit,
    )
