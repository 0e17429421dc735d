"""EmailChannel: deliveries by SMTP, each to every recipient in an envelope of its own.

What the relay answers is translated here, once, by the two tables below. The Message-ID is the same on each attempt, so
that a mail which is sent again, because its answer was lost, is one mail to whoever deduplicates.
"""

import re
import ssl
from collections.abc import Sequence

import aiosmtplib
import structlog
from temporalio import activity

from activities.attachments import Attachments, Fetch, NotNow
from activities.dkim_signature import DkimSigner
from activities.flights import Flights
from activities.mail import Composer, Draft, ascii_domain
from activities.rendering import Renderer
from activities.sending import send
from activities.smtp import AnswerLost, SmtpPool
from bellwire.contract import Chunk, ChunkResult
from bellwire.deliveries import MAX_ANSWER, MAX_REASON, Due, Outcome, OutcomeKind
from bellwire.errors import TemplateInvalid
from bellwire.links import Links
from bellwire.registry import Registry
from bellwire.subscriptions import Channel, EmailTarget

log = structlog.get_logger("bellwire")

_GONE = "gone"  # rejected, and the subscription disabled
_REFUSED = "refused"  # rejected
_LATER = "later"  # deferred
_OURS = "ours"  # deferred, and the operator is told: not the recipient's fault

#: What an answer to RCPT or DATA means: the first pattern that matches "550 5.1.1" (RFC 5321 §4.2, RFC 3463).
_ANSWERS = tuple(
    (re.compile(pattern), meaning)
    for pattern, meaning in (
        (r"4..\b.*", _LATER),
        (r"53[0458]\b.*", _OURS),  # authentication
        (r"5.. 5\.7\..*", _OURS),  # policy: a blocked sender, no SPF, no DKIM
        (r"5.. 5\.1\.[78]", _OURS),  # the sender's address; many relays say so only after RCPT
        (r"5.. 4\..*", _LATER),
        (r"5.. 5\.2\.2", _LATER),  # mailbox full
        (r"5.. 5\.(1\..*|2\.1)", _GONE),
        (r"5..\b.*", _REFUSED),  # with 552 and 5.3.4, too large, among them
        (r".*", _LATER),
    )
)

#: What an error means that carries no answer. Looked up by the error's classes, the most derived first.
_FAILURES: dict[type[BaseException], tuple[str, str]] = {
    AnswerLost: ("unknown", "SMTP answer lost after DATA"),
    aiosmtplib.SMTPNotSupported: (_REFUSED, "address needs SMTPUTF8, which the relay lacks"),
    aiosmtplib.SMTPConnectTimeoutError: (_LATER, "SMTP connect timeout"),
    aiosmtplib.SMTPConnectError: (_LATER, "SMTP connect error"),
    aiosmtplib.SMTPReadTimeoutError: (_LATER, "SMTP timeout"),
    aiosmtplib.SMTPTimeoutError: (_LATER, "SMTP timeout"),
    aiosmtplib.SMTPServerDisconnected: (_LATER, "SMTP connection lost"),
    ssl.SSLError: (_OURS, "SMTP TLS handshake failed"),
    OSError: (_LATER, "SMTP connection error"),
    # aiosmtplib raises the bare class if the relay offers no STARTTLS, no AUTH or no method of AUTH that it knows.
    aiosmtplib.SMTPException: (_OURS, "SMTP relay lacks STARTTLS or AUTH"),
}
#: Errors that carry an answer to RCPT or DATA, when the relay has heard of the recipient.
_ABOUT_RECIPIENT = (aiosmtplib.SMTPRecipientRefused, aiosmtplib.SMTPDataError)
#: Answers about the relay itself, though it has heard of the recipient: going down, or of RFC 3463's class X.3.
_RELAY_ITSELF = re.compile(r"SMTP (421|... [245]\.3\.)")
_ERRORS = (aiosmtplib.SMTPException, AnswerLost, OSError)

