"""Several relays: the choice of the relay, circuits, and mails that must not be sent twice."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiosmtplib
import pytest
from structlog.testing import capture_logs

from activities.email.relay_circuit import MAX_OPEN_SECONDS, MIN_SAMPLES, OPEN_SECONDS
from activities.email.relays import Relays
from activities.email.smtp_pool import NoRelayAvailable, ReplyLost
from bellwire.email.relay_urls import Relay
from starter.local.receivers.mailbox import ANY_ADDRESS, Mailbox

ANN, BOB, SENDER = "ann@example.com", "bob@example.com", "bellwire@example.com"
MAIL = b"Subject: Hi\r\n\r\nHello\r\n"


class Clock:
    """A clock that the test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class SlowMailbox(Mailbox):
    """Needs `seconds` of the clock for each mail."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock, self.seconds = clock, 0.0

    async def reply(self, at: str, address: str) -> str | None:
        if at == "DATA":
            self.clock.now += self.seconds
        return await super().reply(at, address)


def relay_to(box: Mailbox, **fields: Any) -> Relay:
    return Relay(host=box.host, port=box.port, **fields)


@asynccontextmanager
async def relays_to(*relays: Relay, **options: Any) -> AsyncIterator[Relays]:
    made = Relays(relays, **{"timeout": 60, **options})
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def two(**options: Any) -> AsyncIterator[tuple[Mailbox, Mailbox, Relays, Clock]]:
    """A relay, a second one of lower preference, and their clock."""
    clock = Clock()
    async with (
        Mailbox() as first,
        Mailbox() as second,
        relays_to(relay_to(first), relay_to(second, priority=20), clock=clock, **options) as relays,
    ):
        yield first, second, relays, clock


@pytest.fixture
def closed() -> Any:
    """A relay that refuses connections: its port is bound, but nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield Relay(host="127.0.0.1", port=taken.getsockname()[1])


async def test_the_relay_with_the_lowest_priority_gets_every_mail_while_it_works() -> None:
    async with two() as (first, second, relays, _):
        for _ in range(5):
            await relays.send(SENDER, ANN, MAIL)
        assert (len(first.mails), len(second.mails)) == (5, 0)


async def test_relays_of_equal_priority_share_sequential_and_concurrent_mails() -> None:
    async with Mailbox() as first, Mailbox() as second, relays_to(relay_to(first), relay_to(second)) as relays:
        for _ in range(10):
            await relays.send(SENDER, ANN, MAIL)
        assert (len(first.mails), len(second.mails)) == (5, 5)
        await asyncio.gather(*(relays.send(SENDER, ANN, MAIL) for _ in range(30)))
        assert (len(first.mails), len(second.mails)) == (20, 20)


async def test_a_relay_with_more_connections_gets_more_concurrent_mails() -> None:
    async with Mailbox() as first, Mailbox() as second:
        for box in (first, second):
            box.stall(BOB)
        async with relays_to(relay_to(first, connections=6), relay_to(second, connections=2)) as relays:
            waiting = [asyncio.create_task(relays.send(SENDER, BOB, MAIL)) for _ in range(8)]
            while first.connections + second.connections < 8:
                await asyncio.sleep(0)
            assert (first.connections, second.connections) == (6, 2)
            # Repeatedly, since asyncio.wait_for of Python 3.11 swallows a cancellation when a connection is just established.
            while not all(task.done() for task in waiting):
                for task in waiting:
                    task.cancel()
                await asyncio.sleep(0)
            await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_mail_goes_to_the_next_relay_if_the_first_refuses_connections(closed: Relay) -> None:
    async with Mailbox() as second, relays_to(closed, relay_to(second, priority=20)) as relays:
        with capture_logs() as logs:
            for _ in range(3):
                await relays.send(SENDER, ANN, MAIL)
        assert len(second.mails) == 3
    assert logs == [
        {
            "event": "relay.circuit_opened",
            "log_level": "warning",
            "relay": closed.name,
            "reason": "SMTP connect error",
            "seconds": OPEN_SECONDS,
        }
    ]


