"""Twilio's callbacks over HTTP, signed as Twilio signs them, into a gateway with a real registry."""

import asyncio
import socket
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import pytest
import uvicorn

from bellwire.contract import Group
from bellwire.registry import Registry
from bellwire.service.settings import Settings
from bellwire.sms.receipts import SmsReceipt
from bellwire.suppressions import EVERYWHERE, Suppression, SuppressionReason, by_sender
from bellwire.targets import Channel
from starter.gateway.app import application
from starter.gateway.provider_callbacks import MAX_BODY
from starter.local.receivers.twilio import FakeTwilio, Sent
from tests.factories import event, subscription

PUBLIC = "https://bellwire.example/notify"
TO, SENDER, SERVICE = "+14155550123", "+14155550100", "MG" + "1" * 32
HAPPENED = event(id="1")
WISH = subscription({"channel": "sms", "to": TO}, id="sub_sms")
DELIVERY = f"dlv_{HAPPENED.key}_{WISH.id}"


class Called(NamedTuple):
    """A gateway, whom it tells, and who calls it."""

    registry: Registry
    twilio: FakeTwilio

    def sent(self, sender: str = SENDER, *, delivery: str = DELIVERY) -> Sent:
        return self.twilio.add_message(TO, sender, "Hello", callback=f"{PUBLIC}/callbacks/twilio/{delivery}")

    async def tell(self, sent: Sent, status: str, **fields: str) -> int:
        return await self.twilio.send_status_callback(sent, status, **fields)

    async def receive(self, body: str, **fields: str) -> int:
        url = f"{PUBLIC}/callbacks/twilio/inbound"
        return await self.twilio.send_inbound(url, body, **{"From": TO, "To": SENDER, **fields})

    async def receipt(self, sent: Sent) -> SmsReceipt | None:
        (delivery,) = await self.registry.deliveries.list(event_key=HAPPENED.key)
        found = await self.registry.sms_receipts.of_deliveries([delivery.model_copy(update={"provider_id": sent.sid})])
        return found.get(delivery.id)

    async def suppressed(self, *scopes: str) -> dict[str, SuppressionReason]:
        return await self.registry.suppressions.among(Channel.SMS, [TO], subscription_id="another", also_for=scopes)


