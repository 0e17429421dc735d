"""Twilio's callbacks over HTTP, signed as Twilio signs them, to a gateway with a real registry."""

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
EVENT = event(id="1")
SUBSCRIPTION = subscription({"channel": "sms", "to": TO}, id="sub_sms")
DELIVERY = f"dlv_{EVENT.key}_{SUBSCRIPTION.id}"


class Called(NamedTuple):
    """A gateway with its registry, and the Twilio that calls it."""

    registry: Registry
    twilio: FakeTwilio

    def sent(self, sender: str = SENDER, *, delivery: str = DELIVERY) -> Sent:
        return self.twilio.add_message(TO, sender, "Hello", callback=f"{PUBLIC}/callbacks/twilio/{delivery}")

    async def report(self, sent: Sent, status: str, **fields: str) -> int:
        return await self.twilio.send_status_callback(sent, status, **fields)

    async def receive(self, body: str, **fields: str) -> int:
        url = f"{PUBLIC}/callbacks/twilio/inbound"
        return await self.twilio.send_inbound(url, body, **{"From": TO, "To": SENDER, **fields})

    async def receipt(self, sent: Sent) -> SmsReceipt | None:
        (delivery,) = await self.registry.deliveries.list(event_key=EVENT.key)
        found = await self.registry.sms_receipts.of_deliveries([delivery.model_copy(update={"provider_id": sent.sid})])
        return found.get(delivery.id)

    async def suppressed(self, *scopes: str) -> dict[str, SuppressionReason]:
        return await self.registry.suppressions.among(Channel.SMS, [TO], subscription_id="another", also_for=scopes)


@pytest.fixture
async def called(tmp_path: Path) -> AsyncIterator[Called]:
    """A gateway behind a proxy that removes `/notify` from the path, as many do."""
    registry = await Registry.open(f"sqlite:///{tmp_path}/registry.db")
    await registry.migrate()
    await registry.subscriptions.create(SUBSCRIPTION)
    await registry.events.accept([EVENT], "run")
    group = Group(event_key=EVENT.key, channel=Channel.SMS, subscription_ids=(SUBSCRIPTION.id,))
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


async def test_the_receipt_of_an_sms_is_stored_beside_its_delivery(called: Called) -> None:
    sent = called.sent()
    assert await called.report(sent, "delivered", NumSegments="2", Price="-0.0158", PriceUnit="usd") == 204
    found = await called.receipt(sent)
    assert found is not None
    assert (found.status, found.code, found.segments, found.price, found.currency) == (
        ("delivered", None, 2, Decimal("0.0158"), "USD")
    )


async def test_a_callback_before_the_attempt_is_recorded_is_not_lost(called: Called) -> None:
    sent = called.sent()
    assert await called.registry.attempts.list(EVENT.key) == []
    await called.report(sent, "sent")
    found = await called.receipt(sent)
    assert found is not None
    assert found.status == "sent"