@pytest.mark.parametrize(
    ("at", "address", "reply"),
    [
        ("MAIL", SENDER, "421 4.3.2 closing"),
        ("MAIL", SENDER, "451 4.3.0 out of order"),
        ("MAIL", SENDER, "450 4.7.1 rejected for now"),
        ("MAIL", SENDER, "452 full"),
        ("MAIL", SENDER, "550 5.7.1 you may not send as this"),
        ("RCPT", ANN, "421 4.3.2 closing"),
        ("RCPT", ANN, "530 5.7.0 authenticate first"),
        ("RCPT", ANN, "454 4.7.0 try to log in later"),
        ("DATA", ANN, "421 4.3.2 closing"),
    ],
)
async def test_a_reply_about_the_relay_opens_its_circuit_and_the_mail_goes_to_the_next(
    at: str, address: str, reply: str
) -> None:
    async with two() as (first, second, relays, _):
        first.script(address, reply, at=at, repeat=True)
        for _ in range(2):
            await relays.send(SENDER, ANN, MAIL)
        assert (len(first.mails), len(second.mails), first.connections) == (0, 2, 1)


@pytest.mark.parametrize(
    ("at", "reply"),
    [
        ("RCPT", "550 5.1.1 unknown"),
        ("RCPT", "550 unknown"),
        ("RCPT", "550 5.7.1 blocked"),
        ("RCPT", "450 4.2.0 greylisted"),
        ("RCPT", "451 4.7.1 greylisted"),
        ("DATA", "554 5.6.0 spam"),
        ("DATA", "451 4.7.1 later"),
    ],
)
async def test_a_reply_about_the_recipient_is_final_and_keeps_the_circuit_closed(at: str, reply: str) -> None:
    async with two() as (first, second, relays, _):
        first.script(ANN, reply, at=at, repeat=True)
        for _ in range(5):
            with pytest.raises((aiosmtplib.SMTPRecipientRefused, aiosmtplib.SMTPDataError)):
                await relays.send(SENDER, ANN, MAIL)
        await relays.send(SENDER, BOB, MAIL)
        assert (len(first.mails), second.connections) == (1, 0)


async def test_an_ambiguous_reply_opens_the_circuit_after_three_in_a_row() -> None:
    async with two() as (first, second, relays, _):
        first.script(ANN, "451 4.3.0 lookup failed", repeat=True)
        with capture_logs() as logs:
            for _ in range(2):
                await relays.send(SENDER, ANN, MAIL)
            await relays.send(SENDER, BOB, MAIL)
            for _ in range(2):
                await relays.send(SENDER, ANN, MAIL)
            assert logs == []
            await relays.send(SENDER, ANN, MAIL)
        await relays.send(SENDER, BOB, MAIL)
    assert [entry["reason"] for entry in logs] == ["SMTP 451 4.3.0"]
    assert ([mail.to for mail in first.mails], len(second.mails)) == ([BOB], 6)


async def test_a_mail_with_a_lost_reply_is_not_sent_by_another_relay() -> None:
    async with two() as (first, second, relays, _):
        first.drop_after_data(ANN)
        with pytest.raises(ReplyLost):
            await relays.send(SENDER, ANN, MAIL)
        assert (first.mails, second.connections) == ([], 0)
        await relays.send(SENDER, BOB, MAIL)
        assert [mail.to for mail in second.mails] == [BOB]


async def test_a_relay_without_replies_opens_its_circuit() -> None:
    async with two(timeout=2) as (first, second, relays, _):
        first.stall(ANY_ADDRESS)
        for _ in range(3):
            await relays.send(SENDER, ANN, MAIL)
        assert (first.connections, len(second.mails)) == (1, 3)


async def test_mails_that_wait_for_a_failing_relay_go_to_another() -> None:
    async with two(timeout=2, connections=1) as (first, second, relays, _):
        first.stall(ANY_ADDRESS)
        await asyncio.gather(*(relays.send(SENDER, ANN, MAIL) for _ in range(10)))
        assert (first.connections, len(second.mails)) == (1, 10)


