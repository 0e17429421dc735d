"""Callbacks of SMS providers: delivery receipts, and STOP or START from recipients.

A callback's path names its delivery, so a receipt that arrives before the attempt is recorded is not lost.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from urllib.parse import parse_qsl

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from twilio.request_validator import RequestValidator

from bellwire.deliveries import DeliveryKey
from bellwire.errors import DeliveryNotFound
from bellwire.registry import Registry
from bellwire.service.settings import Settings
from bellwire.sms.keywords import Keyword, keyword_of
from bellwire.sms.receipts import SmsReceipt, SmsReceiptStatus
from bellwire.sms.twilio_codes import CALLBACKS
from starter.gateway.bodies import BodyTooLarge, read_body
from starter.operations.delivery.deliveries import parse_key
from starter.operations.problems import InputInvalid
from starter.operations.subscribers import sms_callbacks

log = structlog.get_logger("bellwire")

#: Maximum bytes of a callback. One of Twilio's has about 500; an inbound SMS of ten segments in UCS-2 about 6,000.
MAX_BODY = 64 * 1024
MAX_FIELDS = 200
#: Maximum characters of a provider's id.
MAX_ID = 64

#: The statuses that Twilio reports of an SMS. Others, such as those of WhatsApp, are ignored.
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
_CURRENCY = re.compile(r"[A-Za-z]{3}")
#: Tells Twilio to send nothing back to the recipient; Twilio itself replies to STOP and START.
_NO_REPLY = '<?xml version="1.0" encoding="UTF-8"?><Response/>'


def routes(settings: Settings, registry: Registry) -> list[Route]:
    """Twilio's callbacks, if its token and the public URL are set: without them, its signature cannot be verified."""
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
    """Verifies Twilio's signature over the public URL, never over the Host header, and responds 403 without a valid one."""

    def __init__(self, registry: Registry, *, token: str, public_url: str) -> None:
        self._registry = registry
        self._validator = RequestValidator(token)
        self._public_url = public_url

    async def status(self, request: Request) -> Response:
        """A delivery receipt. Responds 204; 404 for a delivery that does not exist."""
        form = await self._signed_form(request)
        if isinstance(form, Response):
            return form
        try:
            key = parse_key(request.path_params["delivery_id"])
        except InputInvalid:
            return Response(status_code=404)
        receipt = _receipt(form, key)
        if receipt is None:
            return Response(status_code=204)
        sender = form.get("MessagingServiceSid") or form.get("From") or ""
        try:
            new = await sms_callbacks.record_receipt(self._registry, receipt, number=form.get("To", ""), sender=sender)
        except DeliveryNotFound:
            return Response(status_code=404)
        if new:
            log.info(
                "sms.receipt_recorded",
                status=str(receipt.status),
                code=receipt.code,
                event_key=receipt.event_key,
                subscription=receipt.subscription_id,
                provider_id=receipt.provider_id,
            )
        return Response(status_code=204)

    async def inbound(self, request: Request) -> Response:
        """An SMS from a recipient: STOP suppresses the number for the sender it was written to, START lifts that."""
        form = await self._signed_form(request)
        if isinstance(form, Response):
            return form
        number, keyword = form.get("From", ""), _keyword(form)
        senders = [sender for sender in (form.get("To"), form.get("MessagingServiceSid")) if sender]
        if number and keyword is Keyword.STOP:
            await sms_callbacks.opt_out(self._registry, number, senders)
        elif number and keyword is Keyword.START:
            await sms_callbacks.opt_in(self._registry, number, senders)
        if keyword:
            log.info("sms.keyword_received", keyword=str(keyword))
        return Response(_NO_REPLY, media_type="text/xml")

    async def _signed_form(self, request: Request) -> dict[str, str] | Response:
        """The fields, if Twilio has signed them; otherwise the response."""
        try:
            body = await read_body(request, MAX_BODY)
        except BodyTooLarge:
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
        # Twilio gives no field twice; a second value could be one that is not signed.
        if len(form) < len(pairs) or not self._validator.validate(url, form, signature):
            return Response(status_code=403)
        return form


def _receipt(form: Mapping[str, str], key: DeliveryKey) -> SmsReceipt | None:
    """The delivery receipt in a callback; None if it has no id or a status that is not of an SMS."""
    sid = form.get("MessageSid") or form.get("SmsSid") or ""
    status = STATUSES.get(form.get("MessageStatus") or form.get("SmsStatus") or "")
    if not sid or len(sid) > MAX_ID or status is None:
        return None
    failed = status in {SmsReceiptStatus.UNDELIVERED, SmsReceiptStatus.FAILED}
    code = _whole(form.get("ErrorCode")) if failed else None
    return SmsReceipt(
        event_key=key.event_key,
        subscription_id=key.subscription_id,
        provider_id=sid,
        status=status,
        code=None if code is None else str(code),
        segments=_whole(form.get("NumSegments")) or None,
        price=_price(form.get("Price")),
        currency=unit.upper() if _CURRENCY.fullmatch(unit := form.get("PriceUnit", "")) else None,
        received_at=datetime.now(UTC),
    )


def _keyword(form: Mapping[str, str]) -> Keyword | None:
    """STOP or START; None for another text. Twilio's own OptOutType wins: it knows the words of each sender and language."""
    if kind := form.get("OptOutType"):
        return Keyword(kind.upper()) if kind.upper() in set(Keyword) else None
    return keyword_of(form.get("Body", ""))


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) <= 6 else None


def _price(text: str | None) -> Decimal | None:
    """The amount charged, which Twilio writes as a negative number."""
    try:
        price = abs(Decimal(text or "nothing"))
    except InvalidOperation:
        return None
    return price if price.is_finite() else None
