"""Email deliveries through Postfix and Exim, and the bounces that they send."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from activities.email.channel import EmailChannel
from activities.email.relays import Relays
from activities.rendering.renderer import Renderer
from bellwire.contract import Group
from bellwire.deliveries import OutcomeKind
from bellwire.email.bounce_reports import Action, parse_report
from bellwire.email.relay_urls import Relay
from bellwire.email.return_path import ReturnPath
from bellwire.email.unsubscribe_links import LinkKeys
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.suppressions import SuppressionReason
from bellwire.targets import Channel
from starter.local.receivers.mailbox import Mailbox, read
from starter.operations.subscribers.bounces import process_report
from tests.factories import event, send_request, subscription
from tests.mtas.servers import MailServer, Postfix

pytestmark = pytest.mark.mta

ANN, GONE = "ann@here.test", "gone@far.test"
PATH = ReturnPath("bounces@here.test", LinkKeys(base64.b64encode(b"k" * 32).decode()))
HAPPENED = event(id="1", data={"order": "订单 42"})


def to(*addresses: str) -> SendRequest:
    return send_request(subscription({"channel": "email", "to": addresses}, id="sub_" + "0f" * 16), HAPPENED)


@asynccontextmanager
async def sending_by(server: MailServer, **relay: Any) -> AsyncIterator[EmailChannel]:
    relays = Relays([Relay(host="127.0.0.1", port=server.port, verify=False, **relay)], timeout=20)
    try:
        yield EmailChannel(relays, Renderer(None), sender="通知 <bell@here.test>", return_path=PATH)
    finally:
        await relays.close()


async def test_a_mail_arrives_as_it_was_composed(server: MailServer) -> None:
    async with sending_by(server) as channel:
        outcome = await channel.attempt(to(ANN))
    assert outcome.kind is OutcomeKind.DELIVERED
    [raw] = await server.delivered("ann")
    mail = read("", (ANN,), raw)
    assert mail.subject == "Order 订单 42 is paid"
    assert (mail.headers["From"], mail.headers["To"]) == ("通知 <bell@here.test>", ANN)
    assert mail.message_id == f"<{to(ANN).delivery.id}@here.test>"
    assert "订单 42" in mail.text
    assert "<h1" in (mail.html or "")
    (return_path,) = (value for name, value in mail.headers.items() if name.lower() == "return-path")
    token = PATH.read(return_path.strip("<>"))
    assert token is not None
    assert PATH.verifies(token, to(ANN).subscription.id, ANN)


async def test_a_mail_to_a_non_ascii_address_arrives(server: MailServer) -> None:
    async with sending_by(server) as channel:
        outcome = await channel.attempt(to("jürgen@here.test"))
    assert outcome.kind is OutcomeKind.DELIVERED, (outcome, server.log())
    [raw] = await server.delivered("jürgen")
    assert "To: jürgen@here.test".encode() in raw


async def test_an_unknown_recipient_is_refused_with_5_1_1_and_suppressed(server: MailServer) -> None:
    async with sending_by(server) as channel:
        outcome = await channel.attempt(to("nobody@here.test", ANN))
    assert (outcome.kind, outcome.reason) == (OutcomeKind.DELIVERED, "1 of 2 refused: SMTP 550 5.1.1")
    assert [(each.address, each.reason) for each in outcome.suppress] == [
        ("nobody@here.test", SuppressionReason.BOUNCED)
    ]
    await server.delivered("ann")


@pytest.mark.parametrize(
    ("reply", "status", "suppressed"),
    [
        ("550 5.1.1 no such user", "failed 5.1.1", True),
        ("550 5.7.1 not from you", "failed 5.7.1", False),
        ("554 no", None, False),
    ],
)
async def test_a_bounce_from_the_server_is_matched_and_suppresses_a_missing_mailbox(
    server: MailServer, far: Mailbox, reply: str, status: str | None, suppressed: bool, tmp_path: Path
) -> None:
    far.script(GONE, reply, repeat=True)
    delivery = to(GONE)
    async with sending_by(server) as channel:
        assert (await channel.attempt(delivery)).kind is OutcomeKind.DELIVERED
    [raw] = await server.delivered("bounces")
    report = parse_report(raw)
    assert (report.recipients[0].action, report.recipients[0].addresses) == (Action.FAILED, (GONE,))
    assert report.message_id == f"{delivery.delivery.id}@here.test"
    registry = await Registry.open(f"sqlite:///{tmp_path}/registry.db")
    try:
        await registry.migrate()
        await registry.subscriptions.create(delivery.subscription)
        await registry.events.accept([HAPPENED], "event//shop/1")
        group = Group(event_key=HAPPENED.key, channel=Channel.EMAIL, subscription_ids=(delivery.subscription.id,))
        await registry.deliveries.add("event//shop/1", [group])
        taken = await process_report(registry, PATH, "bounce", raw)
        assert (taken.address, taken.delivery) == (GONE, delivery.delivery.id)
        assert status is None or taken.report == status
        [loaded] = await registry.attempts.load([group])
        assert dict(loaded.suppressed) == ({GONE: SuppressionReason.BOUNCED} if suppressed else {})
    finally:
        await registry.close()


async def test_a_mail_over_starttls_arrives(server: MailServer) -> None:
    async with sending_by(server, security="starttls") as channel:
        assert (await channel.attempt(to(ANN))).kind is OutcomeKind.DELIVERED
    [raw] = await server.delivered("ann")
    assert b"TLS" in raw[: raw.index(b"\n\n")]


async def test_a_login_works_or_defers_the_delivery(server: MailServer) -> None:
    if isinstance(server, Postfix):
        async with sending_by(server, security="starttls", username="bell", password="wire") as channel:
            outcome = await channel.attempt(to(ANN))
        assert (outcome.kind, outcome.reason) == (OutcomeKind.DEFERRED, "SMTP relay lacks STARTTLS or AUTH")
        return
    async with sending_by(server, security="starttls", username="bell", password="wire") as channel:
        assert (await channel.attempt(to(ANN))).kind is OutcomeKind.DELIVERED
    await server.delivered("ann")