async def test_a_refused_login_is_logged_as_an_error_and_another_relay_sends_the_mail() -> None:
    login: dict[str, Any] = {"security": "starttls", "username": "bell", "password": "wrong", "verify": False}
    async with (
        Mailbox(security="starttls", login=("bell", "wire")) as first,
        Mailbox() as second,
        relays_to(relay_to(first, **login), relay_to(second, priority=20)) as relays,
    ):
        with capture_logs() as logs:
            await relays.send(SENDER, ANN, MAIL)
        assert len(second.mails) == 1
    assert [(entry["log_level"], entry["reason"]) for entry in logs] == [("error", "SMTP 535 5.7.8")]
    assert "wrong" not in str(logs)


async def test_each_failed_probe_opens_the_circuit_for_longer() -> None:
    async with two() as (first, second, relays, clock):
        first.script(SENDER, "421 4.3.2 closing", at="MAIL", repeat=True)
        seconds = []
        with capture_logs() as logs:
            for _ in range(9):
                await asyncio.gather(*(relays.send(SENDER, ANN, MAIL) for _ in range(3)))
                seconds.append(logs[-1]["seconds"])
                connections = first.connections
                clock.now += seconds[-1] - 0.01
                await relays.send(SENDER, ANN, MAIL)
                assert first.connections == connections
                clock.now += 0.01
        assert seconds == [5, 10, 20, 40, 80, 160, MAX_OPEN_SECONDS, MAX_OPEN_SECONDS, MAX_OPEN_SECONDS]
        assert len(logs) == 9
        assert (first.mails, len(second.mails)) == ([], 36)


async def test_one_probe_is_sent_while_other_mails_go_to_other_relays() -> None:
    async with two() as (first, second, relays, clock):
        first.script(SENDER, "421 4.3.2 closing", at="MAIL")
        await relays.send(SENDER, ANN, MAIL)
        clock.now += OPEN_SECONDS
        first.stall(BOB)
        probe = asyncio.create_task(relays.send(SENDER, BOB, MAIL))
        await asyncio.wait_for(first.stalled.wait(), 60)
        await relays.send(SENDER, ANN, MAIL)
        assert (len(first.mails), len(second.mails)) == (0, 2)
        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)
        with capture_logs() as logs:
            await relays.send(SENDER, ANN, MAIL)
        assert (len(first.mails), len(second.mails)) == (1, 2)
    assert logs == [
        {
            "event": "relay.circuit_closed",
            "log_level": "info",
            "relay": f"{first.host}:{first.port}",
            "after_seconds": 5,
        }
    ]


async def test_a_circuit_that_was_closed_opens_for_the_shortest_time_again() -> None:
    async with two() as (first, _, relays, clock):
        with capture_logs() as logs:
            for _ in range(3):
                first.script(SENDER, "451 4.3.2 closing", at="MAIL")
                await relays.send(SENDER, ANN, MAIL)
                clock.now += OPEN_SECONDS
                await relays.send(SENDER, ANN, MAIL)
    assert [entry.get("seconds") for entry in logs] == [OPEN_SECONDS, None] * 3


async def test_a_refusal_of_the_recipient_closes_the_circuit() -> None:
    async with two() as (first, _, relays, clock):
        first.script(SENDER, "421 4.3.2 closing", at="MAIL")
        await relays.send(SENDER, ANN, MAIL)
        clock.now += OPEN_SECONDS
        first.script(BOB, "550 5.1.1 unknown")
        with pytest.raises(aiosmtplib.SMTPRecipientRefused):
            await relays.send(SENDER, BOB, MAIL)
        await relays.send(SENDER, ANN, MAIL)
        assert len(first.mails) == 1


