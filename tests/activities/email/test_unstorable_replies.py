"""Replies of a relay with bytes that are not UTF-8: each mail is sent once, and the attempt is on record."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from activities.email.channel import EmailChannel
from activities.email.smtp_pool import SmtpPool
from activities.rendering.renderer import Renderer
from bellwire.contract import Chunk, Group
from bellwire.deliveries import DeliveryState
from bellwire.registry import Registry
from bellwire.targets import Channel
from tests.activities.listeners import serving
from tests.activities.sending.chunks import send_chunk
from tests.factories import event, subscription

RECIPIENTS = 30
EVENT = event(id="1")


@asynccontextmanager
async def relay(
    *, rcpt: bytes = b"250 2.1.5 Ok", data: bytes = b"250 2.0.0 Ok"
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A relay with these replies to RCPT and to the mail; its port, and the commands RCPT that it got."""
    commands: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        replies = {b"EHLO": b"250 relay", b"RCPT": rcpt, b"DATA": b"354 go", b"QUIT": b"221 bye"}
        writer.write(b"220 relay ESMTP\r\n")
        while line := await reader.readline():
            verb = line[:4].upper()
            commands.extend([line] if verb == b"RCPT" else [])
            writer.write(replies.get(verb, b"250 Ok") + b"\r\n")
            if verb == b"DATA":
                await reader.readuntil(b"\r\n.\r\n")
                writer.write(data + b"\r\n")

    async with serving(serve) as port:
        yield port, commands


@pytest.mark.parametrize(
    ("replies", "state", "recorded"),
    [
        ({"data": b"250 2.0.0 re\xe7u \0"}, DeliveryState.DELIVERED, "250 2.0.0 re�u �"),
        ({"rcpt": b"550 5.7.99 refus\xe9"}, DeliveryState.WAITING, "550 5.7.99 refus�"),
        ({"data": b"451 4.3.0 d\xe9sol\xe9"}, DeliveryState.WAITING, "451 4.3.0 d�sol�"),
    ],
)
async def test_replies_that_are_not_utf_8_are_recorded_and_nothing_is_sent_again(
    tmp_path: Path, replies: dict[str, bytes], state: DeliveryState, recorded: str
) -> None:
    registry = await Registry.open(f"sqlite:///{tmp_path}/registry.db")
    await registry.migrate()
    names = [f"s{number}" for number in range(RECIPIENTS)]
    for name in names:
        to = {"channel": "email", "to": f"{name}@example.com"}
        await registry.subscriptions.create(subscription(to, id=name))
    await registry.events.accept([EVENT], "workflow")
    group = Group(event_key=EVENT.key, channel=Channel.EMAIL, subscription_ids=tuple(names), attempt=1)
    await registry.deliveries.add("workflow", [group])
    async with relay(**replies) as (port, commands):
        pool = SmtpPool("127.0.0.1", port, timeout=60)
        channel = EmailChannel(pool, Renderer(), sender="bell@example.net")
        chunk = Chunk(groups=(group,), schedule=(60.0,))
        for _ in range(2):  # the activity's retry finds everything on record
            await send_chunk(Channel.EMAIL, channel, registry, chunk)
        await pool.close()
    assert len(commands) == RECIPIENTS
    attempts = await registry.attempts.list(EVENT.key)
    assert [each.state for each in attempts] == [state] * RECIPIENTS
    assert {each.outcome.response for each in attempts} == {recorded}
    await registry.close()
