"""Suppressed recipients, missing mailboxes, and return paths."""

import base64
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from activities.email.channel import EmailChannel
from activities.email.relays import Relays
from activities.rendering.renderer import Renderer
from bellwire.deliveries import Fault, OutcomeKind
from bellwire.email.relay_urls import Relay
from bellwire.email.return_path import ReturnPath
from bellwire.email.unsubscribe_links import LinkKeys
from bellwire.sends import SendRequest
from bellwire.suppressions import EVERYWHERE, Suppression, SuppressionReason
from bellwire.targets import Channel
from starter.local.receivers.mailbox import Mailbox
from tests.activities.email.channels import (
    ANN,
    BOB,
    CAT,
    again,
    channel_to,
    request_to,
)

DELIVERED, REJECTED, DEFERRED, UNKNOWN = OutcomeKind
BOUNCED, COMPLAINED = SuppressionReason.BOUNCED, SuppressionReason.COMPLAINED


def without(request: SendRequest, **suppressed: SuppressionReason) -> SendRequest:
    """The request with suppressed recipients; `ann` stands for ann@example.com."""
    return replace(request, suppressed={f"{name}@example.com": reason for name, reason in suppressed.items()})


def suppressing(*addresses: str, cause: str) -> tuple[Suppression, ...]:
    return tuple(
        Suppression(channel=Channel.EMAIL, address=address, reason=BOUNCED, subscription_id=EVERYWHERE, cause=cause)
        for address in addresses
    )


@pytest.mark.parametrize("recipients", [(ANN,), (ANN, BOB)])
async def test_nothing_is_sent_if_all_recipients_are_suppressed_and_the_subscription_stays(recipients: Any) -> None:
    async with Mailbox() as box, channel_to(box) as channel:
        outcome = await channel.attempt(without(request_to(*recipients), ann=BOUNCED, bob=COMPLAINED))
        assert (outcome.kind, outcome.reason) == (REJECTED, "recipient suppressed: bounced")
        assert (outcome.disable, outcome.suppress, box.connections) == (False, (), 0)
        assert outcome.fault is Fault.OPERATOR


async def test_a_suppressed_recipient_is_left_out_and_the_others_get_the_mail() -> None:
    async with Mailbox() as box, channel_to(box) as channel:
        outcome = await channel.attempt(without(request_to(ANN, BOB, CAT), bob=COMPLAINED))
        assert [mail.to for mail in box.mails] == [ANN, CAT]
    assert (outcome.kind, outcome.reason) == (DELIVERED, "1 of 3 refused: recipient suppressed: complained")


async def test_a_remaining_recipient_that_was_suppressed_meanwhile_no_longer_remains() -> None:
    async with Mailbox() as box, channel_to(box) as channel:
        box.script(BOB, "451 later")
        first = await channel.attempt(request_to(ANN, BOB))
        assert first.remaining_recipients == (BOB,)
        second = await channel.attempt(without(again(request_to(ANN, BOB), first), bob=BOUNCED))
        assert (second.kind, [mail.to for mail in box.mails]) == (DELIVERED, [ANN])


async def test_a_missing_mailbox_is_suppressed_and_the_subscription_stays_for_the_others() -> None:
    async with Mailbox() as box, channel_to(box) as channel:
        box.script(ANN, "550 5.1.1 unknown")
        box.script(BOB, "550 5.7.1 blocked", "250 2.1.5 OK")
        outcome = await channel.attempt(request_to(ANN, BOB, CAT))
    assert (outcome.kind, outcome.disable, outcome.suppress) == (DEFERRED, False, suppressing(ANN, cause="5.1.1"))


@pytest.mark.parametrize(
    ("everyone", "gone", "suppressed"),
    [
        ((ANN,), (ANN,), {}),
        ((ANN, BOB), (ANN, BOB), {}),
        ((ANN, BOB, CAT), (BOB,), {"ann": BOUNCED, "cat": COMPLAINED}),
    ],
)
async def test_the_subscription_is_disabled_if_no_recipient_is_left(everyone: Any, gone: Any, suppressed: Any) -> None:
    async with Mailbox() as box, channel_to(box) as channel:
        for address in gone:
            box.script(address, "550 5.2.1 mailbox disabled")
        outcome = await channel.attempt(without(request_to(*everyone), **suppressed))
    assert (outcome.kind, outcome.disable, outcome.suppress) == (REJECTED, True, suppressing(*gone, cause="5.2.1"))


@pytest.mark.parametrize("reply", ["550 no such user", "550 5.7.1 blocked", "552 5.2.2 full", "450 4.1.1 later"])
async def test_other_replies_suppress_no_address(reply: str) -> None:
    async with Mailbox() as box, channel_to(box) as channel:
        box.script(ANN, reply)
        with capture_logs():
            assert (await channel.attempt(request_to(ANN, BOB))).suppress == ()


async def test_each_envelope_has_its_own_return_path_and_the_from_address_stays() -> None:
    path = ReturnPath("bounces@mail.example.net", LinkKeys(base64.b64encode(b"k" * 32).decode()))
    async with Mailbox() as box:
        relays = Relays([Relay(host=box.host, port=box.port)])
        channel = EmailChannel(relays, Renderer(None), sender="Bell <bell@example.net>", return_path=path)
        request = request_to(ANN, BOB)
        assert (await channel.attempt(request)).kind is DELIVERED
        await relays.close()
        for mail in box.mails:
            token = path.read(mail.envelope_from)
            assert token is not None
            assert (token.event_key, token.subscription_id) == (request.delivery.event_key, request.subscription.id)
            assert path.verifies(token, request.subscription.id, mail.to)
            assert mail.headers["From"] == "Bell <bell@example.net>"
        assert len({mail.envelope_from for mail in box.mails}) == 2


async def test_the_mail_is_deferred_while_the_circuits_of_all_relays_are_open() -> None:
    async with Mailbox() as one, Mailbox() as two:
        relays = Relays([Relay(host=box.host, port=box.port) for box in (one, two)])
        channel = EmailChannel(relays, Renderer(None), sender="bell@example.net")
        for box in (one, two):
            box.script("bell@example.net", "421 4.3.2 closing", at="MAIL", repeat=True)
        with capture_logs():
            first, second = [await channel.attempt(request_to(ANN)) for _ in range(2)]
        assert (first.kind, first.reason) == (DEFERRED, "SMTP 421 4.3.2")
        assert (second.kind, second.reason) == (DEFERRED, "no SMTP relay available")
        assert (first.fault, second.fault) == (Fault.PROVIDER, Fault.PROVIDER)
        await relays.close()