@pytest.fixture
async def called(tmp_path: Path) -> AsyncIterator[Called]:
    """The gateway behind a proxy that leaves `/notify` out of the path, as many do."""
    registry = await Registry.open(f"sqlite:///{tmp_path}/registry.db")
    await registry.migrate()
    await registry.subscriptions.create(WISH)
    await registry.events.accept([HAPPENED], "run")
    group = Group(event_key=HAPPENED.key, channel=Channel.SMS, subscription_ids=(WISH.id,))
    await registry.deliveries.add("run", [group])
    twilio = FakeTwilio()
    settings = Settings(
        twilio_account_sid=twilio.account_sid,
        twilio_auth_token=twilio.auth_token,
        twilio_sender=SENDER,
        public_url=PUBLIC,
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        twilio.local_urls[PUBLIC] = f"http://127.0.0.1:{listening.getsockname()[1]}"
        config = uvicorn.Config(application(settings, registry), log_config=None, access_log=False, lifespan="off")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            async with twilio:
                yield Called(registry, twilio)
        finally:
            server.should_exit = True
            await serving
            await registry.close()


async def test_what_becomes_of_an_sms_is_kept_beside_its_delivery(called: Called) -> None:
    sent = called.sent()
    assert await called.tell(sent, "delivered", NumSegments="2", Price="-0.0158", PriceUnit="usd") == 204
    found = await called.receipt(sent)
    assert found is not None
    assert (found.status, found.code, found.segments, found.price, found.currency) == (
        ("delivered", None, 2, Decimal("0.0158"), "USD")
    )


async def test_a_callback_that_comes_before_the_attempt_is_on_record_is_not_lost(called: Called) -> None:
    sent = called.sent()
    assert await called.registry.attempts.list(HAPPENED.key) == []
    await called.tell(sent, "sent")
    found = await called.receipt(sent)
    assert found is not None
    assert found.status == "sent"


@pytest.mark.parametrize(
    ("told", "stays"),
    [
        (["queued", "sending", "sent", "delivered"], "delivered"),
        (["delivered", "sent", "queued"], "delivered"),
        (["sent", "sending"], "sent"),
        (["undelivered", "delivered"], "undelivered"),
        (["delivered", "failed"], "delivered"),
        (["sent", "sent", "failed", "failed"], "failed"),
        (["accepted", "read"], "queued"),
        (["queued", "canceled"], "failed"),
    ],
)
async def test_words_that_come_twice_or_out_of_order_change_nothing(
    called: Called, told: list[str], stays: str
) -> None:
    sent = called.sent()
    for status in told:
        assert await called.tell(sent, status) == 204
    found = await called.receipt(sent)
    assert found is not None
    assert found.status == stays


async def test_many_callbacks_at_once_leave_the_last_word(called: Called) -> None:
    sent = called.sent()
    words = ["queued", "sending", "sent", "delivered"] * 5
    assert set(await asyncio.gather(*(called.tell(sent, status) for status in words))) == {204}
    found = await called.receipt(sent)
    assert found is not None
    assert found.status == "delivered"


@pytest.mark.parametrize(
    "delivery", [f"dlv_{event(id='2').key}_sub_sms", f"dlv_{HAPPENED.key}_sub_other", "nobody", "dlv_x_y"]
)
async def test_a_delivery_that_is_not_known_is_answered_404_without_effect(called: Called, delivery: str) -> None:
    assert await called.tell(called.sent(delivery=delivery), "undelivered", ErrorCode="30006") == 404
    assert await called.suppressed() == {}


@pytest.mark.parametrize("code", ["30005", "30006"])
async def test_a_number_that_is_dead_is_suppressed(called: Called, code: str) -> None:
    sent = called.sent()
    await called.tell(sent, "undelivered", ErrorCode=code)
    found = await called.receipt(sent)
    assert found is not None
    assert (found.status, found.code) == ("undelivered", code)
    assert await called.suppressed() == {TO: SuppressionReason.BOUNCED}
    (delivery,) = await called.registry.deliveries.list(event_key=HAPPENED.key)
    assert delivery.state == "pending", "a receipt does not change the state of a delivery"


@pytest.mark.parametrize("told", [("undelivered", "30003"), ("failed", "30007"), ("sent", "30006")])
async def test_another_trouble_suppresses_nobody(called: Called, told: tuple[str, str]) -> None:
    await called.tell(called.sent(), told[0], ErrorCode=told[1])
    assert await called.suppressed() == {}


async def test_a_late_word_after_the_final_one_suppresses_nobody(called: Called) -> None:
    sent = called.sent()
    await called.tell(sent, "delivered")
    await called.tell(sent, "undelivered", ErrorCode="30006")
    assert await called.suppressed() == {}


async def test_a_recipient_who_has_said_stop_is_suppressed_for_that_sender(called: Called) -> None:
    await called.tell(called.sent(SERVICE), "failed", ErrorCode="21610")
    assert await called.suppressed(by_sender(SERVICE)) == {TO: SuppressionReason.UNSUBSCRIBED}
    assert await called.suppressed(by_sender("+14155550199")) == {}


async def test_stop_and_start_are_heard(called: Called) -> None:
    assert await called.receive(" Stop ") == 200
    assert await called.suppressed(by_sender(SENDER)) == {TO: SuppressionReason.UNSUBSCRIBED}
    assert await called.suppressed() == {}
    assert await called.receive("START") == 200
    assert await called.suppressed(by_sender(SENDER)) == {}


async def test_what_twilio_took_it_for_is_the_word_that_counts(called: Called) -> None:
    await called.receive("arrêt", OptOutType="STOP", MessagingServiceSid=SERVICE)
    for sender in (SERVICE, SENDER):
        assert await called.suppressed(by_sender(sender)) == {TO: SuppressionReason.UNSUBSCRIBED}
    await called.receive("stop", OptOutType="HELP", To="+14155550177")
    assert await called.suppressed(by_sender("+14155550177")) == {}


async def test_another_text_is_no_stop(called: Called) -> None:
    assert await called.receive("please stop by at six") == 200
    assert await called.suppressed(by_sender(SENDER)) == {}


@pytest.mark.parametrize("scope", [EVERYWHERE, by_sender(SENDER)])
async def test_start_lifts_only_what_the_recipient_had_asked_for(called: Called, scope: str) -> None:
    await called.registry.suppressions.add(
        Suppression(channel=Channel.SMS, address=TO, reason=SuppressionReason.OPERATOR, subscription_id=scope)
    )
    await called.receive("START")
    assert await called.suppressed(by_sender(SENDER)) == {TO: SuppressionReason.OPERATOR}


async def test_what_twilio_has_not_signed_is_refused(called: Called) -> None:
    sent = called.sent()
    fields = {"MessageSid": sent.sid, "MessageStatus": "delivered", "To": TO}
    assert sent.callback
    stranger = FakeTwilio()
    stranger.local_urls.update(called.twilio.local_urls)
    for signature in ("", "nonsense", "\u00e9"):
        assert await called.twilio.post(sent.callback, fields, signature=signature) == 403
    assert await stranger.post(sent.callback, fields) == 403
    # Signed, but over where it was found and not over where it is known to be.
    local = called.twilio.local_urls[PUBLIC]
    assert await called.twilio.post(f"{local}/callbacks/twilio/{DELIVERY}", fields) == 403
    assert await stranger.send_inbound(f"{PUBLIC}/callbacks/twilio/inbound", "STOP", From=TO, To=SENDER) == 403
    assert await called.receipt(sent) is None
    assert await called.suppressed(by_sender(SENDER)) == {}


async def test_a_body_that_is_too_long_is_not_read_to_its_end(called: Called) -> None:
    assert await called.receive("a" * (MAX_BODY + 1)) == 413


async def test_without_a_public_url_nobody_is_listened_to(called: Called) -> None:
    settings = Settings(twilio_account_sid="AC1", twilio_auth_token="secret", twilio_sender=SENDER)
    paths = [getattr(route, "path", "") for route in application(settings, called.registry).routes]
    assert paths == ["/ready"]
