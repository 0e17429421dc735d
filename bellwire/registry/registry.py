"""Registry: what Bellwire knows, kept in one database."""

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Self

from pydantic import SecretStr

from bellwire.contract import EventSummary, Group, LookupResult
from bellwire.deliveries import Attempt, Delivery, DeliveryState, Due
from bellwire.endpoint_health import Consent, DisablePolicy, EndpointHealth
from bellwire.errors import SubscriptionNotFound
from bellwire.events import Event
from bellwire.keys.keyring import KeyRing
from bellwire.keys.signing import KeyKind
from bellwire.registry import attempts as _attempts
from bellwire.registry import deliveries as _deliveries
from bellwire.registry import endpoint_health_columns as _conditions
from bellwire.registry import events as _events
from bellwire.registry import limits as _limits
from bellwire.registry import lookup, matching, settling
from bellwire.registry import operational_events as _announcements
from bellwire.registry import receipts as _confirmations
from bellwire.registry import signing_secrets as _secrets
from bellwire.registry import subscriptions as _subscriptions
from bellwire.registry import suppressions as _suppressions
from bellwire.registry.attempt_batcher import AttemptBatcher
from bellwire.registry.db import schema
from bellwire.registry.db.engine import Database
from bellwire.registry.events import StoredEvent
from bellwire.registry.matching import Found, Match
from bellwire.registry.signing_secrets import OVERLAP, KeyInUse
from bellwire.registry.upkeep import rekeying
from bellwire.registry.upkeep.retention import Retention
from bellwire.sms.receipts import Confirmation
from bellwire.subscriptions import Channel, Subscription, SubscriptionState
from bellwire.suppressions import Suppression, SuppressionReason

LIMITS_KNOWN_FOR = 5.0
DISABLE_POLICY = DisablePolicy()


