"""The SMS channel: Twilio's message API, and never a second SMS on an ambiguous answer.

Twilio has no idempotency key. So whenever an SMS may have gone out without our knowing (a worker killed while sending,
an answer that was lost), Twilio is asked what it has sent before anything is sent again. The limit of this: a lost SMS
is not recognised if its text or number was changed before the next attempt.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import structlog
from aiohttp import ClientSession
from temporalio import activity
from twilio.base.exceptions import TwilioException
from twilio.rest import Client

from activities.rendering import Renderer
from activities.sending import send
from activities.twilio_http import BY_CODE, AnswerLost, NotSent, TwilioTransport, retry_after, ruling, stated
from bellwire.contract import Chunk, ChunkResult
from bellwire.deliveries import MAX_ANSWER, DeliveryState, Due, Outcome, OutcomeKind
from bellwire.errors import TemplateInvalid
from bellwire.registry import Registry
from bellwire.subscriptions import Channel, SmsTarget

log = structlog.get_logger("bellwire")

LOST_REASON = "answer lost"
#: How far Twilio's clock and ours may be apart, with the time that one call takes.
CLOCK_SKEW = timedelta(minutes=2)
#: Messages to one number that are looked through for a lost one: pages of this many, and at most so many pages.
LIST_PAGE, LIST_PAGES = 200, 10
#: Claims that one worker remembers; the registry knows the older ones.
MAX_CLAIMS = 10_000
#: The least time that an announced SMS has to leave in, even where reconciling does not wait.
SHORTEST_REST = timedelta(seconds=1)
#: What precedes each text that a trial account sends.
TRIAL_PREFIX = "Sent from your Twilio trial account - "


def twilio_client(account_sid: str, auth_token: str, *, url: str, timeout: float, session: ClientSession) -> Client:
    """A client of the account at `url`. The session stays the caller's to close; `timeout` is seconds for one call."""
    client = Client(account_sid, auth_token, http_client=TwilioTransport(session, timeout=timeout))
    client.edge = client.region = None  # from TWILIO_EDGE and TWILIO_REGION; the URL says where Twilio is
    client.api.base_url = url
    return client


class Superseded(Exception):
    """Another worker has taken the delivery over, or it was settled meanwhile; the activity's next try will see."""


