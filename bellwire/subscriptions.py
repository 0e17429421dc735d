"""Subscription: a tenant's standing request for events, and the target that receives them."""

import re
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo

from bellwire.events import Event, TenantName, uuid7
from bellwire.filters import Filter, TypePattern, matches, type_matches
from bellwire.models import TRUSTED, StrictInput
from bellwire.targets import SPECS, Channel, Target

_SUBSCRIPTION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_TEMPLATE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*")
_LOCALE = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8})*")


class SubscriptionState(StrEnum):
    #: Events are matched and delivered.
    ACTIVE = "active"
    #: The tenant asked for silence; events that come meanwhile are not delivered later.
    PAUSED = "paused"
    #: Bellwire stopped it, because the target is gone or has failed for too long; `state_reason` says why.
    DISABLED = "disabled"


#: Maximum size of a subscription's templates together, in bytes of UTF-8.
MAX_TEMPLATES_BYTES = 64 * 1024


def _templates(templates: dict[str, str], info: ValidationInfo) -> dict[str, str]:
    if info.context == TRUSTED:
        return templates
    target = info.data.get("target")  # is missing if it is invalid itself
    allowed = SPECS[target.channel].templates if target else templates
    for name in templates:
        if name not in allowed:
            raise ValueError(f"{name[:40]!r} does not fit the target; write {' or '.join(allowed)}")
    try:
        size = sum(len(source.encode()) for source in templates.values())
    except UnicodeEncodeError as error:
        raise ValueError("hold half a character (a lone surrogate), which has no UTF-8") from error
    if size > MAX_TEMPLATES_BYTES:
        raise ValueError(f"have {size:,} bytes together, the limit is {MAX_TEMPLATES_BYTES:,}; shorten them")
    return templates


def _matching(pattern: re.Pattern[str], remedy: str) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(remedy)
        return value

    return AfterValidator(check)


SubscriptionId = Annotated[
    str,
    _matching(_SUBSCRIPTION_ID, "must be 1 to 63 letters, digits, dashes or underscores, the first a letter or digit"),
]
#: Lowest and highest rate limit, in deliveries per second: one in 17 minutes, and more than any one receiver takes.
RATE_BOUNDS = (0.001, 10_000.0)
#: Seconds to wait before the second, third, … attempt. Up to 50 waits of at most 7 days.
RetrySchedule = Annotated[tuple[Annotated[float, Field(gt=0, le=7 * 86400)], ...], Field(max_length=50)]


class Subscription(StrictInput):
    """A tenant's standing wish: which events, and where to. Raises pydantic's ValidationError, which names each bad field."""

    #: Unique over all tenants; part of each delivery's id. A UUIDv7 if left out.
    id: SubscriptionId = Field(default_factory=lambda: f"sub_{uuid7().hex}")
    tenant: TenantName
    #: Events of a type that matches any of these are wanted.
    types: Annotated[tuple[TypePattern, ...], Field(min_length=1, max_length=100)]
    #: All of them must match as well.
    filters: Annotated[tuple[Filter, ...], Field(max_length=100)] = ()
    target: Target
    #: The template to render instead of the one named like the event type. Webhooks carry the event itself.
    template: (
        Annotated[str, Field(max_length=100), _matching(_TEMPLATE, "must be dotted words, such as order.paid")] | None
    ) = None
    #: Templates that the tenant wrote, by part: email.subject, email.text, email.html; sms.text; webhook.json. They win over
    #: the operator's; a part that is left out comes from those. What is wrong in them is found by `subscribe`.
    templates: Annotated[dict[str, str], Field(min_length=1), AfterValidator(_templates)] | None = None
    #: BCP 47 language of the text: en, zh-CN.
    locale: Annotated[str, _matching(_LOCALE, "must be a BCP 47 language tag, such as en or zh-CN")] = "en"
    #: Seconds to wait before each further attempt; the channel's default schedule, if left out. Empty: one attempt only.
    retry_schedule: RetrySchedule | None = None
    #: Most deliveries per second; what comes faster waits its turn. None: no limit.
    rate_limit: Annotated[float, Field(ge=RATE_BOUNDS[0], le=RATE_BOUNDS[1])] | None = None
    state: SubscriptionState = SubscriptionState.ACTIVE
    #: Why it is paused or disabled; None while active.
    state_reason: str | None = None

    @property
    def channel(self) -> Channel:
        return self.target.channel

    def wants(self, event: Event) -> bool:
        """Whether the event is to be delivered: right tenant, active, a type pattern and all filters match."""
        return (
            self.state is SubscriptionState.ACTIVE
            and event.tenant in {None, self.tenant}
            and any(type_matches(pattern, event.type) for pattern in self.types)
            and matches(self.filters, event)
        )
