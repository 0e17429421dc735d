"""Handlers that services have registered: listed with their service's presence, and removed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from temporalio.client import Client as Temporal

from bellwire.registry import Registry
from bellwire.registry.db.auditing import change
from bellwire.registry.handlers import HandlerService
from bellwire.subscriptions import Subscription
from bellwire.targets import HandlerTarget
from bellwire.targets.handler import handler_queue
from bellwire.temporal.workers import last_poll
from starter.operations.problems import InputInvalid, OperationError


@dataclass(frozen=True, kw_only=True)
class RegisteredHandler:
    """A handler and the presence of its service."""

    subscription: Subscription
    application: str
    #: Whether a process of the service polled in the last five minutes.
    is_alive: bool
    #: When one polled last.
    last_seen: datetime | None

    @property
    def service(self) -> str:
        return self._target.service

    @property
    def name(self) -> str:
        return self._target.name

    @property
    def _target(self) -> HandlerTarget:
        assert isinstance(self.subscription.target, HandlerTarget)
        return self.subscription.target


async def list_handlers(registry: Registry, client: Temporal, service: str | None = None) -> list[RegisteredHandler]:
    """The handlers of one service or of all, by service and name."""
    found = await registry.handlers.list(service)
    present = await _presence(registry, client)
    listed = []
    for subscription in found:
        assert isinstance(subscription.target, HandlerTarget)
        seen = present.get(subscription.target.service)
        listed.append(
            RegisteredHandler(
                subscription=subscription,
                application=seen.application if seen else "",
                is_alive=seen is not None and seen.is_alive(datetime.now(UTC)),
                last_seen=seen.last_seen if seen else None,
            )
        )
    return listed


async def _presence(registry: Registry, client: Temporal) -> dict[str, HandlerService]:
    """The services by name, as Temporal and the registry saw them last."""
    found = {}
    for service in await registry.handlers.services():
        polled = await last_poll(client, handler_queue(service.service))
        found[service.service] = service._replace(last_seen=max(service.last_seen, polled or service.last_seen))
    return found


async def remove_handler(registry: Registry, address: str, *, cancel: bool) -> Sequence[str]:
    """Delete a handler's subscription with its deliveries, or those of all handlers of a service; return their ids.

    `address` is service/name, or a service. `cancel` cancels unsettled deliveries first. A process that still declares the
    handler registers it again when it starts. Raises InputInvalid, and OperationError if a delivery is unsettled.
    """
    service, slash, name = address.partition("/")
    if slash and not name:
        raise InputInvalid(
            f"{address} has no handler's name",
            field="HANDLER",
            remedy=f"give {service}/NAME for one handler, or {service} for all",
        )
    chosen = [each for each in await registry.handlers.list(service) if not name or each.target.address == address]
    if not chosen:
        raise InputInvalid(
            f"{address} is not registered", field="HANDLER", remedy="`python -m starter handlers list` lists handlers"
        )
    for subscription in chosen:
        with change("handler.removed", subscription.id, tenant=subscription.tenant):
            deleted = await registry.retention.delete(subscription.id, cancel=cancel)
        if not deleted.gone:
            raise OperationError(
                f"{subscription.target.address}: {deleted.unsettled:,} of its deliveries are unsettled",
                remedy="wait until they settle, or cancel them with --force",
            )
    await registry.handlers.forget(service)
    return [subscription.id for subscription in chosen]