class SmsChannel:
    """Attempts at SMS deliveries.

    `sender` is a number or a messaging service (MG…); without a `client` all deliveries are deferred.
    `reconcile_after`: seconds that a lost SMS rests before Twilio is asked for it, so that a request in flight ends.
    """

    def __init__(
        self,
        registry: Registry,
        client: Client | None,
        renderer: Renderer,
        *,
        sender: str,
        concurrency: int,
        reconcile_after: float,
    ) -> None:
        self._registry = registry
        self._client = client
        self._renderer = renderer
        self._sender = sender
        self._concurrency = concurrency
        self._rest = timedelta(seconds=reconcile_after)
        #: Which attempt a SID belongs to, from the moment it is seen until the registry has it and beyond.
        self._claims: dict[str, tuple[str, int]] = {}
        #: Equal texts to one number go one after the other, or one could claim the SMS that another is just sending.
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    @activity.defn
    async def send_sms(self, chunk: Chunk) -> ChunkResult:
        """Attempt each delivery of the chunk that is not settled, by SMS; one that may be out is reconciled first."""
        return await send(
            chunk,
            channel=Channel.SMS,
            registry=self._registry,
            attempt=partial(self.attempt, begun=datetime.now(UTC), announce=self._registry.announce),
            concurrency=self._concurrency,
            intent=True,
        )

    async def attempt(
        self, due: Due, *, begun: datetime | None = None, announce: Callable[[Due], Awaitable[bool]] | None = None
    ) -> Outcome:
        """Send one SMS, unless Twilio has it already. `begun`: when this try of the activity began; None is now.

        `announce` has the last word before anything is sent; None for a delivery that nobody else can hold. Raises
        Superseded if it objects.
        """
        target = due.subscription.target
        assert isinstance(target, SmsTarget)
        # When the first attempt was announced whose outcome is not known yet, if any: an SMS may have gone out since.
        since = due.delivery.intent_at
        try:
            text = await self._renderer.sms(due.event, due.subscription)
        except TemplateInvalid as error:
            return self._not_ready(due, since, "template invalid", str(error))
        if self._client is None:
            return self._not_ready(due, since, "no SMS provider configured", "set the BELLWIRE_TWILIO_* variables")
        if since is not None:
            await asyncio.sleep(self._remaining_rest(due, begun or datetime.now(UTC)))
        turn = self._turns.setdefault((target.to, text), asyncio.Lock())
        async with turn:
            if since is not None and (outcome := await self._reconcile(self._client, due, target.to, text, since)):
                return outcome
            if announce is not None:
                await self._claim_attempt(due, announce)
            return await self._send(self._client, due, target.to, text)

    async def _claim_attempt(self, due: Due, announce: Callable[[Due], Awaitable[bool]]) -> None:
        """A worker that was frozen or cut off is taken for dead, and goes on later with what another has sent by then.

        Nor may it send late what it announced in time: who takes over waits `reconcile_after` and then asks Twilio.
        """
        before = datetime.now(UTC)
        if not await announce(due) or datetime.now(UTC) - before > max(self._rest, SHORTEST_REST):
            raise Superseded

    async def _send(self, client: Client, due: Due, to: str, text: str) -> Outcome:
        sender = {"messaging_service_sid" if self._sender.startswith("MG") else "from_": self._sender}
        try:
            message = await client.messages.create_async(to=to, body=text, **sender)
        except NotSent as error:
            return Outcome(kind=OutcomeKind.DEFERRED, reason=f"Twilio unreachable: {error}", ours=True)
        except AnswerLost as error:
            return _lost(f"Twilio: {error}")
        except TwilioException as error:
            return self._refused(due, error)
        if not message.sid:
            return _lost("Twilio: an answer without a SID")
        self._claim(message.sid, due)
        return _accepted(message, "Twilio 201")

    async def _reconcile(self, client: Client, due: Due, to: str, text: str, since: datetime) -> Outcome | None:
        """What became of an SMS that may have gone out at or after `since`; None if it did not."""
        try:
            found = await self._sent_since(client, to, text, since - CLOCK_SKEW)
        except (NotSent, AnswerLost) as error:
            return _lost(f"while reconciling, Twilio: {error}")
        except TwilioException as error:
            status, code, words = stated(error)
            if status is not None and ruling(status, code).operator:
                self._tell_operator(due, _reason(status, code))
            return _lost(f"while reconciling: {words}", wait=retry_after())
        taken = await self._registry.claimed_provider_ids([message.sid for message in found]) if found else set()
        mine = _claimant(due)
        free = [sms for sms in found if sms.sid not in taken and self._claims.get(sms.sid, mine) == mine]
        if not free:
            return None
        # Its own one first, or it would take another delivery's and leave that one without.
        message = min(free, key=lambda sms: (sms.sid not in self._claims, sms.date_created or since))
        self._claim(message.sid, due)
        return _accepted(message, f"Twilio {message.status}, reconciled")

    async def _sent_since(self, client: Client, to: str, text: str, since: datetime) -> list[Any]:
        """Twilio's messages with this text from our sender to this number, created at or after `since`.

        Not narrowed by DateSent: a message that still waits in Twilio's queue has none.
        """
        found: list[Any] = []
        page = await client.messages.page_async(to=to, page_size=LIST_PAGE)
        for _ in range(LIST_PAGES):
            messages = list(page)
            recent = [sms for sms in messages if sms.date_created is None or sms.date_created >= since]
            found += [sms for sms in recent if self._sender in {sms.from_, sms.messaging_service_sid}]
            page = await page.next_page_async() if recent else None
            if page is None:
                return [sms for sms in found if (sms.body or "").removeprefix(TRIAL_PREFIX).strip() == text.strip()]
        raise AnswerLost("too many messages to look through")

    def _refused(self, due: Due, error: TwilioException) -> Outcome:
        status, code, words = stated(error)
        judged = ruling(status, code) if status is not None else None
        if status is None or judged is None or judged.kind is OutcomeKind.UNKNOWN:
            return _lost(words, wait=retry_after())
        reason = _reason(status, code)
        if judged.operator:
            self._tell_operator(due, reason)
        wait = retry_after() if judged.kind is OutcomeKind.DEFERRED else None
        return Outcome(
            kind=judged.kind,
            reason=reason,
            retry_after=wait,
            disable=judged.disable,
            ours=not judged.number,
            answer=words[:MAX_ANSWER],
        )

    def _remaining_rest(self, due: Due, begun: datetime) -> float:
        """Seconds. After a killed worker it counts from `begun`: its intent is older than its last request."""
        rested_from = begun if due.delivery.state is DeliveryState.SENDING else due.delivery.updated_at
        left = rested_from + self._rest - datetime.now(UTC)
        return max(0.0, min(left, self._rest).total_seconds())

    def _not_ready(self, due: Due, since: datetime | None, reason: str, words: str) -> Outcome:
        self._tell_operator(due, reason, words)
        if since is not None:
            return _lost(f"{reason}: {words}")
        return Outcome(kind=OutcomeKind.DEFERRED, reason=reason, ours=True, answer=words[:MAX_ANSWER])

    def _tell_operator(self, due: Due, reason: str, detail: str = "") -> None:
        """One line at ERROR. Twilio's words are no `detail`: they may hold the number, and stay with the attempt."""
        ids = {"delivery": due.delivery.id, "subscription": due.subscription.id, "tenant": due.subscription.tenant}
        log.error("sms.obstructed", reason=reason, detail=detail, **ids)

    def _claim(self, sid: str, due: Due) -> None:
        self._claims[sid] = _claimant(due)
        while len(self._claims) > MAX_CLAIMS:
            del self._claims[next(iter(self._claims))]


def _claimant(due: Due) -> tuple[str, int]:
    return due.delivery.id, due.number


def _lost(words: str, *, wait: float | None = None) -> Outcome:
    return Outcome(kind=OutcomeKind.UNKNOWN, reason=LOST_REASON, retry_after=wait, answer=words[:MAX_ANSWER])


def _accepted(message: Any, reason: str) -> Outcome:
    """Delivered, as far as Bellwire follows an SMS; unless Twilio knows already that it will not be."""
    judged = BY_CODE.get(message.error_code) if message.status in {"failed", "undelivered"} else None
    if judged is None:
        return Outcome(kind=OutcomeKind.DELIVERED, reason=reason, provider_id=message.sid)
    return Outcome(
        kind=judged.kind,
        reason=f"Twilio {message.status} {message.error_code}",
        disable=judged.disable,
        ours=not judged.number,
        provider_id=message.sid,
    )


def _reason(status: int, code: int | None) -> str:
    return f"Twilio {status}" if code is None else f"Twilio {status} {code}"
