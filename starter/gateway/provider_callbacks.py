"""What providers and recipients of SMS call the gateway with: what became of an SMS, and STOP or START.

A callback names its delivery in the path, so that one that comes before the attempt is on record is kept all the same.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from urllib.parse import parse_qsl

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from twilio.request_validator import RequestValidator

from bellwire.errors import DeliveryNotFound
from bellwire.registry import Registry
from bellwire.service.settings import Settings
from bellwire.sms.receipts import SmsReceipt, SmsReceiptStatus
from bellwire.sms.twilio_codes import BY_CODE, CALLBACKS
from bellwire.suppressions import EVERYWHERE, Suppression, SuppressionReason, by_sender
from bellwire.targets import Channel
from starter.cli.events.deliveries import parse_delivery_id
from starter.cli.terminal import InputInvalid

log = structlog.get_logger("bellwire")

#: Most bytes of a callback. One of Twilio's has about 500; an inbound SMS of ten segments in UCS-2 about 6,000.
MAX_BODY = 64 * 1024
MAX_FIELDS = 200
#: Most characters of a provider's id that are kept.
MAX_ID = 64

#: What Twilio's words stand for. Others, such as those of WhatsApp, are no news of an SMS.
STATUSES = {
    "accepted": SmsReceiptStatus.QUEUED,
    "scheduled": SmsReceiptStatus.QUEUED,
    "queued": SmsReceiptStatus.QUEUED,
    "sending": SmsReceiptStatus.SENDING,
    "sent": SmsReceiptStatus.SENT,
    "delivered": SmsReceiptStatus.DELIVERED,
    "undelivered": SmsReceiptStatus.UNDELIVERED,
    "failed": SmsReceiptStatus.FAILED,
    "canceled": SmsReceiptStatus.FAILED,
}
#: https://help.twilio.com/articles/223134027: what recipients write, where Twilio does not say what it took it for.
STOP_WORDS = frozenset({"stop", "stopall", "unsubscribe", "cancel", "end", "quit", "revoke", "optout"})
START_WORDS = frozenset({"start", "yes", "unstop"})

#: Twilio is told to answer nothing to the recipient; it answers STOP and START itself.
_SILENCE = '<?xml version="1.0" encoding="UTF-8"?><Response/>'


def routes(settings: Settings, registry: Registry) -> list[Route]:
    """Twilio's callbacks, if its token and the public URL are known: without them, nobody could be told apart from it."""
    if settings.twilio_auth_token is None or settings.public_url is None:
        return []
    callbacks = TwilioCallbacks(
        registry, token=settings.twilio_auth_token.get_secret_value(), public_url=settings.public_url
    )
    return [
        Route(f"{CALLBACKS}/inbound", callbacks.inbound, methods=["POST"]),
        Route(f"{CALLBACKS}/{{delivery_id}}", callbacks.status, methods=["POST"]),
    ]


