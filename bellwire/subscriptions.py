"""Subscription: a tenant's standing request for events, and the target that receives them."""

import re
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo

from bellwire.errors import Place
from bellwire.events import Event, uuid7
from bellwire.filters import Filter, TypePattern, matches, type_matches
from bellwire.models import TRUSTED, StrictInput
from bellwire.targets import SPECS, Channel, Target
from bellwire.targets.chat.wechat_fields import check_fields
from bellwire.tenants import ALL_TENANTS, DEFAULT_TENANT, TenantName

_SUBSCRIPTION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_TEMPLATE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*")
_LOCALE = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8})*")


class SubscriptionState(StrEnum):
    #: Events are matched and delivered.
    ACTIVE = "active"
    #: The tenant paused it. Events that are published meanwhile are not delivered later.
    PAUSED = "paused"
    #: Bellwire disabled it, because the target is gone or failed for too long; see `state_reason`.
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
    if source := templates.get("wechat.json"):
        check_fields(source)
    try:
        size = sum(len(source.encode()) for source in templates.values())
    except UnicodeEncodeError as error:
        raise ValueError("contain a lone surrogate, which UTF-8 cannot encode; fix the text") from error
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
#: Lowest and highest rate limit, in deliveries per second: one in 17 minutes, and more than any endpoint handles.
RATE_BOUNDS = (0.001, 10_000.0)
#: Seconds before the second, third, … attempt: up to 50 delays of at most 7 days.
RetrySchedule = Annotated[tuple[Annotated[float, Field(gt=0, le=7 * 86400)], ...], Field(max_length=50)]


class Subscription(StrictInput):
    """A tenant's standing request: which events go to which target. Raises SubscriptionInvalid, which names the fields."""

    #: Unique across all tenants; part of each delivery's id. A UUIDv7 by default.
    id: SubscriptionId = Field(default_factory=lambda: f"sub_{uuid7().hex}")
    #: The tenant that owns it.
    tenant: TenantName = DEFAULT_TENANT
    #: An event matches if its type matches any of these patterns.
    types: Annotated[tuple[TypePattern, ...], Field(min_length=1, max_length=100)]
    #: All of these must match too.
    filters: Annotated[tuple[Filter, ...], Field(max_length=100)] = ()
    target: Target
    #: The template to render; by default the one named like the event type. Webhooks send the event itself.
    template: (
        Annotated[str, Field(max_length=100), _matching(_TEMPLATE, "must be dotted words, such as order.paid")] | None
    ) = None
    #: The tenant's own templates: email.subject, email.text, email.html; sms.text; webhook.json. They take precedence over the
    #: operator's, which are used for those left out. `subscribe` reports their syntax errors.
    templates: Annotated[dict[str, str], Field(min_length=1), AfterValidator(_templates)] | None = None
    #: Language of the text, a BCP 47 tag: en, zh-CN.
    locale: Annotated[str, _matching(_LOCALE, "must be a BCP 47 language tag, such as en or zh-CN")] = "en"
    #: Seconds before each further attempt; None: the channel's default schedule. Empty: one attempt only.
    retry_schedule: RetrySchedule | None = None
    #: Maximum deliveries per second; further ones wait. None: no limit.
    rate_limit: Annotated[float, Field(ge=RATE_BOUNDS[0], le=RATE_BOUNDS[1])] | None = None
    state: SubscriptionState = SubscriptionState.ACTIVE
    #: Why it is paused or disabled; None while active.
    state_reason: str | None = None
    #: Counts its changes, from 1. The registry sets it.
    version: Annotated[int, Field(ge=1)] = 1
    #: When it was changed; None if it never was. The registry sets it.
    updated_at: datetime | None = None

    @classmethod
    def known_fields(cls, place: Place) -> Iterable[str]:
        """Also those of the targets, at `target`."""
        match place:
            case ("target", str(channel), _) if channel in list(Channel):
                return SPECS[Channel(channel)].target.model_fields
        return super().known_fields(place)

    @property
    def channel(self) -> Channel:
        return self.target.channel

    def wants(self, event: Event) -> bool:
        """Whether the event is to be delivered: active, its tenant, and a type pattern and all filters match."""
        return (
            self.state is SubscriptionState.ACTIVE
            and event.tenant in {ALL_TENANTS, self.tenant}
            and any(type_matches(pattern, event.type) for pattern in self.types)
            and matches(self.filters, event)
        )
