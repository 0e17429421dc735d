"""SMS channels with Twilio's client and a fake registry, and requests for them."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import aiohttp

from activities.rendering.renderer import Renderer
from activities.sms.channel import SmsChannel
from activities.sms.providers import Providers
from activities.sms.twilio import TwilioProvider, twilio_client
from bellwire.deliveries import DeliveryState, Outcome, OutcomeKind
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.subscriptions import Subscription
from bellwire.suppressions import EVERYWHERE, Suppression, SuppressionReason
from bellwire.targets import Channel
from starter.local.receivers.twilio import FakeTwilio
from tests.factories import event, send_request, subscription

TO, SENDER = "+14155550123", "+14155550100"
TIMEOUT = 1.5
SUBSCRIPTION = subscription({"channel": "sms", "to": TO}, id="sub_sms")
HAPPENED = event(id="1")
TEXT = asyncio.run(Renderer().text(send_request(SUBSCRIPTION, HAPPENED), "sms.text"))


class Claims:
    """A fake registry: the provider ids that attempts have recorded, and the suppressed numbers."""

    def __init__(self) -> None:
        self.attempts = self.suppressions = self
        self.sids: set[str] = set()
        self.list: list[Suppression] = []

    async def claim(self, request: SendRequest, *, provider: str) -> datetime:
        return datetime.now(UTC)

    async def claimed_provider_ids(self, provider_ids: Sequence[str]) -> set[str]:
        return self.sids & set(provider_ids)

    async def add(self, suppression: Suppression) -> None:
        self.list.append(suppression)

    async def among(
        self, channel: Channel, addresses: Sequence[str], *, subscription_id: str, also_for: Sequence[str]
    ) -> dict[str, SuppressionReason]:
        scopes = {EVERYWHERE, subscription_id, *also_for}
        return {
            each.address: each.reason
            for each in self.list
            if each.channel is channel and each.address in addresses and each.subscription_id in scopes
        }


def sms_channel(
    twilio: FakeTwilio,
    session: aiohttp.ClientSession,
    registry: object,
    *,
    token: str = "",
    sender: str = SENDER,
    callbacks: str | None = None,
    renderer: Renderer | None = None,
    **changes: Any,
) -> SmsChannel:
    token = token or twilio.auth_token
    client = twilio_client(twilio.account_sid, token, url=twilio.url, timeout=TIMEOUT, session=session)
    provider = TwilioProvider(client, cast(Registry, registry).attempts, sender=sender, callbacks=callbacks)
    return channel_of(Providers([provider]), registry, renderer=renderer, **changes)


def channel_of(
    providers: Providers, registry: object, *, renderer: Renderer | None = None, **changes: Any
) -> SmsChannel:
    settings = {"reconcile_after": 0.0, "max_segments": 10, **changes}
    return SmsChannel(cast(Registry, registry), providers, renderer or Renderer(), **settings)


def broken_templates(folder: Path) -> Renderer:
    (folder / HAPPENED.type).mkdir()
    (folder / HAPPENED.type / "sms.txt").write_text("Order {{ missing }}")
    return Renderer(folder)


def first(**fields: Any) -> SendRequest:
    return send_request(SUBSCRIPTION, HAPPENED, **fields)


def next_after(outcome: Outcome, number: int = 2) -> SendRequest:
    """The delivery as the registry has it for the attempt after `outcome`."""
    intent_at = datetime.now(UTC) - timedelta(seconds=1) if outcome.kind is OutcomeKind.UNKNOWN else None
    return first(number=number, reason=outcome.reason, updated_at=datetime.now(UTC), intent_at=intent_at)


def killed(to: Subscription = SUBSCRIPTION, **fields: Any) -> SendRequest:
    """A delivery of which a killed worker recorded the intent to send."""
    intent = datetime.now(UTC) - timedelta(seconds=3)
    return send_request(to, HAPPENED, state=DeliveryState.SENDING, intent_at=intent, **fields)