_KINDS = {_GONE: OutcomeKind.REJECTED, _REFUSED: OutcomeKind.REJECTED, "unknown": OutcomeKind.UNKNOWN}
_DONE = {OutcomeKind.DELIVERED, OutcomeKind.REJECTED}
_ENHANCED = re.compile(r"\s*([245]\.\d{1,3}\.\d{1,3})\b")
_QUEUED_AS = re.compile(r"queued as ([\w.-]{1,64})", re.IGNORECASE)


def outcome_of(error: BaseException) -> Outcome:
    """What an error of `SmtpPool.send` means for the delivery."""
    return _judge(error)[1]


def _judge(error: BaseException) -> tuple[str, Outcome]:
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        error = error.recipients[0]
    theirs = False
    if isinstance(error, aiosmtplib.SMTPResponseException):
        meaning, reason = _meaning(error)
        theirs = isinstance(error, _ABOUT_RECIPIENT) and meaning != _OURS and not _RELAY_ITSELF.search(reason)
        answer: str | None = f"{error.code} {error.message}"[:MAX_ANSWER]
    else:
        cause = error.__cause__ if isinstance(error.__cause__, ssl.SSLError) else error
        meaning, reason = next(_FAILURES[kind] for kind in type(cause).__mro__ if kind in _FAILURES)
        answer = None
    kind = _KINDS.get(meaning, OutcomeKind.DEFERRED)
    return meaning, Outcome(kind=kind, reason=reason, disable=meaning == _GONE, ours=not theirs, answer=answer)


def _meaning(error: aiosmtplib.SMTPResponseException) -> tuple[str, str]:
    if not 200 <= error.code < 600:
        return _LATER, "SMTP malformed answer"
    line = _line(error.code, error.message)
    meaning = next(meaning for pattern, meaning in _ANSWERS if pattern.fullmatch(line))
    about_recipient = isinstance(error, _ABOUT_RECIPIENT)
    too_large = error.code == 552 or line.endswith(" 5.3.4")
    if not about_recipient and not too_large and meaning != _LATER:
        meaning = _OURS  # greeting, HELO, STARTTLS, AUTH, MAIL: the relay has not heard of the recipient yet
    return meaning, f"SMTP {line}"


def _line(code: int, message: str) -> str:
    enhanced = _ENHANCED.match(message)
    return f"{code} {enhanced[1]}" if enhanced else str(code)


class EmailChannel:
    """Sends emails from `sender` ("Name <address>"), at most `concurrency` deliveries of a chunk at the same time.

    `links` are those by which recipients unsubscribe, `signer` signs, `fetch` gets files that events name. Raises
    ValueError at once if `sender` is not an address.
    """

    def __init__(
        self,
        registry: Registry,
        pool: SmtpPool,
        renderer: Renderer,
        *,
        sender: str,
        concurrency: int,
        links: Links | None = None,
        signer: DkimSigner | None = None,
        fetch: Fetch | None = None,
    ) -> None:
        #: Attempts that go on although the workflow task that began them has not waited.
        self.flights = Flights(registry)
        self._registry, self._pool, self._renderer, self._concurrency = registry, pool, renderer, concurrency
        self._mail = Composer(sender, links=links, signer=signer)
        self._attachments = Attachments(fetch)

    @activity.defn
    async def send_email(self, chunk: Chunk) -> ChunkResult:
        """Attempt each delivery of the chunk that is not settled, by SMTP."""
        return await send(
            chunk,
            channel=Channel.EMAIL,
            registry=self._registry,
            attempt=self.attempt,
            concurrency=self._concurrency,
            flights=self.flights,
        )

    async def attempt(self, due: Due) -> Outcome:
        """Send the mail to each recipient who is owed it. A relay that refuses is an outcome, never an exception."""
        target = due.subscription.target
        if not isinstance(target, EmailTarget):
            return Outcome(kind=OutcomeKind.REJECTED, reason="target is no longer an email address", ours=True)
        try:
            text = await self._renderer.email(due.event, due.subscription)
        except TemplateInvalid as error:
            log.error("template.failed", delivery=due.delivery.id, reason=str(error))  # noqa: TRY400 - it says where
            return _not_now(due, str(error))
        message_id = f"<{due.delivery.id}@{self._mail.domain}>"
        try:
            async with self._attachments.of(due.event, wanted=target.attachments) as found:
                draft = await self._mail.draft(
                    found.told(text), message_id=message_id, subscription_id=due.subscription.id, files=found.files
                )
                made = [
                    (recipient, await self._send(due, recipient, draft, message_id))
                    for recipient in _owed(due, target.recipients)
                ]
        except NotNow as late:
            return _not_now(due, late.reason)
        return _together(made, due, target.recipients)

    async def _send(self, due: Due, recipient: str, draft: Draft, message_id: str) -> Outcome:
        address = ascii_domain(recipient)
        mail = await self._mail.compose(draft, recipient)
        try:
            answer = await self._pool.send(self._mail.address, address, mail)
        except _ERRORS as error:
            meaning, outcome = _judge(error)
            if meaning == _OURS:
                # Without the traceback, whose last line may hold an address.
                log.error("relay.refused", delivery=due.delivery.id, reason=outcome.reason)  # noqa: TRY400
            return outcome
        code, _, words = answer.partition(" ")
        queued = _QUEUED_AS.search(words)
        return Outcome(
            kind=OutcomeKind.DELIVERED,
            reason=f"SMTP {_line(int(code), words)}",
            provider_id=queued[1] if queued else message_id,
            answer=answer[:MAX_ANSWER],
        )


