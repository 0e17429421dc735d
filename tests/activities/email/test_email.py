"""Deliveries by email: the outcome of each reply, and the mail that is sent."""

import socket
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from activities.email.attachments import AttachmentUnavailable
from activities.email.channel import EmailChannel
from activities.email.smtp_pool import SmtpPool
from activities.rendering.renderer import Renderer
from bellwire.contract import Chunk, Group
from bellwire.deliveries import DeliveryState, Fault, Outcome, OutcomeKind
from bellwire.registry import Registry
from bellwire.targets import Channel
from starter.local.receivers.mailbox import Mailbox
from tests.activities.email.channels import (
    ANN,
    BOB,
    CAT,
    DEFERRED,
    DELIVERED,
    REJECTED,
    UNKNOWN,
    again,
    channel_to,
    request_to,
)
from tests.activities.sending.chunks import send_chunk
from tests.factories import event, send_request, subscription


async def test_an_accepted_mail_is_delivered() -> None:
    async with Mailbox() as box, channel_to(box) as channel:
        outcome = await channel.attempt(request_to(ANN))
        [mail] = box.mails
    assert (outcome.kind, outcome.reason, outcome.provider_id) == (DELIVERED, "SMTP 250 2.0.0", "000001")
    assert (mail.envelope_from, mail.to) == ("bell@example.net", ANN)
    assert mail.subject == "Order 42 is paid"
    assert "total: 19.90 EUR" in mail.text
    assert mail.html is not None
    assert "<h1" in mail.html
    assert mail.headers["From"] == "Bellwire <bell@example.net>"
    assert mail.headers["To"] == ANN
    assert mail.headers["Auto-Submitted"] == "auto-generated"
    assert mail.message_id == f"<{request_to(ANN).delivery.id}@example.net>"
    assert {"Date", "MIME-Version"} <= mail.headers.keys()


async def test_a_greylisted_mail_is_accepted_on_the_second_attempt_with_the_same_message_id() -> None:
    async with Mailbox() as box, channel_to(box) as channel:
        box.script(ANN, "451 4.7.1 greylisted, come back")
        first = await channel.attempt(request_to(ANN))
        assert (first.kind, first.reason, first.remaining_recipients) == (DEFERRED, "SMTP 451 4.7.1", None)
        assert first.response == "451 4.7.1 greylisted, come back"
        assert (await channel.attempt(again(request_to(ANN), first))).kind is DELIVERED
        assert [mail.message_id for mail in box.mails] == [f"<{request_to(ANN).delivery.id}@example.net>"]


async def test_a_mail_that_is_sent_twice_has_the_same_message_id_twice() -> None:
    async with Mailbox() as box, channel_to(box) as channel:
        for number in (1, 2):
            await channel.attempt(request_to(ANN, number=number))
        first, second = box.mails
        assert first.message_id == second.message_id


async def test_an_unknown_address_is_rejected_and_disables_the_subscription() -> None:
    async with Mailbox() as box, channel_to(box) as channel:
        box.script(ANN, f"550 5.1.1 <{ANN}>: no such user")
        outcome = await channel.attempt(request_to(ANN))
    assert (outcome.kind, outcome.disable, outcome.reason) == (REJECTED, True, "SMTP 550 5.1.1")
    assert ANN not in outcome.reason
    assert ANN in (outcome.response or "")


async def test_a_mail_refused_after_data_is_rejected() -> None:
    async with Mailbox() as box, channel_to(box) as channel:
        box.script(ANN, "554 5.6.0 looks like spam", at="DATA")
        outcome = await channel.attempt(request_to(ANN))
        assert (outcome.kind, outcome.reason, outcome.disable) == (REJECTED, "SMTP 554 5.6.0", False)


async def test_a_mail_above_the_relays_size_limit_waits_for_the_operator_and_is_not_sent() -> None:
    async with Mailbox(size_limit=1000) as box, channel_to(box) as channel:
        with capture_logs() as logs:
            outcome = await channel.attempt(request_to(ANN))
    assert (outcome.kind, outcome.reason, outcome.fault) == (DEFERRED, "SMTP 552", Fault.OPERATOR)
    assert [(line["event"], line["log_level"]) for line in logs] == [("relay.refused", "error")]
    assert box.mails == []


async def test_a_connection_lost_after_data_is_unknown_and_the_next_attempt_has_the_same_message_id() -> None:
    async with Mailbox() as box, channel_to(box) as channel:
        box.drop_after_data(ANN)
        unknown = await channel.attempt(request_to(ANN))
        assert (unknown.kind, unknown.reason) == (UNKNOWN, "SMTP reply lost after DATA")
        assert (await channel.attempt(again(request_to(ANN), unknown))).kind is DELIVERED
        assert box.mails[0].message_id == f"<{request_to(ANN).delivery.id}@example.net>"


