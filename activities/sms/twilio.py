"""TwilioProvider: sends SMS by Twilio's message API, and reconciles an SMS whose response was lost.

Twilio has no idempotency keys, so reconciling lists the messages that it has sent to the number. It does not recognize the
SMS if text, sender or number were changed before the next attempt. Times are Twilio's: the time of the intent, which a worker
wrote by its clock, only excludes messages that were created long before.
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol

from aiohttp import ClientSession
from twilio.base.exceptions import TwilioException
from twilio.rest import Client

from activities.providers.http import NotSent, ResponseLost
from activities.sms.providers import ReportedCost, SendResult, Sms, unknown_result, unreachable
from activities.sms.twilio_http import TwilioTransport, clock_difference, error_details, retry_after
from bellwire.deliveries import MAX_PROVIDER_ID, MAX_RESPONSE, Outcome, OutcomeKind
from bellwire.sms.twilio_codes import BY_CODE, classify_refusal

TWILIO = "twilio"
#: The largest error of the clock of the worker that wrote the intent. A message with the same text, sender and number that no
#: attempt has claimed counts as this one if it was created since then: better one SMS too few than one too many.
CLOCK_ERROR = timedelta(days=1)
#: Messages of one page when searching for an SMS, and pages that are searched.
LIST_PAGE, LIST_PAGES = 200, 10
#: Claims that one worker remembers; the registry has the older ones.
MAX_CLAIMS = 10_000
#: The prefix of each text that a trial account sends.
TRIAL_PREFIX = "Sent from your Twilio trial account - "

_STATUS = re.compile(r"accepted|scheduled|queued|sending|sent|delivered|undelivered|failed|canceled|read")
_SEGMENTS = re.compile(r"[0-9]{1,4}")
_PRICE = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,12})?")


def twilio_client(account_sid: str, auth_token: str, *, url: str, timeout: float, session: ClientSession) -> Client:
    """A client for the account at `url`. The caller closes `session`; `timeout`: seconds for one call."""
    client = Client(account_sid, auth_token, http_client=TwilioTransport(session, timeout=timeout))
    client.edge = client.region = None  # ignore TWILIO_EDGE and TWILIO_REGION; `url` is complete
    client.api.base_url = url
    return client


class Records(Protocol):
    """The part of the registry that knows which attempt a provider's id belongs to."""

    async def claimed_provider_ids(self, provider_ids: Sequence[str]) -> set[str]: ...


class TwilioProvider:
    """Twilio's message API. `sender`: a number, a name or a messaging service (MG…).

    `callbacks`: the base URL of status callbacks, to which the delivery's id is appended; None: no callbacks.
    """

    name = TWILIO
    idempotent_resend = False

    def __init__(self, client: Client, records: Records, *, sender: str, callbacks: str | None = None) -> None:
        self._client, self._records, self._sender, self._callbacks = client, records, sender, callbacks
        #: Delivery id and attempt number of each SID, since the registry has it only after the attempt is recorded.
        self._claims: dict[str, tuple[str, int]] = {}

    def sender_of(self, sms: Sms) -> str:
        return sms.sender or self._sender

    def cannot_send(self, sms: Sms) -> str | None:  # noqa: ARG002 - it sends any text
        return None

    async def send(self, sms: Sms) -> SendResult:
        sender = self.sender_of(sms)
        options = {"messaging_service_sid" if sender.startswith("MG") else "from_": sender}
        if self._callbacks is not None:
            options["status_callback"] = f"{self._callbacks}/{sms.delivery_id}"
        try:
            message = await self._client.messages.create_async(to=sms.to, body=sms.text, **options)
        except NotSent as error:
            return unreachable("Twilio", error)
        except ResponseLost as error:
            return unknown_result(f"Twilio: {error}")
        except TwilioException as error:
            return _refused(error)
        if not (sid := _sid(message)):
            return unknown_result("Twilio: response without a SID")
        self._claim(sid, sms)
        return _accepted(message, "Twilio 201")

    async def reconcile(self, sms: Sms, since: datetime) -> SendResult | None:
        try:
            found = await self._list_sent(sms, since)
        except (NotSent, ResponseLost) as error:
            return unknown_result(f"while reconciling, Twilio: {error}")
        except TwilioException as error:
            status, code, message = error_details(error)
            operator = status is not None and classify_refusal(status, code).operator
            problem = _reason(status, code) if status is not None and operator else None
            return unknown_result(f"while reconciling: {message}", wait=retry_after(), operator_problem=problem)
        recorded = await self._records.claimed_provider_ids([_sid(message) for message in found]) if found else set()
        mine = _claimant(sms)
        free = [each for each in found if _sid(each) not in recorded and self._claims.get(_sid(each), mine) == mine]
        if not free:
            return None
        # Prefer the message that this attempt has claimed, so that it does not take another delivery's.
        message = min(free, key=lambda each: (_sid(each) not in self._claims, each.date_created or since))
        self._claim(_sid(message), sms)
        return _accepted(message, f"Twilio {_status(message)}, reconciled")

    async def _list_sent(self, sms: Sms, since: datetime) -> list[Any]:
        """Twilio's messages with this text, sender and number, created at or after `since`, as far as clocks can tell.

        The query has no filter by DateSent, since a message that is still in Twilio's queue has none.
        """
        found: list[Any] = []
        sender, text = self.sender_of(sms), sms.text.strip()
        page = await self._client.messages.page_async(to=sms.to, page_size=LIST_PAGE)
        # The worker that wrote the intent may have the same wrong clock as this one, or another.
        since = since + min(clock_difference(), timedelta()) - CLOCK_ERROR
        for _ in range(LIST_PAGES):
            messages = list(page)
            recent = [each for each in messages if each.date_created is None or each.date_created >= since]
            found += [each for each in recent if sender in {each.from_, each.messaging_service_sid}]
            page = await page.next_page_async() if recent else None
            if page is None:
                return [each for each in found if (each.body or "").removeprefix(TRIAL_PREFIX).strip() == text]
        raise ResponseLost("too many messages to search")

    def _claim(self, sid: str, sms: Sms) -> None:
        self._claims[sid] = _claimant(sms)
        while len(self._claims) > MAX_CLAIMS:
            del self._claims[next(iter(self._claims))]


