"""Whose fault a failure is: only the receiver's counts against a subscription, and only an endpoint throttles it."""

from pathlib import Path
from typing import cast

import aiosmtplib
import pytest

from activities.egress.failures import classify_error
from activities.email.channel import EmailChannel
from activities.email.smtp_pool import NoRelayAvailable, ReplyLost, SmtpPool
from activities.email.smtp_replies import classify_smtp_error
from activities.rendering.renderer import Renderer
from activities.sms.channel import SmsChannel
from activities.sms.providers import Providers
from bellwire.deliveries import Fault, OutcomeKind
from bellwire.registry import Registry
from bellwire.sms.twilio_codes import BY_CODE, classify_refusal
from starter.local.receivers.mailbox import Mailbox
from starter.local.receivers.webhooks import WebhookReceiver, WebhookResponse
from tests.activities.webhook.test_webhook import attempt
from tests.factories import event, send_request, subscription

NO_REGISTRY = cast(Registry, None)
ANN, BOB = "ann@example.com", "bob@example.com"


def sms_without_provider(renderer: Renderer) -> SmsChannel:
    return SmsChannel(NO_REGISTRY, Providers([]), renderer, reconcile_after=0, max_segments=10)


def rcpt(code: int, message: str) -> Exception:
    return aiosmtplib.SMTPRecipientsRefused([aiosmtplib.SMTPRecipientRefused(code, message, ANN)])


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (rcpt(550, "5.1.1 unknown"), Fault.RECEIVER),
        (rcpt(550, "no such user"), Fault.RECEIVER),
        (rcpt(452, "4.2.2 full"), Fault.RECEIVER),
        (rcpt(451, "4.7.1 greylisted"), Fault.RECEIVER),
        (aiosmtplib.SMTPDataError(554, "5.6.0 content"), Fault.RECEIVER),
        # The relay reports its own state, or refuses the sender.
        (rcpt(421, "going down"), Fault.PROVIDER),
        (rcpt(452, "4.3.1 no room on this disk"), Fault.PROVIDER),
        (rcpt(550, "5.7.1 blocked"), Fault.OPERATOR),
        (rcpt(530, "authenticate first"), Fault.OPERATOR),
        (rcpt(454, "4.7.0 the login cannot be checked now"), Fault.PROVIDER),
        (rcpt(999, "no answer at all"), Fault.PROVIDER),
        (aiosmtplib.SMTPDataError(552, "5.3.4 too large"), Fault.OPERATOR),
        (aiosmtplib.SMTPSenderRefused(550, "5.1.1 you again", ANN), Fault.OPERATOR),
        (aiosmtplib.SMTPAuthenticationError(535, "5.7.8 wrong"), Fault.OPERATOR),
        (aiosmtplib.SMTPConnectError("no"), Fault.PROVIDER),
        (aiosmtplib.SMTPServerDisconnected("no"), Fault.PROVIDER),
        (aiosmtplib.SMTPReadTimeoutError("no"), Fault.PROVIDER),
        (aiosmtplib.SMTPNotSupported("no SMTPUTF8"), Fault.PROVIDER),
        (ReplyLost(), Fault.PROVIDER),
        (NoRelayAvailable(), Fault.PROVIDER),
        (OSError(), Fault.PROVIDER),
    ],
)
def test_only_smtp_replies_about_the_recipient_count_against_it(error: Exception, fault: Fault) -> None:
    assert classify_smtp_error(error)[1].fault is fault


@pytest.mark.parametrize(
    ("ann", "bob", "fault"),
    [
        ("550 5.1.1 unknown", "550 5.1.1 unknown", Fault.RECEIVER),
        ("450 4.2.2 full", "550 5.1.1 unknown", Fault.RECEIVER),
        # One recipient has the mail, so the subscription is not failing.
        (None, "450 4.2.2 full", Fault.PROVIDER),
        ("550 5.7.1 blocked", "550 5.7.1 blocked", Fault.OPERATOR),
    ],
)
async def test_subscription_fails_only_if_every_recipient_does(ann: str | None, bob: str, fault: Fault) -> None:
    async with Mailbox() as box:
        pool = SmtpPool(box.host, box.port, timeout=5)
        channel = EmailChannel(pool, Renderer(), sender="Bell <bell@example.net>")
        for address, answer in ((ANN, ann), (BOB, bob)):
            if answer:
                box.script(address, answer)
        outcome = await channel.attempt(send_request(subscription({"channel": "email", "to": [ANN, BOB]})))
        await pool.close()
    assert outcome.kind is not OutcomeKind.DELIVERED
    assert outcome.fault is fault


async def test_failing_template_is_the_operators_fault(tmp_path: Path) -> None:
    (tmp_path / "order.paid").mkdir()
    for name in ("email.txt", "sms.txt"):
        (tmp_path / "order.paid" / name).write_text("Order {{ nobody_knows }}")
    pool = SmtpPool("127.0.0.1", 1, timeout=1)
    mail = EmailChannel(pool, Renderer(tmp_path), sender="Bell <bell@example.net>")
    text = sms_without_provider(Renderer(tmp_path))
    by_email = await mail.attempt(send_request(subscription({"channel": "email", "to": ANN}), event()))
    by_sms = await text.attempt(send_request(subscription({"channel": "sms", "to": "+14155550123"}), event()))
    assert by_email.fault is by_sms.fault is Fault.OPERATOR
    await pool.close()


async def test_channel_without_a_provider_is_the_operators_fault() -> None:
    text = sms_without_provider(Renderer())
    outcome = await text.attempt(send_request(subscription({"channel": "sms", "to": "+14155550123"}), event()))
    assert (outcome.kind, outcome.fault) == (OutcomeKind.DEFERRED, Fault.OPERATOR)


def test_only_twilio_codes_about_the_number_count_against_it() -> None:
    about = {code for code, judged in BY_CODE.items() if judged.number}
    # STOP (21610) suppresses the number and is not a failure.
    assert about == {21211, 21614, 30003, 30004, 30005, 30006, 30007, 30036}
    assert not any(BY_CODE[code].operator for code in about)
    assert not any(classify_refusal(status, None).number for status in (400, 401, 403, 404, 408, 422, 429, 500, 503))


@pytest.mark.parametrize(
    ("status", "throttles"), [(429, True), (502, True), (503, True), (504, True), (500, False), (408, False)]
)
async def test_overload_statuses_throttle(status: int, throttles: bool) -> None:
    async with WebhookReceiver() as hooks:
        hooks.script("/", WebhookResponse(status=status, headers={"Retry-After": "7"}))
        outcome = await attempt(hooks.url())
    assert (outcome.throttle, outcome.retry_after, outcome.fault) == (throttles, 7, Fault.RECEIVER)


@pytest.mark.parametrize(("status", "throttles"), [(429, True), (502, True), (504, True), (503, False)])
async def test_without_retry_after_503_does_not_throttle(status: int, throttles: bool) -> None:
    async with WebhookReceiver() as hooks:
        hooks.script("/", status)
        outcome = await attempt(hooks.url())
    assert (outcome.throttle, outcome.retry_after) == (throttles, None)


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionResetError(), UnicodeError()])
def test_unreachable_endpoint_counts_against_itself(error: Exception) -> None:
    assert classify_error(error).fault is Fault.RECEIVER