async def test_a_refused_connection_defers() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening, so that no other process gets the port
        box = Mailbox(port=taken.getsockname()[1])
        async with channel_to(box) as channel:
            outcome = await channel.attempt(request_to(ANN, BOB))
    assert (outcome.kind, outcome.reason, outcome.remaining_recipients) == (
        DEFERRED,
        "2 of 2 remaining: SMTP connect error",
        None,
    )


async def test_the_second_attempt_after_a_partial_refusal_goes_to_the_remaining_recipients() -> None:
    async with Mailbox() as box, channel_to(box) as channel:
        box.script(BOB, "451 4.3.0 later")
        box.script(CAT, "550 5.1.1 unknown")
        everyone = request_to(ANN, BOB, CAT)
        first = await channel.attempt(everyone)
        assert (first.kind, first.remaining_recipients, first.disable) == (DEFERRED, (BOB,), False)
        assert first.reason == "1 of 3 refused: SMTP 550 5.1.1; 1 of 3 remaining: SMTP 451 4.3.0"
        second = await channel.attempt(again(everyone, first))
        assert (second.kind, second.remaining_recipients, second.reason) == (DELIVERED, None, "SMTP 250 2.0.0")
        assert [mail.to for mail in box.mails] == [ANN, BOB]
        assert box.connections == 1


@pytest.mark.parametrize(
    ("replies", "kind", "reason", "disable"),
    [
        ({}, DELIVERED, "SMTP 250 2.0.0", False),
        ({BOB: "550 5.1.1 x"}, DELIVERED, "1 of 3 refused: SMTP 550 5.1.1", False),
        (dict.fromkeys([ANN, BOB, CAT], "550 5.1.1 x"), REJECTED, "3 of 3 refused: SMTP 550 5.1.1", True),
        ({ANN: "554 x", BOB: "550 5.1.1 x", CAT: "550 5.2.1 x"}, REJECTED, "3 of 3 refused: SMTP 554", False),
        (dict.fromkeys([ANN, BOB, CAT], "450 x"), DEFERRED, "3 of 3 remaining: SMTP 450", False),
    ],
)
async def test_outcomes_of_several_recipients_are_combined(
    replies: dict[str, str], kind: OutcomeKind, reason: str, disable: bool
) -> None:
    async with Mailbox() as box, channel_to(box) as channel:
        for address, reply in replies.items():
            box.script(address, reply)
        outcome = await channel.attempt(request_to(ANN, BOB, CAT))
    assert (outcome.kind, outcome.reason, outcome.disable, outcome.remaining_recipients) == (
        kind,
        reason,
        disable,
        None,
    )


async def test_a_late_refusal_of_one_recipient_does_not_change_what_others_accepted() -> None:
    async with Mailbox() as box, channel_to(box) as channel:
        box.script(BOB, "451 later", "451 later", "550 5.1.1 gone")
        first = await channel.attempt(request_to(ANN, BOB))
        second = await channel.attempt(again(request_to(ANN, BOB), first))
        third = await channel.attempt(again(request_to(ANN, BOB), second, number=3))
        assert (second.kind, second.remaining_recipients) == (DEFERRED, (BOB,))
        assert (third.kind, third.reason, third.disable) == (DELIVERED, "1 of 2 refused: SMTP 550 5.1.1", False)
        assert len(box.mails) == 1


async def test_a_delivery_that_no_recipient_accepted_is_rejected() -> None:
    async with Mailbox() as box, channel_to(box) as channel:
        box.script(ANN, "550 5.1.1 gone")
        box.script(BOB, "451 later", "554 no")
        first = await channel.attempt(request_to(ANN, BOB))
        second = await channel.attempt(again(request_to(ANN, BOB), first))
        assert (second.kind, second.disable) == (REJECTED, False)


async def test_one_lost_reply_is_unknown_and_only_that_recipient_remains() -> None:
    async with Mailbox() as box, channel_to(box) as channel:
        box.drop_after_data(BOB)
        outcome = await channel.attempt(request_to(ANN, BOB, CAT))
        assert (outcome.kind, outcome.remaining_recipients) == (UNKNOWN, (BOB,))
        assert [mail.to for mail in box.mails] == [ANN, CAT]


async def test_a_target_that_changed_after_a_partial_refusal_gets_the_mail_again() -> None:
    async with Mailbox() as box, channel_to(box) as channel:
        outcome = await channel.attempt(
            again(request_to(ANN, CAT), Outcome(kind=DEFERRED, reason="", remaining_recipients=(BOB,)))
        )
        assert outcome.kind is DELIVERED
        assert [mail.to for mail in box.mails] == [ANN, CAT]