async def test_if_all_relays_fail_the_first_error_is_raised_and_no_relay_is_tried_until_a_circuit_is_half_open() -> (
    None
):
    async with two() as (first, second, relays, clock):
        first.script(SENDER, "421 4.3.2 closing", at="MAIL")
        second.script(SENDER, "451 4.3.0 no disk", at="MAIL")
        with pytest.raises(aiosmtplib.SMTPSenderRefused, match="closing"):
            await relays.send(SENDER, ANN, MAIL)
        with pytest.raises(NoRelayAvailable):
            await relays.send(SENDER, ANN, MAIL)
        assert (first.connections, second.connections) == (1, 1)
        clock.now += OPEN_SECONDS
        await relays.send(SENDER, ANN, MAIL)
        assert len(first.mails) == 1


async def test_the_circuit_of_a_single_relay_never_opens() -> None:
    async with Mailbox() as box, relays_to(relay_to(box)) as relays:
        box.script(SENDER, *["421 4.3.2 closing"] * 5, at="MAIL")
        with capture_logs() as logs:
            for _ in range(5):
                with pytest.raises(aiosmtplib.SMTPSenderRefused):
                    await relays.send(SENDER, ANN, MAIL)
        await relays.send(SENDER, ANN, MAIL)
    assert (logs, len(box.mails)) == ([], 1)


async def test_a_relay_far_slower_than_another_has_an_open_circuit_until_it_is_fast_again() -> None:
    clock = Clock()
    async with SlowMailbox(clock) as first, SlowMailbox(clock) as second:
        first.seconds, second.seconds = 3.0, 0.1
        async with relays_to(relay_to(first), relay_to(second), clock=clock) as relays:
            with capture_logs() as logs:
                for _ in range(2 * MIN_SAMPLES + 2):
                    await relays.send(SENDER, ANN, MAIL)
                assert [entry["reason"] for entry in logs] == ["slow: 3.0 s for a mail"]
                clock.now += OPEN_SECONDS
                taken = len(first.mails)
                await relays.send(SENDER, ANN, MAIL)
                assert len(first.mails) == taken + 1
                assert [entry.get("seconds") for entry in logs] == [OPEN_SECONDS, 2 * OPEN_SECONDS]
                first.seconds = 0.2
                clock.now += 2 * OPEN_SECONDS
                for _ in range(2):
                    await relays.send(SENDER, ANN, MAIL)
                assert logs[-1]["event"] == "relay.circuit_closed"
                await asyncio.gather(*(relays.send(SENDER, ANN, MAIL) for _ in range(10)))
            assert len(first.mails) == taken + 7


async def test_a_slow_relay_is_used_if_there_is_no_other() -> None:
    clock = Clock()
    async with SlowMailbox(clock) as first, Mailbox() as second:
        first.seconds = 20.0
        async with relays_to(relay_to(first), relay_to(second, priority=20), clock=clock) as relays:
            for _ in range(MIN_SAMPLES + 1):
                await relays.send(SENDER, ANN, MAIL)
            assert (len(first.mails), len(second.mails)) == (MIN_SAMPLES, 1)
            second.script(SENDER, "421 4.3.2 closing", at="MAIL", repeat=True)
            for _ in range(3):
                await relays.send(SENDER, ANN, MAIL)
            assert len(first.mails) == MIN_SAMPLES + 3


async def test_a_non_ascii_address_goes_to_a_relay_that_supports_it_and_is_refused_if_none_does() -> None:
    ascii_only = Mailbox(smtputf8=False)
    async with ascii_only as first, Mailbox() as second, Mailbox(smtputf8=False) as third:
        async with relays_to(relay_to(first), relay_to(second, priority=20)) as relays:
            await relays.send(SENDER, "jürgen@example.com", MAIL)
            assert len(second.mails) == 1
            second.script(SENDER, "421 4.3.2 closing", at="MAIL", repeat=True)
            for error in (aiosmtplib.SMTPSenderRefused, NoRelayAvailable):
                second.hang_up()
                with pytest.raises(error):
                    await relays.send(SENDER, "jürgen@example.com", MAIL)
        async with relays_to(relay_to(first), relay_to(third)) as relays:
            with pytest.raises(aiosmtplib.SMTPNotSupported):
                await relays.send(SENDER, "jürgen@example.com", MAIL)
