"""SendRequest: what a channel is asked to send, in one attempt."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple, Self

from pydantic import SecretStr

from bellwire.contract import Group
from bellwire.deliveries import Delivery, DeliveryState, delivery_id
from bellwire.endpoint_health import HEALTHY, EndpointHealth
from bellwire.events import Event, event_key
from bellwire.subscriptions import Subscription
from bellwire.suppressions import SuppressionReason
from bellwire.targets import SPECS

#: The extension attribute of an event that replaces an earlier one of its source, whose id it has.
REPLACES = "replaces"


def replaced_key(event: Event) -> str | None:
    """The key of the event that this one replaces; None if it replaces none."""
    replaced = event.extensions.get(REPLACES)
    return event_key(event.source, str(replaced)) if replaced and not isinstance(replaced, bool) else None


class AttemptKey(NamedTuple):
    """Identifies one attempt at one delivery."""

    event_key: str
    subscription_id: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SendRequest:
    """One attempt at one delivery, with everything that a channel needs, read from the registry just before the attempt.

    A send of several events, such as a digest, is a request like any other: its delivery identifies it, never one of its
    events.
    """

    #: The delivery as the registry stores it, with the results of earlier attempts.
    delivery: Delivery
    #: The events to send, at least one, in order.
    events: tuple[Event, ...]
    #: Each event as CloudEvents JSON, as it was stored.
    events_json: tuple[str, ...]
    subscription: Subscription
    #: The number of this attempt, from 1.
    number: int
    #: Whether `retry_now` requested this attempt before it was due.
    extra: bool = False
    #: The retry schedule of the event's type, for a subscription without its own; None: the type has none.
    type_schedule: tuple[float, ...] | None = None
    #: The secrets to sign with that have not expired, newest first; empty on channels that do not sign.
    secrets: tuple[SecretStr, ...] = ()
    #: The target's addresses that must not be sent to, as the target spells them, each with the reason.
    suppressed: Mapping[str, SuppressionReason] = field(default_factory=dict)
    #: The health of the subscription's endpoint when the request was loaded.
    health: EndpointHealth = HEALTHY
    #: When it was read from the registry.
    loaded_at: datetime = field(default_factory=lambda: datetime.now(UTC), compare=False)
    #: Whether the registry has the delivery; not for a test send or a preview.
    recorded: bool = True
    #: The provider's id of the delivered message that this one replaces; None if there is none, or the channel changes none.
    replaced_id: str | None = None
    #: Earlier deliveries that this one replaces and that are not settled: what they send later would show the old text.
    outdated: tuple[Delivery, ...] = ()

    @classmethod
    def unrecorded(
        cls,
        subscription: Subscription,
        event: Event,
        *,
        workflow_id: str = "",
        secrets: tuple[SecretStr, ...] = (),
        suppressed: Mapping[str, SuppressionReason] | None = None,
        health: EndpointHealth = HEALTHY,
    ) -> Self:
        """The first attempt at a delivery that the registry does not have: a test send or a preview."""
        return cls(
            delivery=Delivery(
                event_key=event.key,
                subscription_id=subscription.id,
                channel=subscription.channel,
                state=DeliveryState.PENDING,
                workflow_id=workflow_id,
                updated_at=datetime.now(UTC),
            ),
            events=(event,),
            events_json=(event.to_json(),),
            subscription=subscription,
            number=1,
            secrets=secrets,
            suppressed=suppressed or {},
            health=health,
            recorded=False,
        )

    @property
    def id(self) -> str:
        """The delivery's id: the same on every attempt, so receivers and providers deduplicate on it."""
        return self.delivery.id

    @property
    def repetition_key(self) -> str:
        """40 characters by which a provider knows another attempt. A redelivery, which is by another workflow, has others."""
        return hashlib.sha256(f"{self.id}/{self.delivery.workflow_id}".encode()).hexdigest()[:40]

    @property
    def notice_id(self) -> str:
        """What a notice on a screen is known by: a later push with the same id takes its place.

        The id of the delivery, or that of the delivery that its event replaces.
        """
        replaced = replaced_key(self.event)
        return self.id if replaced is None else delivery_id(replaced, self.delivery.subscription_id)

    @property
    def key(self) -> AttemptKey:
        return AttemptKey(self.delivery.event_key, self.delivery.subscription_id, self.number)

    @property
    def is_uncounted(self) -> bool:
        """Whether the schedule does not advance if this attempt is deferred. The first attempt of a schedule always counts."""
        return self.extra and self.number > self.delivery.schedule_from + 1

    @property
    def schedule_step(self) -> int:
        """The index of the schedule's delay that follows this attempt if it is deferred."""
        return self.number - self.delivery.schedule_from - (2 if self.is_uncounted else 1)

    @property
    def own_schedule(self) -> tuple[float, ...] | None:
        """Seconds before the second, third, … attempt, by the subscription or the event's type; None: as the channel has it."""
        own = self.subscription.retry_schedule
        return self.type_schedule if own is None else own

    @property
    def seconds_left(self) -> float:
        """How long the delivery is attempted from now on, by its schedule."""
        own = self.own_schedule
        schedule = SPECS[self.delivery.channel].schedule if own is None else own
        return sum(schedule[max(self.schedule_step, 0) :])

    @property
    def event(self) -> Event:
        """The first event, which is the only one unless the send is a digest."""
        return self.events[0]

    @property
    def group(self) -> Group:
        """The delivery as workflows name it."""
        return Group(
            event_key=self.delivery.event_key,
            channel=self.delivery.channel,
            subscription_ids=(self.delivery.subscription_id,),
            attempt=self.number,
            extra=self.extra,
        )

    @property
    def is_limited(self) -> bool:
        """Whether the attempt needs a reservation: by a rate, or by the pace of the address."""
        return self.rate is not None or self.subscription.target.pace is not None

    @property
    def rate(self) -> float | None:
        """Maximum deliveries per second, by the subscription and by the endpoint's consent; None: no limit."""
        own, consented = self.subscription.rate_limit, self.consented_rate
        return own if consented is None else consented if own is None else min(own, consented)

    @property
    def consented_rate(self) -> float | None:
        """Maximum deliveries per second that the endpoint consented to, if it is asked for consent and named a rate."""
        consent = self.health.consent
        return consent.rate if consent is not None and self.subscription.target.needs_consent else None