def _sid(message: Any) -> str:
    """The SID of Twilio's message as it is recorded; empty if the response has none."""
    return message.sid[:MAX_PROVIDER_ID] if isinstance(message.sid, str) else ""


def _status(message: Any) -> str:
    """Twilio's status of a message: a word. Anything else is not shown."""
    return message.status if isinstance(message.status, str) and _STATUS.fullmatch(message.status) else "has it"


def _claimant(sms: Sms) -> tuple[str, int]:
    return sms.delivery_id, sms.number


def _refused(error: TwilioException) -> SendResult:
    status, code, message = error_details(error)
    meaning = classify_refusal(status, code) if status is not None else None
    if status is None or meaning is None or meaning.kind is OutcomeKind.UNKNOWN:
        return unknown_result(message, wait=retry_after())
    reason = _reason(status, code)
    return SendResult(
        outcome=Outcome(
            kind=meaning.kind,
            reason=reason,
            retry_after=retry_after() if meaning.kind is OutcomeKind.DEFERRED else None,
            disable=meaning.disable,
            fault=meaning.fault,
            response=message[:MAX_RESPONSE],
        ),
        outage=status == 429 or status >= 500,
        operator_problem=reason if meaning.operator else None,
        suppress=meaning.suppress,
    )


def _reason(status: int, code: int | None) -> str:
    return f"Twilio {status}" if code is None else f"Twilio {status} {code}"


def _accepted(message: Any, reason: str) -> SendResult:
    """The result of a message that Twilio has accepted: delivered, unless its status is already a failure."""
    cost = _cost(message)
    meaning = BY_CODE.get(message.error_code) if message.status in {"failed", "undelivered"} else None
    if meaning is None:
        outcome = Outcome(kind=OutcomeKind.DELIVERED, reason=reason, provider_id=_sid(message))
        return SendResult(outcome=outcome, cost=cost)
    outcome = Outcome(
        kind=meaning.kind,
        reason=f"Twilio {message.status} {message.error_code}",
        disable=meaning.disable,
        fault=meaning.fault,
        provider_id=_sid(message),
    )
    return SendResult(outcome=outcome, suppress=meaning.suppress, cost=cost)


def _cost(message: Any) -> ReportedCost | None:
    """The cost, if the response has it. Twilio bills after sending; before that it reports no price and 0 segments."""
    segments = int(found[0]) or None if (found := _SEGMENTS.fullmatch(str(message.num_segments))) else None
    price = abs(Decimal(found[0])) if (found := _PRICE.fullmatch(str(message.price))) else None
    if segments is None and price is None:
        return None
    currency = message.price_unit if isinstance(message.price_unit, str) and price is not None else None
    return ReportedCost(segments=segments, price=price, currency=currency)
