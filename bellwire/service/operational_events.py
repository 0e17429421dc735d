"""Publishes the operational events that the registry holds, while a worker runs.

Several workers may publish the same event: its id makes it one event.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import chain

import structlog

from bellwire.client import Client
from bellwire.errors import BellwireError, EventConflict
from bellwire.events import Event
from bellwire.receipts import Receipt
from bellwire.registry import Registry

log = structlog.get_logger("bellwire")

#: Seconds between two polls, and the longest delay while the registry or Temporal is unavailable.
POLL_SECONDS, MAX_DELAY = 5.0, 60.0
#: Subscriptions that are examined for each tenant and type before an event counts as subscribed.
MAX_CANDIDATES = 1_000
#: Events in one batch.
BATCH_SIZE = 100


@asynccontextmanager
async def publishing_operational_events(
    registry: Registry, client: Client, *, every: float = POLL_SECONDS
) -> AsyncIterator[None]:
    """Publish operational events while the body runs; poll for new ones every `every` seconds."""
    task = asyncio.create_task(_publish_forever(registry, client, every))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _publish_forever(registry: Registry, client: Client, every: float) -> None:
    failures = 0
    while True:
        try:
            while await publish_batch(registry, client) == BATCH_SIZE:
                pass
            failures = 0
        except Exception as error:
            # Usually an outage. The events stay in the registry, and no error may end the loop while the worker runs.
            failures += 1
            expected = isinstance(error, BellwireError)
            log.warning("operational_events.delayed", error=type(error).__name__, exc_info=None if expected else error)
        # Jitter, so that workers do not poll at the same time.
        await asyncio.sleep(min(every * 2 ** min(failures, 10), max(every, MAX_DELAY)) * random.uniform(0.9, 1.1))  # noqa: S311


async def publish_batch(registry: Registry, client: Client) -> int:
    """Publish the oldest operational events that match a subscription, delete all of these, and return their number.

    A tenant whose deliveries all fail must not fill Temporal with news of them: what nobody has subscribed is not published, and
    the others of one tenant share a workflow. Raises what `registry` and `client` raise; events that were not published stay in
    the registry.
    """
    events = await registry.operational_events.list(limit=BATCH_SIZE)
    subscribed = await _subscribed(registry, events) if events else []
    if unsubscribed := {event.id for event in events} - {event.id for event in subscribed}:
        await registry.operational_events.remove(sorted(unsubscribed))
    for of_tenant in _by_tenant(subscribed):
        try:
            receipts = await client.publish_many(of_tenant)
        except EventConflict:
            receipts = [receipt for event in of_tenant if (receipt := await _publish_alone(client, event))]
        types = {event.id: event.type for event in of_tenant}
        for receipt in receipts:
            log.info(
                "operational_event.published",
                event_id=receipt.event_id,
                event_type=types[receipt.event_id],
                workflow=receipt.workflow_id,
            )
        await registry.operational_events.remove([event.id for event in of_tenant])
    return len(events)


async def _subscribed(registry: Registry, events: Sequence[Event]) -> list[Event]:
    """The events that match a subscription, or may match one, since there are too many candidates to tell."""
    alike = defaultdict[tuple[str, str], list[Event]](list)
    for event in events:
        alike[event.tenant, event.type].append(event)
    found = await registry.matching.match_each(list(alike.values()), limit=1, scan=MAX_CANDIDATES * len(alike))
    matches = zip(chain.from_iterable(alike.values()), chain.from_iterable(found), strict=True)
    return [event for event, match in matches if match.found or match.reached is not None]


def _by_tenant(events: Iterable[Event]) -> Iterable[list[Event]]:
    groups: dict[str, list[Event]] = {}
    for event in events:
        groups.setdefault(event.tenant, []).append(event)
    return groups.values()


async def _publish_alone(client: Client, event: Event) -> Receipt | None:
    try:
        return await client.publish(event)
    except EventConflict:
        # Another publisher has used its source and id for other content, so it can never be published.
        log.error("operational_event.conflict", event_id=event.id)  # noqa: TRY400 - the message is complete
        return None