async def test_the_activity_records_the_outcome_of_each_delivery(tmp_path: Path) -> None:
    registry = await Registry.open(f"sqlite:///{tmp_path}/registry.db")
    try:
        await registry.migrate()
        published = event(id="1")
        for name, address in (("ann", ANN), ("bob", BOB)):
            await registry.subscriptions.create(subscription({"channel": "email", "to": address}, id=name))
        await registry.events.accept([published], "event//shop/1")
        group = Group(event_key=published.key, channel=Channel.EMAIL, subscription_ids=("ann", "bob"))
        await registry.deliveries.add("event//shop/1", [group])
        async with Mailbox() as box:
            box.script(BOB, "451 4.7.1 later")
            pool = SmtpPool(box.host, box.port)
            channel = EmailChannel(pool, Renderer(None), sender="bell@example.net")
            result = await send_chunk(Channel.EMAIL, channel, registry, Chunk(groups=(group,), schedule=(60.0,)))
            await pool.close()
    finally:
        await registry.close()
    assert result.settled == {published.key: {DeliveryState.DELIVERED: 1}}
    [left] = result.deferred
    assert (left.subscription_id, left.delay, left.reason) == ("bob", 60.0, "SMTP 451 4.7.1")


async def test_each_recipient_sees_only_its_own_address() -> None:
    async with Mailbox() as box, channel_to(box) as channel:
        await channel.attempt(request_to(ANN, BOB))
        assert [(mail.recipients, mail.headers["To"]) for mail in box.mails] == [((ANN,), ANN), ((BOB,), BOB)]


async def test_starttls_with_login_delivers_and_a_wrong_password_defers_with_an_error() -> None:
    async with Mailbox(security="starttls", login=("bell", "wire")) as box:
        tls: dict[str, Any] = {"security": "starttls", "verify": False, "username": "bell"}
        async with channel_to(box, password="wire", **tls) as channel:
            assert (await channel.attempt(request_to(ANN))).kind is DELIVERED
        async with channel_to(box, password="wrong", **tls) as channel:
            with capture_logs() as logs:
                outcome = await channel.attempt(request_to(ANN))
    assert (outcome.kind, outcome.reason, outcome.disable) == (DEFERRED, "SMTP 535 5.7.8", False)
    assert [(entry["event"], entry["log_level"], entry["reason"]) for entry in logs] == [
        ("relay.refused", "error", "SMTP 535 5.7.8")
    ]


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_an_untrusted_certificate_defers_with_an_error(security: str) -> None:
    async with Mailbox(security=security) as box, channel_to(box, security=security) as channel:
        with capture_logs() as logs:
            outcome = await channel.attempt(request_to(ANN))
        assert (outcome.kind, outcome.reason) == (DEFERRED, "SMTP TLS handshake failed")
        assert [entry["log_level"] for entry in logs] == ["error"]
        assert box.mails == []


async def test_a_template_that_fails_defers_with_an_error(tmp_path: Path) -> None:
    (tmp_path / "order.paid").mkdir()
    (tmp_path / "order.paid" / "email.txt").write_text("ok\n{{ data.coupon }}")
    async with Mailbox() as box, channel_to(box, templates=tmp_path) as channel:
        with capture_logs() as logs:
            outcome = await channel.attempt(request_to(ANN))
        assert box.connections == 0
    assert (outcome.kind, outcome.reason) == (DEFERRED, "template order.paid/email.txt line 2: coupon is missing")
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("template.failed", "error")]


async def test_a_subscription_that_changed_to_another_channel_is_rejected() -> None:
    async with Mailbox() as box, channel_to(box) as channel:
        outcome = await channel.attempt(send_request())
    assert (outcome.kind, outcome.reason) == (REJECTED, "target is no longer an email address")


async def test_event_data_cannot_inject_a_header() -> None:
    evil = "42\r\nBcc: eve@example.com\r\n\r\n.\r\nMAIL FROM:<x@y>\r\n"
    published = event(id="1", data={"order": evil})
    async with Mailbox() as box, channel_to(box) as channel:
        await channel.attempt(request_to(ANN, published=published))
        [mail] = box.mails
        assert "Bcc" not in mail.headers
        assert mail.subject == "Order 42 Bcc: eve@example.com . MAIL FROM:<x@y> is paid"
        assert mail.recipients == (ANN,)


async def test_a_chinese_subject_and_body_are_sent_in_seven_bits() -> None:
    published = event(id="1", data={"order": "订单" * 60})
    async with Mailbox() as box, channel_to(box, sender="通知 <bell@example.net>") as channel:
        await channel.attempt(request_to(ANN, published=published))
        [mail] = box.mails
    assert mail.raw.isascii()
    assert max(len(line) for line in mail.raw.split(b"\r\n")) <= 78 + len(request_to(ANN).delivery.id)
    assert mail.subject == f"Order {'订单' * 60} is paid"
    assert "订单" * 60 in mail.text
    assert mail.headers["From"] == "通知 <bell@example.net>"