class TwilioCallbacks:
    """Answers 403 to what Twilio did not sign over the URL that it knows, which the Host header does not take part in."""

    def __init__(self, registry: Registry, *, token: str, public_url: str) -> None:
        self._registry = registry
        self._validator = RequestValidator(token)
        self._public_url = public_url

    async def status(self, request: Request) -> Response:
        """What became of an SMS. 204; 404 for a delivery that is not known."""
        form = await self._signed_form(request)
        if isinstance(form, Response):
            return form
        try:
            event_key, subscription_id = parse_delivery_id(request.path_params["delivery_id"])
        except InputInvalid:
            return Response(status_code=404)
        sid = form.get("MessageSid") or form.get("SmsSid") or ""
        status = STATUSES.get(form.get("MessageStatus") or form.get("SmsStatus") or "")
        if not sid or len(sid) > MAX_ID or status is None:
            return Response(status_code=204)
        bad = status in {SmsReceiptStatus.UNDELIVERED, SmsReceiptStatus.FAILED}
        code = _whole(form.get("ErrorCode")) if bad else None
        receipt = SmsReceipt(
            event_key=event_key,
            subscription_id=subscription_id,
            provider_id=sid,
            status=status,
            code=None if code is None else str(code),
            segments=_whole(form.get("NumSegments")) or None,
            price=_price(form.get("Price")),
            currency=form.get("PriceUnit", "")[:3].upper() or None,
            received_at=datetime.now(UTC),
        )
        try:
            news = await self._registry.sms_receipts.record(receipt, suppression=_suppression(form, code))
        except DeliveryNotFound:
            return Response(status_code=404)
        if news:
            ids = {"event_key": event_key, "subscription": subscription_id, "provider_id": sid}
            log.info("sms.receipt_recorded", status=str(status), code=receipt.code, **ids)
        return Response(status_code=204)

    async def inbound(self, request: Request) -> Response:
        """An SMS from a recipient: STOP suppresses the number for the sender it was written to, START takes that back."""
        form = await self._signed_form(request)
        if isinstance(form, Response):
            return form
        number, wish = form.get("From", ""), _wish(form)
        senders = [sender for sender in (form.get("To"), form.get("MessagingServiceSid")) if sender]
        if number and wish == "STOP":
            for sender in senders:
                await self._registry.suppressions.add(_unsubscribed(number, sender))
        elif number and wish == "START":
            for sender in senders:
                await self._registry.suppressions.lift(
                    Channel.SMS, number, subscription_id=by_sender(sender), reason=SuppressionReason.UNSUBSCRIBED
                )
        if wish in {"STOP", "START"}:
            log.info("sms.answered", word=wish)
        return Response(_SILENCE, media_type="text/xml")

    async def _signed_form(self, request: Request) -> dict[str, str] | Response:
        """The fields, if Twilio has signed them; what to answer otherwise."""
        body = bytearray()
        try:
            async for piece in request.stream():
                body += piece
                if len(body) > MAX_BODY:
                    return Response(status_code=413)
        except ClientDisconnect:
            return Response(status_code=400)
        try:
            pairs = parse_qsl(
                body.decode(),
                keep_blank_values=True,
                strict_parsing=bool(body),
                errors="strict",
                max_num_fields=MAX_FIELDS,
            )
        except ValueError:  # UnicodeDecodeError among them
            return Response(status_code=400)
        form = dict(pairs)
        query = f"?{request.url.query}" if request.url.query else ""
        url = f"{self._public_url}{request.scope['path']}{query}"
        signature = request.headers.get("X-Twilio-Signature", "")
        # A field that comes twice is not Twilio's way, and could carry what was not signed.
        if len(form) < len(pairs) or not self._validator.validate(url, form, signature):
            return Response(status_code=403)
        return form


def _suppression(form: Mapping[str, str], code: int | None) -> Suppression | None:
    """What a code of failure says about the number; None if nothing."""
    judged = None if code is None else BY_CODE.get(code)
    number = form.get("To", "")
    if judged is None or judged.suppress is None or not number:
        return None
    if judged.suppress is SuppressionReason.UNSUBSCRIBED:
        return _unsubscribed(number, form.get("MessagingServiceSid") or form.get("From") or "")
    return Suppression(channel=Channel.SMS, address=number, reason=judged.suppress)


def _unsubscribed(number: str, sender: str) -> Suppression:
    scope = by_sender(sender) if sender else EVERYWHERE
    return Suppression(
        channel=Channel.SMS, address=number, reason=SuppressionReason.UNSUBSCRIBED, subscription_id=scope
    )


def _wish(form: Mapping[str, str]) -> str:
    """STOP, START, or something else: as Twilio took it, which knows the words of each sender and language."""
    if said := form.get("OptOutType"):
        return said.upper()
    word = form.get("Body", "").strip().casefold()
    return "STOP" if word in STOP_WORDS else "START" if word in START_WORDS else ""


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) <= 9 else None


def _price(text: str | None) -> Decimal | None:
    """Twilio writes what it takes as a negative number."""
    try:
        price = abs(Decimal(text or "nothing"))
    except InvalidOperation:
        return None
    return price if price.is_finite() else None