@pytest.mark.parametrize(
    ("statuses", "stays"),
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
async def test_receipts_that_arrive_twice_or_out_of_order_change_nothing(
    called: Called, statuses: list[str], stays: str
) -> None:
    sent = called.sent()
    for status in statuses:
        assert await called.report(sent, status) == 204
    found = await called.receipt(sent)
    assert found is not None
    assert found.status == stays


async def test_concurrent_callbacks_leave_the_final_status(called: Called) -> None:
    sent = called.sent()
    statuses = ["queued", "sending", "sent", "delivered"] * 5
    assert set(await asyncio.gather(*(called.report(sent, status) for status in statuses))) == {204}
    found = await called.receipt(sent)
    assert found is not None
    assert found.status == "delivered"


@pytest.mark.parametrize(
    "delivery", [f"dlv_{event(id='2').key}_sub_sms", f"dlv_{EVENT.key}_sub_other", "unknown", "dlv_x_y"]
)
async def test_an_unknown_delivery_gets_404_and_changes_nothing(called: Called, delivery: str) -> None:
    assert await called.report(called.sent(delivery=delivery), "undelivered", ErrorCode="30006") == 404
    assert await called.suppressed() == {}


@pytest.mark.parametrize("code", ["30005", "30006"])
async def test_a_dead_number_is_suppressed(called: Called, code: str) -> None:
    sent = called.sent()
    await called.report(sent, "undelivered", ErrorCode=code)
    found = await called.receipt(sent)
    assert found is not None
    assert (found.status, found.code) == ("undelivered", code)
    assert await called.suppressed() == {TO: SuppressionReason.BOUNCED}
    (delivery,) = await called.registry.deliveries.list(event_key=EVENT.key)
    assert delivery.state == "pending", "a receipt does not change the state of a delivery"


@pytest.mark.parametrize(("status", "code"), [("undelivered", "30003"), ("failed", "30007"), ("sent", "30006")])
async def test_another_error_suppresses_nothing(called: Called, status: str, code: str) -> None:
    await called.report(called.sent(), status, ErrorCode=code)
    assert await called.suppressed() == {}


async def test_a_receipt_after_the_final_one_suppresses_nothing(called: Called) -> None:
    sent = called.sent()
    await called.report(sent, "delivered")
    await called.report(sent, "undelivered", ErrorCode="30006")
    assert await called.suppressed() == {}


async def test_a_recipient_who_sent_stop_is_suppressed_for_that_sender(called: Called) -> None:
    await called.report(called.sent(SERVICE), "failed", ErrorCode="21610")
    assert await called.suppressed(by_sender(SERVICE)) == {TO: SuppressionReason.UNSUBSCRIBED}
    assert await called.suppressed(by_sender("+14155550199")) == {}


async def test_stop_suppresses_and_start_lifts(called: Called) -> None:
    assert await called.receive(" Stop ") == 200
    assert await called.suppressed(by_sender(SENDER)) == {TO: SuppressionReason.UNSUBSCRIBED}
    assert await called.suppressed() == {}
    assert await called.receive("START") == 200
    assert await called.suppressed(by_sender(SENDER)) == {}


async def test_the_opt_out_type_of_twilio_wins_over_the_text(called: Called) -> None:
    await called.receive("arrêt", OptOutType="STOP", MessagingServiceSid=SERVICE)
    for sender in (SERVICE, SENDER):
        assert await called.suppressed(by_sender(sender)) == {TO: SuppressionReason.UNSUBSCRIBED}
    await called.receive("stop", OptOutType="HELP", To="+14155550177")
    assert await called.suppressed(by_sender("+14155550177")) == {}


@pytest.mark.parametrize("body", ["\uff33\uff34\uff2f\uff30", "Stop.", "\u200bSTOP!", "\u201cstop\u201d", "stop\n"])
@pytest.mark.parametrize("number", [TO, "\uff0b" + TO[1:], TO.replace("+1", "+1 "), TO.removeprefix("+")])
async def test_stop_counts_in_any_spelling_of_word_and_number(called: Called, body: str, number: str) -> None:
    await called.receive(body, From=number, To=SENDER.replace("+1", "+1 "))
    assert await called.suppressed(by_sender(SENDER)) == {TO: SuppressionReason.UNSUBSCRIBED}
    (stored,) = await called.registry.suppressions.list()
    assert stored.address == TO
    await called.receive("\uff33tart", From=number)
    assert await called.suppressed(by_sender(SENDER)) == {}


async def test_another_text_is_not_stop(called: Called) -> None:
    assert await called.receive("please stop by at six") == 200
    assert await called.suppressed(by_sender(SENDER)) == {}


@pytest.mark.parametrize("scope", [EVERYWHERE, by_sender(SENDER)])
async def test_start_lifts_only_what_stop_suppressed(called: Called, scope: str) -> None:
    await called.registry.suppressions.add(
        Suppression(channel=Channel.SMS, address=TO, reason=SuppressionReason.OPERATOR, subscription_id=scope)
    )
    await called.receive("START")
    assert await called.suppressed(by_sender(SENDER)) == {TO: SuppressionReason.OPERATOR}


async def test_a_callback_without_twilios_signature_is_refused(called: Called) -> None:
    sent = called.sent()
    fields = {"MessageSid": sent.sid, "MessageStatus": "delivered", "To": TO}
    assert sent.callback
    other = FakeTwilio()
    other.local_urls.update(called.twilio.local_urls)
    for signature in ("", "nonsense", "\u00e9"):
        assert await called.twilio.post(sent.callback, fields, signature=signature) == 403
    assert await other.post(sent.callback, fields) == 403
    # Signed over the local URL instead of the public one.
    local = called.twilio.local_urls[PUBLIC]
    assert await called.twilio.post(f"{local}/callbacks/twilio/{DELIVERY}", fields) == 403
    assert await other.send_inbound(f"{PUBLIC}/callbacks/twilio/inbound", "STOP", From=TO, To=SENDER) == 403
    assert await called.receipt(sent) is None
    assert await called.suppressed(by_sender(SENDER)) == {}


async def test_a_body_that_is_too_long_is_refused(called: Called) -> None:
    assert await called.receive("a" * (MAX_BODY + 1)) == 413


async def test_without_a_public_url_there_are_no_callbacks(called: Called) -> None:
    settings = Settings(twilio_account_sid="AC1", twilio_auth_token="secret", twilio_sender=SENDER)
    paths = [getattr(route, "path", "") for route in application(settings, called.registry).routes]
    assert paths == ["/health", "/ready"]