async def test_a_non_ascii_address_needs_smtputf8() -> None:
    async with Mailbox(smtputf8=True) as box, channel_to(box) as channel:
        assert (await channel.attempt(request_to("jürgen@example.com"))).kind is DELIVERED
        assert (box.mails[0].to, box.mails[0].headers["To"]) == ("jürgen@example.com", "jürgen@example.com")
    async with Mailbox(smtputf8=False) as box, channel_to(box) as channel:
        outcome = await channel.attempt(request_to("jürgen@example.com", ANN))
        assert outcome.reason == "1 of 2 refused: address needs SMTPUTF8, which the relay lacks"
        assert (outcome.kind, box.connections, [mail.to for mail in box.mails]) == (DELIVERED, 1, [ANN])


async def test_a_non_ascii_domain_does_not_need_smtputf8() -> None:
    async with Mailbox(smtputf8=False) as box, channel_to(box) as channel:
        assert (await channel.attempt(request_to("ann@bücher.example"))).kind is DELIVERED
        assert box.mails[0].to == "ann@xn--bcher-kva.example"


@pytest.mark.parametrize(
    ("address", "sent"),
    [
        ("kunde@straße.de", "kunde@xn--strae-oqa.de"),
        ("a@faß.de", "a@xn--fa-hia.de"),
        ("x@βόλος.gr", "x@xn--nxasmm1c.gr"),
        ("Ann@Example.COM", "Ann@example.com"),
        ("\uff41nn\uff20example\u3002com", "ann@example.com"),
    ],
)
async def test_a_mail_goes_to_the_canonical_address(address: str, sent: str) -> None:
    async with Mailbox(smtputf8=False) as box, channel_to(box) as channel:
        assert (await channel.attempt(request_to(address))).kind is DELIVERED
        assert (box.mails[0].to, box.mails[0].headers["To"]) == (sent, sent)


@pytest.mark.parametrize("sender", ["", "Bellwire", "Bell <bell@>", "a@b@c", "jürgen@example.com"])
def test_an_invalid_sender_is_refused(sender: str) -> None:
    with pytest.raises(ValueError, match="sender:"):
        EmailChannel(SmtpPool("localhost", 25), Renderer(None), sender=sender)


async def test_a_template_failure_does_not_change_the_remaining_recipients(tmp_path: Path) -> None:
    (tmp_path / "order.paid").mkdir()
    template = tmp_path / "order.paid" / "email.txt"
    template.write_text("Paid.")
    async with Mailbox() as box, channel_to(box, templates=tmp_path) as channel:
        box.script(BOB, "451 later")
        first = await channel.attempt(request_to(ANN, BOB))
        template.write_text("{{ data.coupon }}")
        second = await channel.attempt(again(request_to(ANN, BOB), first))
        template.write_text("Paid, thank you.")
        third = await channel.attempt(again(request_to(ANN, BOB), second, number=3))
        assert (second.kind, third.kind) == (DEFERRED, DELIVERED)
        assert [mail.to for mail in box.mails] == [ANN, BOB]


async def test_files_are_attached_if_the_target_asks_for_them_and_defer_the_mail_while_unavailable() -> None:
    responses: list[Any] = [AttachmentUnavailable("timeout"), ("application/pdf", b"%PDF")]

    async def fetch(_: str) -> tuple[str, bytes]:
        response = responses.pop(0)
        if isinstance(response, Exception):
            raise response
        return cast(tuple[str, bytes], response)

    published = event(id="1", data={"order": "42", "attachments": [{"url": "https://files.example/a.pdf"}]})
    plain, wanted = (
        send_request(subscription({"channel": "email", "to": ANN, "attachments": attached}, id="sub"), published)
        for attached in (False, True)
    )
    async with Mailbox() as box:
        pool = SmtpPool(box.host, box.port, timeout=60)
        channel = EmailChannel(pool, Renderer(None), sender="bell@example.net", fetch=fetch)
        assert (await channel.attempt(plain)).kind is DELIVERED
        unavailable = await channel.attempt(wanted)
        assert (unavailable.kind, unavailable.reason) == (DEFERRED, "attachment: timeout")
        assert (await channel.attempt(again(wanted, unavailable))).kind is DELIVERED
        await pool.close()
        without, with_file = (message_from_bytes(mail.raw, policy=policy.default) for mail in box.mails)
    assert list(without.iter_attachments()) == []
    [part] = with_file.iter_attachments()
    assert (part.get_filename(), part.get_content()) == ("a.pdf", b"%PDF")
