"""Registry: what Bellwire knows, kept in one database."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Self

from pydantic import SecretStr
from sqlalchemy import select

from bellwire.contract import EventSummary, Group, Located
from bellwire.deliveries import Attempt, Delivery, DeliveryState, Due
from bellwire.errors import DeliveryNotFound, SubscriptionNotFound
from bellwire.events import Event
from bellwire.registry import attempts as _attempts
from bellwire.registry import deliveries as _deliveries
from bellwire.registry import events as _events
from bellwire.registry import limits as _limits
from bellwire.registry import matching, schema, settling
from bellwire.registry import subscriptions as _subscriptions
from bellwire.registry.database import Database
from bellwire.registry.events import StoredEvent
from bellwire.registry.matching import Found, Match
from bellwire.subscriptions import Channel, Subscription, SubscriptionState


class Registry:
    """Tenants, subscriptions, events, deliveries and attempts. Each method is one transaction.

    Every method raises RegistryUnavailable when the database cannot be reached, and NotSetUp when tables are missing.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    async def open(cls, url: str, *, pool: int = 10) -> Self:
        """Connect to sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME, with at most `pool` connections."""
        registry = cls(Database.at(url, pool=pool))
        try:
            await registry.ping()
        except BaseException:
            await registry.close()
            raise
        return registry

    async def close(self) -> None:
        await self._database.close()

    async def ping(self) -> None:
        async with self._database.reading() as connection:
            await connection.execute(select(1))

    async def migrate(self) -> None:
        """Make the tables, or bring them up to date; any number of processes may do so at once."""
        async with self._database.writing() as connection:
            await schema.migrate(connection)

    async def check(self) -> None:
        """Raise NotSetUp unless the tables are those of this version."""
        async with self._database.reading() as connection:
            await schema.check(connection)

    # Subscriptions.

    async def subscribe(self, subscription: Subscription, *, secret: str | None = None) -> SecretStr | None:
        """Store a new subscription. The secret that signs its webhooks comes back, made here unless given.

        Raises SubscriptionInvalid if the id exists already or the secret is not one.
        """
        async with self._database.writing() as connection:
            return await _subscriptions.subscribe(connection, subscription, secret=secret)

    async def subscription(self, subscription_id: str) -> Subscription:
        """Raises SubscriptionNotFound."""
        async with self._database.reading() as connection:
            found = await _subscriptions.by_ids(connection, [subscription_id])
        if not found:
            raise SubscriptionNotFound
        return found[subscription_id][0]

    async def subscriptions(
        self,
        *,
        tenant: str | None = None,
        channel: Channel | None = None,
        state: SubscriptionState | None = None,
        after: str = "",
        limit: int = 100,
    ) -> list[Subscription]:
        """Subscriptions by ascending id, after the id `after`."""
        async with self._database.reading() as connection:
            return await _subscriptions.listing(
                connection, tenant=tenant, channel=channel, state=state, after=after, limit=limit
            )

    async def set_state(self, subscription_id: str, state: SubscriptionState, *, reason: str | None = None) -> None:
        """Raises SubscriptionNotFound."""
        async with self._database.writing() as connection:
            await _subscriptions.set_state(connection, subscription_id, state, reason=reason)

    # Rate limits.

    async def limits(self) -> dict[Channel, float]:
        """Most deliveries per second of the channels that have a limit."""
        async with self._database.reading() as connection:
            return await _limits.of_channels(connection)

    async def set_limit(self, channel: Channel, per_second: float) -> None:
        async with self._database.writing() as connection:
            await _limits.set_limit(connection, channel, per_second)

    async def clear_limit(self, channel: Channel) -> None:
        """Leave the channel without a limit, whether or not it had one."""
        async with self._database.writing() as connection:
            await _limits.clear_limit(connection, channel)

    async def reserve(self, dues: Sequence[Due]) -> dict[tuple[str, str], datetime]:
        """A moment for each delivery whose subscription has a rate limit, by event key and subscription id.

        One that has a moment already, and has not been attempted since, keeps it.
        """
        now = datetime.now(UTC)  # not once the lock is there: waiting for it is no reason to wait longer
        async with self._database.writing() as connection:
            return await _limits.reserve(connection, dues, now=now)

    # What runs do.

    async def accept(self, events: Sequence[Event], workflow_id: str, run_id: str = "") -> dict[str, EventSummary]:
        """Store events for the run that publishes them; how each stands, by event key. The same run may ask again."""
        async with self._database.writing() as connection:
            return await _events.accept(connection, events, workflow_id, run_id)

    async def match(self, event: Event, *, after: str = "", limit: int, scan: int) -> Match:
        """Up to `limit` subscriptions beyond `after` that want the event; reads at most `scan` candidate rows."""
        return (await self.match_alike([event], after=after, limit=limit, scan=scan))[0]

    async def match_alike(self, events: Sequence[Event], *, after: str = "", limit: int, scan: int) -> list[Match]:
        """`match` for several events of one type and one tenant, each row read once for all of them."""
        async with self._database.reading() as connection:
            return await matching.match(connection, events, after=after, limit=limit, scan=scan)

    async def match_range(self, event: Event, *, after: str, until: str) -> tuple[Found, ...]:
        """Every subscription beyond `after` and up to `until` that wants the event: id and channel, by ascending id."""
        async with self._database.reading() as connection:
            return await matching.match_range(connection, event, after=after, until=until)

    async def events_by_key(self, keys: Sequence[str]) -> dict[str, Event]:
        """Those of the events that exist."""
        async with self._database.reading() as connection:
            return await _events.by_keys(connection, keys)

    async def add_deliveries(self, workflow_id: str, groups: Sequence[Group]) -> None:
        """Insert deliveries as pending, held by `workflow_id`; those that exist already are left alone."""
        async with self._database.writing() as connection:
            await _deliveries.add(connection, workflow_id, groups)

    async def load(self, groups: Sequence[Group]) -> list[Due]:
        """Deliveries with all that an attempt needs, in the order of the groups."""
        async with self._database.reading() as connection:
            return await _attempts.load(connection, groups)

    async def record_intent(self, dues: Sequence[Due]) -> None:
        """Announce attempts whose repetition would do harm, before they are made."""
        async with self._database.writing() as connection:
            await _attempts.record_intent(connection, dues)

    async def announce(self, due: Due) -> bool:
        """Claim one attempt, at once before it is made; False if the delivery is not as it was when `due` was read."""
        async with self._database.writing() as connection:
            return await _attempts.announce(connection, due)

    async def record(self, attempts: Sequence[Attempt]) -> None:
        """Put attempts on record: deliveries move on, never back from settled; targets that are gone are disabled."""
        async with self._database.writing() as connection:
            await _attempts.record(connection, attempts)

    async def settle(self, groups: Sequence[Group], *, reason: str) -> dict[str, dict[DeliveryState, int]]:
        """Cancel what is not settled; how many of all these deliveries stand in which settled state, by event key."""
        async with self._database.writing() as connection:
            return await settling.settle(connection, groups, reason=reason)

    async def reopen(self, workflow_id: str, groups: Sequence[Group], *, orphans: bool = False) -> tuple[Group, ...]:
        """Make settled deliveries, and `orphans` whose run is gone, pending again, held by `workflow_id`.

        What was opened comes back, with the number of its next attempt.
        """
        async with self._database.writing() as connection:
            return await settling.reopen(connection, workflow_id, groups, orphans=orphans)

    async def locate(self, source: str, event_id: str, subscription_id: str | None = None) -> Located:
        """Raises EventNotFound or DeliveryNotFound."""
        async with self._database.reading() as connection:
            stored = await _events.stored(connection, source, event_id)
            key = stored.event.key
            located = Located(
                event_key=key,
                workflow_id=stored.workflow_id,
                digest=stored.digest,
                accepted_at=stored.accepted_at,
                counts=stored.counts,
            )
            if subscription_id is None:
                return located
            found = await _deliveries.by_pairs(connection, [(key, subscription_id)])
        if not found:
            raise DeliveryNotFound
        delivery = found[key, subscription_id]
        return located.model_copy(
            update={
                "delivery": settling.grouped([delivery])[0],
                "delivery_state": delivery.state,
                "delivery_workflow_id": delivery.workflow_id,
            }
        )

    async def claimed_provider_ids(self, provider_ids: Sequence[str]) -> set[str]:
        """Those of the providers' ids that some attempt has on record."""
        async with self._database.reading() as connection:
            return await _attempts.claimed(connection, provider_ids)

    # What people read.

    async def events(
        self,
        *,
        type: str | None = None,  # noqa: A002 - the word of CloudEvents
        tenant: str | None = None,
        after: str = "",
        limit: int = 50,
    ) -> list[StoredEvent]:
        """Events, newest first, after the one whose key is `after`; `tenant` is whom they were addressed to."""
        async with self._database.reading() as connection:
            return await _events.listing(connection, event_type=type, tenant=tenant, after=after, limit=limit)

    async def find_events(self, event_id: str, *, source: str | None = None) -> list[StoredEvent]:
        """The events of this id, newest first."""
        async with self._database.reading() as connection:
            return await _events.with_id(connection, event_id, source=source)

    async def deliveries(
        self,
        *,
        event_key: str | None = None,
        subscription_id: str | None = None,
        tenant: str | None = None,
        state: DeliveryState | None = None,
        channel: Channel | None = None,
        after: str = "",
        limit: int = 100,
    ) -> list[Delivery]:
        """Deliveries by event key and subscription id, after the delivery whose id is `after`."""
        async with self._database.reading() as connection:
            return await _deliveries.listing(
                connection,
                event_key=event_key,
                subscription_id=subscription_id,
                tenant=tenant,
                state=state,
                channel=channel,
                after=after,
                limit=limit,
            )

    async def attempts(self, event_key: str, subscription_id: str | None = None) -> list[Attempt]:
        """The attempts of an event, or of one of its deliveries, by subscription and number."""
        async with self._database.reading() as connection:
            return await _attempts.listing(connection, event_key, subscription_id=subscription_id)