def _not_now(due: Due, reason: str) -> Outcome:
    """Deferred before anything was sent: whoever is owed the mail still is, and whoever has it is not owed it again."""
    return Outcome(
        kind=OutcomeKind.DEFERRED,
        reason=reason[:MAX_REASON],
        ours=True,
        owed=due.delivery.owed,
        provider_id=due.delivery.provider_id,
    )


def _owed(due: Due, recipients: Sequence[str]) -> Sequence[str]:
    """Who is to get the mail now. If the target has changed since a partial refusal: all, rather twice than never."""
    owed = due.delivery.owed
    return owed if owed and set(owed) <= set(recipients) else recipients


def _together(made: Sequence[tuple[str, Outcome]], due: Due, recipients: Sequence[str]) -> Outcome:
    """One outcome out of one for each recipient.

    That someone accepted on an earlier attempt shows in the delivery's provider id, which only an acceptance sets.
    """
    if len(recipients) == 1:
        return made[0][1]
    accepted = [outcome for _, outcome in made if outcome.kind is OutcomeKind.DELIVERED]
    refused = [outcome for _, outcome in made if outcome.kind is OutcomeKind.REJECTED]
    owed = [(recipient, outcome) for recipient, outcome in made if outcome.kind not in _DONE]
    before = due.delivery.provider_id if len(made) < len(recipients) else None
    provider_id = accepted[-1].provider_id if accepted else before
    notes = [f"{len(refused)} of {len(recipients)} refused: {refused[0].reason}"] if refused else []
    if owed:
        notes.append(f"{len(owed)} of {len(recipients)} owed: {owed[0][1].reason}")
        lost = any(outcome.kind is OutcomeKind.UNKNOWN for _, outcome in owed)
        kind = OutcomeKind.UNKNOWN if lost else OutcomeKind.DEFERRED
    else:
        kind = OutcomeKind.DELIVERED if provider_id else OutcomeKind.REJECTED
    return Outcome(
        kind=kind,
        reason="; ".join(notes)[:MAX_REASON] or accepted[0].reason,
        disable=len(refused) == len(recipients) and all(outcome.disable for outcome in refused),
        ours=kind is not OutcomeKind.DELIVERED
        and (
            bool(provider_id) or all(outcome.ours for _, outcome in made if outcome.kind is not OutcomeKind.DELIVERED)
        ),
        provider_id=provider_id,
        answer="\n".join(f"{recipient}: {outcome.answer or outcome.reason}" for recipient, outcome in made)[
            :MAX_ANSWER
        ],
        owed=tuple(recipient for recipient, _ in owed) if 0 < len(owed) < len(recipients) else None,
    )
