"""The pool of SMTP connections, against a real server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiosmtplib
import pytest

from activities.email.smtp_pool import ReplyLost, SmtpPool
from starter.local.receivers.mailbox import Mailbox
from tests.activities.listeners import serving

ANN, BOB, SENDER = "ann@example.com", "bob@example.com", "bellwire@example.com"
MAIL = b"To: ann@example.com\r\nSubject: Hi\r\nMessage-ID: <1@example.com>\r\n\r\nHello\r\n.\r\n..two\r\n"


@asynccontextmanager
async def pool_to(box: Mailbox, **options: Any) -> AsyncIterator[SmtpPool]:
    pool = SmtpPool(box.host, box.port, timeout=60, **options)
    try:
        yield pool
    finally:
        await pool.close()


async def test_a_mail_arrives_as_it_was_sent() -> None:
    async with Mailbox() as box, pool_to(box) as pool:
        assert await pool.send(SENDER, ANN, MAIL) == "250 2.0.0 OK queued as 000001"
        [mail] = box.mails
        assert (mail.envelope_from, mail.to, mail.subject, mail.raw) == (SENDER, ANN, "Hi", MAIL)
        assert mail.text == "Hello\n.\n..two\n"


async def test_concurrent_mails_use_at_most_the_maximum_of_connections() -> None:
    async with Mailbox() as box, pool_to(box, connections=3) as pool:
        await asyncio.gather(*(pool.send(SENDER, f"a{number}@example.com", MAIL) for number in range(30)))
        assert len({mail.to for mail in await box.arrived(30)}) == 30
        assert 1 <= box.connections <= 3


async def test_sequential_mails_use_one_connection_even_after_a_refusal() -> None:
    async with Mailbox() as box, pool_to(box) as pool:
        box.script(BOB, "550 5.1.1 no such user")
        await pool.send(SENDER, ANN, MAIL)
        with pytest.raises(aiosmtplib.SMTPRecipientRefused):
            await pool.send(SENDER, BOB, MAIL)
        await pool.send(SENDER, ANN, MAIL)
        assert (len(box.mails), box.connections) == (2, 1)


@pytest.mark.parametrize("options", [{"noop_after": 60.0}, {"noop_after": 0.0}], ids=["unchecked", "checked"])
async def test_a_connection_that_was_closed_while_idle_is_replaced(options: dict[str, float]) -> None:
    async with Mailbox() as box, pool_to(box, **options) as pool:
        await pool.send(SENDER, ANN, MAIL)
        box.hang_up()
        await pool.send(SENDER, ANN, MAIL)
        assert (len(box.mails), box.connections) == (2, 2)


async def test_a_used_connection_that_ends_with_421_is_replaced() -> None:
    async with Mailbox() as box, pool_to(box) as pool:
        await pool.send(SENDER, ANN, MAIL)
        box.script(SENDER, "421 4.7.0 too many mails on this connection", at="MAIL")
        await pool.send(SENDER, ANN, MAIL)
        assert (len(box.mails), box.connections) == (2, 2)


async def test_421_on_a_new_connection_is_the_reply() -> None:
    async with Mailbox() as box, pool_to(box) as pool:
        box.script(SENDER, "421 4.3.2 closing", at="MAIL", repeat=True)
        with pytest.raises(aiosmtplib.SMTPSenderRefused):
            await pool.send(SENDER, ANN, MAIL)
        assert box.connections == 1


@pytest.mark.parametrize("options", [{"max_mails": 1}, {"max_age": 0.0}, {"max_idle": 0.0}], ids=str)
async def test_a_connection_is_replaced_after_its_limits(options: dict[str, float]) -> None:
    async with Mailbox() as box, pool_to(box, **options) as pool:
        for _ in range(3):
            await pool.send(SENDER, ANN, MAIL)
        assert (box.connections, box.max_connections) == (3, 1)


async def test_a_reply_lost_after_data_is_raised_and_the_mail_is_not_sent_again() -> None:
    async with Mailbox() as box, pool_to(box) as pool:
        await pool.send(SENDER, BOB, MAIL)
        box.drop_after_data(ANN)
        with pytest.raises(ReplyLost):
            await pool.send(SENDER, ANN, MAIL)
        assert [mail.to for mail in box.mails] == [BOB]
        await pool.send(SENDER, ANN, MAIL)
        assert len(box.mails) == 2


@pytest.mark.parametrize("reply", ["251 2.1.5 User not local; will forward", "200 queued", "252 2.0.0 accepted"])
async def test_a_mail_is_accepted_by_any_positive_reply(reply: str) -> None:
    async with Mailbox() as box, pool_to(box) as pool:
        box.script(ANN, reply, at="DATA")
        assert await pool.send(SENDER, ANN, MAIL) == reply
        await pool.send(SENDER, BOB, MAIL)
        assert box.connections == 1


async def test_a_server_without_a_reply_after_data_is_a_lost_reply() -> None:
    async with Mailbox() as box:
        box.stall(ANN, at="DATA")
        with pytest.raises(ReplyLost):
            await SmtpPool(box.host, box.port, timeout=2).send(SENDER, ANN, MAIL)


async def test_a_server_without_a_reply_before_data_is_a_timeout() -> None:
    async with Mailbox() as box:
        box.stall(ANN)
        with pytest.raises(aiosmtplib.SMTPReadTimeoutError):
            await SmtpPool(box.host, box.port, timeout=2).send(SENDER, ANN, MAIL)


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_login_over_tls_works_and_the_certificate_is_verified_by_default(security: str) -> None:
    login = {"security": security, "username": "bell", "password": "wire"}
    async with Mailbox(security=security, login=("bell", "wire")) as box:
        async with pool_to(box, verify=False, **login) as pool:
            await pool.send(SENDER, ANN, MAIL)
        async with pool_to(box, **login) as pool:
            with pytest.raises(OSError, match="certificate"):
                await pool.send(SENDER, ANN, MAIL)
        assert len(box.mails) == 1


async def test_starttls_is_required() -> None:
    async with Mailbox() as box, pool_to(box, security="starttls") as pool:
        with pytest.raises(aiosmtplib.SMTPException, match="STARTTLS"):
            await pool.send(SENDER, ANN, MAIL)
        assert box.mails == []


async def test_a_cancelled_mail_closes_its_connection() -> None:
    async with Mailbox() as box, pool_to(box, connections=1) as pool:
        box.stall(ANN)
        task = asyncio.create_task(pool.send(SENDER, ANN, MAIL))
        await asyncio.wait_for(box.stalled.wait(), 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await pool.send(SENDER, BOB, MAIL)
        assert [mail.to for mail in box.mails] == [BOB]
        assert box.connections == 2


def test_an_unknown_security_is_refused() -> None:
    with pytest.raises(ValueError, match="'ssl' is not one of none, starttls, tls"):
        SmtpPool("localhost", 25, security="ssl")


async def test_a_recipient_is_accepted_by_any_positive_reply() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        replies = {b"RCPT": b"252 2.1.5 will attempt delivery", b"DATA": b"354 go"}
        writer.write(b"220 relay\r\n")
        in_mail = False
        while line := await reader.readline():
            if in_mail and line != b".\r\n":
                continue
            in_mail = line[:4] == b"DATA"
            writer.write(replies.get(line[:4], b"250 2.0.0 ok") + b"\r\n")

    async with serving(serve) as port:
        pool = SmtpPool("127.0.0.1", port, timeout=10)
        assert await pool.send(SENDER, ANN, MAIL) == "250 2.0.0 ok"
        await pool.close()
