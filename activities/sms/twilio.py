"""Twilio as a provider of SMS, and how an SMS is found again there whose answer was lost.

Twilio has no idempotency key, so it is asked what it has sent to the number since. The limit of this: a lost SMS is not
recognised if its text, sender or number was changed before the next attempt.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Protocol

from aiohttp import ClientSession
from twilio.base.exceptions import TwilioException
from twilio.rest import Client

from activities.sms.provider_http import AnswerLost, NotSent
from activities.sms.providers import (
    Reported,
    SendResult,
    Sms,
    lost,
    unreachable,
)
from activities.sms.twilio_http import TwilioTransport, from_retry_after, retry_after
from bellwire.deliveries import MAX_RESPONSE, Outcome, OutcomeKind
from bellwire.sms.twilio_codes import BY_CODE, classify_refusal

TWILIO = "twilio"
#: How far Twilio's clock and ours may be apart, with the time that one call takes.
CLOCK_SKEW = timedelta(minutes=2)
#: Messages to one number that are looked through for a lost one: pages of this many, and at most so many pages.
LIST_PAGE, LIST_PAGES = 200, 10
#: Claims that one worker remembers; the registry knows the older ones.
MAX_CLAIMS = 10_000
#: What precedes each text that a trial account sends.
TRIAL_PREFIX = "Sent from your Twilio trial account - "


def twilio_client(account_sid: str, auth_token: str, *, url: str, timeout: float, session: ClientSession) -> Client:
    """A client of the account at `url`. The session stays the caller's to close; `timeout` is seconds for one call."""
    client = Client(account_sid, auth_token, http_client=TwilioTransport(session, timeout=timeout))
    client.edge = client.region = None  # from TWILIO_EDGE and TWILIO_REGION; the URL says where Twilio is
    client.api.base_url = url
    return client


class Records(Protocol):
    """What of the registry is needed to tell whose SMS one is."""

    async def claimed_provider_ids(self, provider_ids: Sequence[str]) -> set[str]: ...


class TwilioProvider:
    """Twilio's message API. `sender`: a number, a name or a messaging service (MG…).

    `callbacks`: the URL under which Twilio tells, with a delivery's id behind it, what became of an SMS; None: it does not.
    """

    name = TWILIO
    repeats = False

    def __init__(self, client: Client, records: Records, *, sender: str, callbacks: str | None = None) -> None:
        self._client, self._records, self._sender, self._callbacks = client, records, sender, callbacks
        #: Which attempt a SID belongs to, from the moment it is seen until the registry has it and beyond.
        self._claims: dict[str, tuple[str, int]] = {}

    def sender_of(self, sms: Sms) -> str:
        return sms.sender or self._sender

    async def send(self, sms: Sms) -> SendResult:
        sender = self.sender_of(sms)
        more = {"messaging_service_sid" if sender.startswith("MG") else "from_": sender}
        if self._callbacks is not None:
            more["status_callback"] = f"{self._callbacks}/{sms.delivery_id}"
        try:
            message = await self._client.messages.create_async(to=sms.to, body=sms.text, **more)
        except NotSent as error:
            return unreachable("Twilio", error)
        except AnswerLost as error:
            return lost(f"Twilio: {error}")
        except TwilioException as error:
            return _refused(error)
        if not message.sid:
            return lost("Twilio: an answer without a SID")
        self._claim(message.sid, sms)
        return _accepted(message, "Twilio 201")

    async def find(self, sms: Sms, since: datetime) -> SendResult | None:
        try:
            found = await self._sent_since(sms, since - CLOCK_SKEW)
        except (NotSent, AnswerLost) as error:
            return lost(f"while reconciling, Twilio: {error}")
        except TwilioException as error:
            status, code, words = from_retry_after(error)
            obstacle = _reason(status, code) if status is not None and classify_refusal(status, code).operator else None
            return lost(f"while reconciling: {words}", wait=retry_after(), obstacle=obstacle)
        taken = await self._records.claimed_provider_ids([message.sid for message in found]) if found else set()
        mine = _claimant(sms)
        free = [each for each in found if each.sid not in taken and self._claims.get(each.sid, mine) == mine]
        if not free:
            return None
        # Its own one first, or it would take another delivery's and leave that one without.
        message = min(free, key=lambda each: (each.sid not in self._claims, each.date_created or since))
        self._claim(message.sid, sms)
        return _accepted(message, f"Twilio {message.status}, reconciled")

    async def _sent_since(self, sms: Sms, since: datetime) -> list[Any]:
        """Twilio's messages with this text from our sender to this number, created at or after `since`.

        Not narrowed by DateSent: a message that still waits in Twilio's queue has none.
        """
        found: list[Any] = []
        sender, text = self.sender_of(sms), sms.text.strip()
        page = await self._client.messages.page_async(to=sms.to, page_size=LIST_PAGE)
        for _ in range(LIST_PAGES):
            messages = list(page)
            recent = [each for each in messages if each.date_created is None or each.date_created >= since]
            found += [each for each in recent if sender in {each.from_, each.messaging_service_sid}]
            page = await page.next_page_async() if recent else None
            if page is None:
                return [each for each in found if (each.body or "").removeprefix(TRIAL_PREFIX).strip() == text]
        raise AnswerLost("too many messages to look through")

    def _claim(self, sid: str, sms: Sms) -> None:
        self._claims[sid] = _claimant(sms)
        while len(self._claims) > MAX_CLAIMS:
            del self._claims[next(iter(self._claims))]


def _claimant(sms: Sms) -> tuple[str, int]:
    return sms.delivery_id, sms.number


def _refused(error: TwilioException) -> SendResult:
    status, code, words = from_retry_after(error)
    judged = classify_refusal(status, code) if status is not None else None
    if status is None or judged is None or judged.kind is OutcomeKind.UNKNOWN:
        return lost(words, wait=retry_after())
    reason = _reason(status, code)
    return SendResult(
        outcome=Outcome(
            kind=judged.kind,
            reason=reason,
            retry_after=retry_after() if judged.kind is OutcomeKind.DEFERRED else None,
            disable=judged.disable,
            fault=judged.fault,
            response=words[:MAX_RESPONSE],
        ),
        outage=status == 429 or status >= 500,
        obstacle=reason if judged.operator else None,
        suppress=judged.suppress,
    )


def _reason(status: int, code: int | None) -> str:
    return f"Twilio {status}" if code is None else f"Twilio {status} {code}"


def _accepted(message: Any, reason: str) -> SendResult:
    """Delivered, as far as Bellwire follows an SMS; unless Twilio knows already that it will not be."""
    reported = _reported(message)
    judged = BY_CODE.get(message.error_code) if message.status in {"failed", "undelivered"} else None
    if judged is None:
        outcome = Outcome(kind=OutcomeKind.DELIVERED, reason=reason, provider_id=message.sid)
        return SendResult(outcome=outcome, reported=reported)
    outcome = Outcome(
        kind=judged.kind,
        reason=f"Twilio {message.status} {message.error_code}",
        disable=judged.disable,
        fault=judged.fault,
        provider_id=message.sid,
    )
    return SendResult(outcome=outcome, suppress=judged.suppress, reported=reported)


def _reported(message: Any) -> Reported | None:
    """Twilio bills after sending, often after answering; until then it says nothing, or 0 segments."""
    try:
        segments = int(message.num_segments or 0) or None
        price = None if message.price is None else abs(Decimal(str(message.price)))
    except (ValueError, InvalidOperation):
        return None
    if segments is None and price is None:
        return None
    return Reported(segments=segments, price=price, currency=message.price_unit if price is not None else None)