class Registry:
    """Tenants, subscriptions, events, deliveries and attempts. Each method is one transaction.

    Every method raises RegistryUnavailable when the database cannot be reached, and NotSetUp when tables are missing.
    """

    def __init__(self, database: Database, disable_policy: DisablePolicy = DISABLE_POLICY) -> None:
        self._database = database
        #: What purges, erases and deletes, in many transactions.
        self.retention = Retention(database)
        self._batcher = AttemptBatcher(lambda attempts: database.write(_attempts.record, attempts, disable_policy))
        self._limited: tuple[Channel, ...] = ()
        self._limits_asked_at = -LIMITS_KNOWN_FOR

    @classmethod
    async def open(
        cls, url: str, *, pool: int = 10, ring: KeyRing | None = None, disable_policy: DisablePolicy = DISABLE_POLICY
    ) -> Self:
        """Connect to sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME, with at most `pool` connections.

        With a `ring`, what may be private is encrypted at rest. `patience` says how long subscriptions may fail whose
        attempts are recorded here.
        """
        registry = cls(Database.at(url, pool=pool, ring=ring), disable_policy)
        try:
            await registry.ping()
        except BaseException:
            await registry.close()
            raise
        return registry

    async def close(self) -> None:
        await self._batcher.close()
        await self._database.close()

    async def ping(self) -> None:
        await self._database.read(schema.ping)

    async def migrate(self) -> None:
        """Make the tables, or bring them up to date; any number of processes may do so at once."""
        await self._database.write(schema.migrate)

    async def check(self) -> None:
        """Raise NotSetUp unless the tables are those of this version."""
        await self._database.read(schema.check)

    async def look(self, column: str, *, after: rekeying.Row | None) -> rekeying.Window:
        """What is not under the first key in the next rows of a column (of rekeying.COLUMNS). Raises KeysInvalid."""
        return await self._database.read(rekeying.look, column, after=after)

    async def rekey(self, column: str, astray: Sequence[rekeying.Astray]) -> None:
        """Bring what `look` found under the first key. Raises NotReadable, which names a key that is missing."""
        await self._database.write(rekeying.move, column, astray)

    # Subscriptions.

    async def subscribe(
        self, subscription: Subscription, *, secret: str | None = None, kind: KeyKind | None = None
    ) -> SecretStr | None:
        """Store a new subscription. The secret that signs its webhooks comes back, made here unless given.

        Raises SubscriptionInvalid if the id exists already or the secret is not one, of this `kind` if that is given.
        """
        return await self._database.write(_subscriptions.subscribe, subscription, secret=secret, kind=kind)

    async def rotate_secret(
        self,
        subscription_id: str,
        *,
        overlap: timedelta = OVERLAP,
        secret: str | None = None,
        kind: KeyKind | None = None,
    ) -> SecretStr:
        """Sign with another secret from now on, and with those before it for `overlap` more; with zero they stop at once.

        It is made here unless given, of the kind in use unless `kind` is. Raises SubscriptionNotFound and
        SubscriptionInvalid.
        """
        return await self._database.write(_secrets.rotate, subscription_id, overlap=overlap, secret=secret, kind=kind)

    async def keys_in_use(self, subscription_id: str) -> tuple[KeyInUse, ...]:
        """What signs this subscription's webhooks now, newest first, without the secrets. Raises SubscriptionNotFound."""
        return await self._database.read(_secrets.in_use, subscription_id)

    async def subscription(self, subscription_id: str) -> Subscription:
        """Raises SubscriptionNotFound."""
        return (await self.receiver(subscription_id))[0]

    async def receiver(self, subscription_id: str) -> tuple[Subscription, tuple[SecretStr, ...], EndpointHealth]:
        """A subscription, what signs its webhooks, and how its receiver fares. Raises SubscriptionNotFound."""
        found = await self._database.read(_subscriptions.by_ids, [subscription_id])
        if not found:
            raise SubscriptionNotFound
        return found[subscription_id]

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
        return await self._database.read(
            _subscriptions.listing, tenant=tenant, channel=channel, state=state, after=after, limit=limit
        )

    async def set_state(self, subscription_id: str, state: SubscriptionState, *, reason: str | None = None) -> None:
        """An active one begins well: not throttled, and with no failure.

        Raises SubscriptionNotFound, or SubscriptionInvalid if it is to be active and its recipient was erased.
        """
        await self._database.write(_subscriptions.set_state, subscription_id, state, reason=reason)

    async def give_consent(self, subscription_id: str, consent: Consent) -> None:
        """Note what a receiver has consented to, for the attempts that come."""
        await self._database.write(_conditions.give_consent, subscription_id, consent)

    # What tenants are told about their subscriptions.

    async def operational_events(self, *, limit: int = 100) -> list[Event]:
        """The first events that are still to be published."""
        return await self._database.read(_announcements.listing, limit=limit)

    async def forget_operational_events(self, ids: Sequence[str]) -> None:
        """Forget events that have been published."""
        await self._database.write(_announcements.remove, ids)

    # Rate limits.

    async def limits(self) -> dict[Channel, float]:
        """Most deliveries per second of the channels that have a limit."""
        return await self._database.read(_limits.of_channels)

    async def limited(self) -> tuple[Channel, ...]:
        """The channels that have a limit, as it stood within the last LIMITS_KNOWN_FOR seconds: runs ask for it often."""
        if time.monotonic() >= self._limits_asked_at + LIMITS_KNOWN_FOR:
            self._limited = tuple(sorted(await self.limits()))
            self._limits_asked_at = time.monotonic()
        return self._limited

    async def set_limit(self, channel: Channel, per_second: float) -> None:
        await self._database.write(_limits.set_limit, channel, per_second)

    async def clear_limit(self, channel: Channel) -> None:
        """Leave the channel without a limit, whether or not it had one."""
        await self._database.write(_limits.clear_limit, channel)

    async def reserve(self, dues: Sequence[Due], *, now: datetime) -> dict[tuple[str, str], datetime]:
        """A moment from `now` on for each delivery whose subscription has a rate limit, by event key and subscription id.

        One that has a moment already that has not lapsed, and has not been attempted since, keeps it.
        """
        return await self._database.write(_limits.reserve, dues, now=now)

    # Suppressions.

    async def suppress(self, suppression: Suppression) -> None:
        """Write to an address no more; one that is on the list already stays as it is."""
        await self._database.write(_suppressions.suppress, suppression)

    async def lift_suppression(
        self,
        channel: Channel,
        address: str,
        *,
        subscription_id: str | None = None,
        reason: SuppressionReason | None = None,
    ) -> bool:
        """Write to an address again, for one subscription or, with None, for all; False if it was not on the list.

        With `reason`, only where that is why it is there.
        """
        return await self._database.write(
            _suppressions.lift, channel, address, subscription_id=subscription_id, reason=reason
        )

    async def suppressed(
        self, channel: Channel, addresses: Sequence[str], *, subscription_id: str, also_for: Sequence[str] = ()
    ) -> dict[str, SuppressionReason]:
        """Those of the addresses that must not be written to for this subscription, or `also_for` these scopes, and why."""
        return await self._database.read(
            _suppressions.among, channel, addresses, subscription_id=subscription_id, also_for=also_for
        )

    async def suppressions(
        self,
        *,
        channel: Channel | None = None,
        address: str | None = None,
        before: datetime | None = None,
        limit: int = 100,
    ) -> Sequence[Suppression]:
        """The list, newest first, of what came onto it before `before`."""
        return await self._database.read(
            _suppressions.listing, channel=channel, address=address, before=before, limit=limit
        )

    # Confirmations.

    async def confirm(self, confirmation: Confirmation, *, suppression: Suppression | None = None) -> bool:
        """Keep what a provider says later of an SMS, and suppress as well, if it is news; False if it is not.

        Raises DeliveryNotFound.
        """
        return await self._database.write(_confirmations.confirm, confirmation, suppression=suppression)

    async def confirmations(self, deliveries: Sequence[Delivery]) -> dict[str, Confirmation]:
        """By delivery id, what was confirmed of that which was sent last."""
        sent = {(one.event_key, one.subscription_id, one.provider_id): one.id for one in deliveries if one.provider_id}
        if not sent:
            return {}
        found = await self._database.read(_confirmations.of_events, {key for key, _, _ in sent})
        named = [((one.event_key, one.subscription_id, one.provider_id), one) for one in found]
        return {sent[name]: one for name, one in named if name in sent}

    # What runs do.

    async def accept(self, events: Sequence[Event], workflow_id: str, run_id: str = "") -> dict[str, EventSummary]:
        """Store events for the run that publishes them; how each stands, by event key. The same run may ask again."""
        return await self._database.write(_events.accept, events, workflow_id, run_id)

    async def match(self, event: Event, *, after: str = "", limit: int, scan: int) -> Match:
        """Up to `limit` subscriptions beyond `after` that want the event; reads at most `scan` candidate rows."""
        (matches,) = await self.match_each([[event]], after=after, limit=limit, scan=scan)
        return matches[0]

    async def match_each(
        self, alike: Sequence[Sequence[Event]], *, after: str = "", limit: int, scan: int
    ) -> list[list[Match]]:
        """`match` for lists of events, each of one type and one tenant, so that each row is read once for all of a list.

        `scan` is for all of them together.
        """
        return await self._database.read(matching.match_each, alike, after=after, limit=limit, scan=scan)

    async def match_range(self, event: Event, *, after: str, until: str) -> tuple[Found, ...]:
        """Every subscription beyond `after` and up to `until` that wants the event: id and channel, by ascending id."""
        return await self._database.read(matching.match_range, event, after=after, until=until)

    async def events_by_key(self, keys: Sequence[str]) -> dict[str, Event]:
        """Those of the events that exist."""
        return {key: event for key, (event, _) in (await self._database.read(_events.by_keys, keys)).items()}

    async def add_deliveries(self, workflow_id: str, groups: Sequence[Group]) -> None:
        """Insert deliveries as pending, held by `workflow_id`; those that exist already are left alone."""
        await self._database.write(_deliveries.add, workflow_id, groups)

    async def load(self, groups: Sequence[Group]) -> list[Due]:
        """Deliveries with all that an attempt needs, in the order of the groups."""
        return await self._database.read(_attempts.load, groups)

    async def record_intent(self, dues: Sequence[Due]) -> None:
        """Announce attempts whose repetition would do harm, before they are made."""
        await self._database.write(_attempts.record_intent, dues)

    async def lease(self, dues: Sequence[Due]) -> None:
        """Tell other processes that these attempts are under way here, now; `Delivery.leased` reads it."""
        await self._database.write(_attempts.lease, dues)

    async def probe(self, due: Due) -> None:
        """Write something about a delivery, to find out whether the registry takes writes before anything is sent."""
        await self._database.write(_attempts.touch, due)

    async def claim_attempt(self, due: Due, *, asking: str | None = None) -> datetime | None:
        """Claim one attempt, at once before a provider is asked for it; what `updated_at` is from now on.

        None if the delivery is not as it was when `due` was read.
        """
        return await self._database.write(_attempts.claim_attempt, due, asking=asking)

    async def record(self, attempts: Sequence[Attempt]) -> None:
        """Put attempts on record: deliveries move on, never back from settled.

        Subscriptions whose receiver is gone, or has failed for too long, are disabled.
        """
        await self._batcher.record(attempts)

    async def settle(self, groups: Sequence[Group], *, reason: str) -> dict[str, dict[DeliveryState, int]]:
        """Cancel what is not settled; how many of all these deliveries stand in which settled state, by event key."""
        return await self._database.write(settling.settle, groups, reason=reason)

    async def reopen(self, workflow_id: str, groups: Sequence[Group], *, abandoned: bool = False) -> tuple[Group, ...]:
        """Make settled deliveries, and `orphans` whose run is gone, pending again, held by `workflow_id`.

        What was opened comes back, with the number of its next attempt.
        """
        return await self._database.write(settling.reopen, workflow_id, groups, abandoned=abandoned)

    async def lookup(self, source: str, event_id: str, subscription_id: str | None = None) -> LookupResult:
        """Raises EventNotFound or DeliveryNotFound."""
        return await self._database.read(lookup.lookup, source, event_id, subscription_id)

    async def claimed_provider_ids(self, provider_ids: Sequence[str]) -> set[str]:
        """Those of the providers' ids that some attempt has on record."""
        return await self._database.read(_attempts.claimed, provider_ids)

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
        return await self._database.read(_events.listing, event_type=type, tenant=tenant, after=after, limit=limit)

    async def find_events(self, event_id: str, *, source: str | None = None) -> list[StoredEvent]:
        """The events of this id, newest first."""
        return await self._database.read(_events.with_id, event_id, source=source)

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
        return await self._database.read(
            _deliveries.listing,
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
        return await self._database.read(_attempts.listing, event_key, subscription_id=subscription_id)
