"""EmailChannel: deliveries by SMTP, each to every recipient in an envelope of its own.

The Message-ID is the same on each attempt, so that a mail which is sent again, because its answer was lost, is one mail to
whoever deduplicates. Addresses that are suppressed are left out, and one that the relay says nobody is at is suppressed.
"""

import re
from collections.abc import Sequence

import structlog
from temporalio import activity

from activities.email.attachments import Attachments, AttachmentUnavailable, Fetch
from activities.email.dkim import DkimSigner
from activities.email.message import Composer, Draft, ascii_domain
from activities.email.relays import Relays
from activities.email.smtp_pool import SmtpPool
from activities.email.smtp_replies import (
    ERRORS,
    Meaning,
    classify_smtp_error,
    reply_codes,
)
from activities.rendering.renderer import Renderer
from activities.sending.in_flight import InFlightAttempts
from activities.sending.loop import send
from bellwire.contract import Chunk, ChunkResult
from bellwire.deliveries import MAX_REASON, MAX_RESPONSE, Fault, Outcome, OutcomeKind
from bellwire.email.return_path import ReturnPath
from bellwire.email.unsubscribe_links import UnsubscribeLinks
from bellwire.errors import TemplateInvalid
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.suppressions import Suppression, SuppressionReason
from bellwire.targets import Channel, EmailTarget

log = structlog.get_logger("bellwire")

_DONE = {OutcomeKind.DELIVERED, OutcomeKind.REJECTED}
_QUEUED_AS = re.compile(r"queued as ([\w.-]{1,64})", re.IGNORECASE)


class EmailChannel:
    """Sends emails from `sender` ("Name <address>"), at most `concurrency` deliveries of a chunk at the same time.

    `links` are those by which recipients unsubscribe, `signer` signs, `fetch` gets files that events name, `return_path` is
    where mails come back to. Raises ValueError at once if `sender` is not an address.
    """

    def __init__(
        self,
        registry: Registry,
        pool: SmtpPool | Relays,
        renderer: Renderer,
        *,
        sender: str,
        concurrency: int,
        links: UnsubscribeLinks | None = None,
        signer: DkimSigner | None = None,
        fetch: Fetch | None = None,
        return_path: ReturnPath | None = None,
    ) -> None:
        #: Attempts that go on although the workflow task that began them has not waited.
        self.in_flight = InFlightAttempts(registry)
        self._registry, self._pool, self._renderer, self._concurrency = registry, pool, renderer, concurrency
        self._return_path = return_path
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
            in_flight=self.in_flight,
        )

    async def attempt(self, request: SendRequest) -> Outcome:
        """Send the mail to each recipient who is owed it. A relay that refuses is an outcome, never an exception."""
        target = request.subscription.target
        if not isinstance(target, EmailTarget):
            return Outcome(
                kind=OutcomeKind.REJECTED, reason="target is no longer an email address", fault=Fault.OPERATOR
            )
        remaining_recipients = _owed(request, target.recipients)
        unwanted = [
            (recipient, _suppressed(request, recipient))
            for recipient in remaining_recipients
            if recipient in request.suppressed
        ]
        if len(unwanted) == len(target.recipients):
            return unwanted[0][1]
        try:
            text = await self._renderer.email(request)
        except TemplateInvalid as error:
            log.error("template.failed", delivery=request.id, reason=str(error))  # noqa: TRY400 - it says where
            return _not_now(request, str(error))
        message_id = f"<{request.id}@{self._mail.domain}>"
        try:
            async with self._attachments.load(request.event, wanted=target.attachments) as found:
                draft = await self._mail.draft(
                    found.add_notice(text),
                    message_id=message_id,
                    subscription_id=request.subscription.id,
                    files=found.files,
                )
                made = [
                    (recipient, await self._send(request, recipient, draft, message_id))
                    for recipient in remaining_recipients
                    if recipient not in request.suppressed
                ]
        except AttachmentUnavailable as late:
            return _not_now(request, late.reason)
        return _together([*made, *unwanted], request, target.recipients)

    async def _send(self, request: SendRequest, recipient: str, draft: Draft, message_id: str) -> Outcome:
        address = ascii_domain(recipient)
        path = self._return_path
        sender = (
            path.sender(request.delivery.event_key, request.subscription.id, recipient) if path else self._mail.address
        )
        mail = await self._mail.compose(draft, recipient)
        try:
            answer = await self._pool.send(sender, address, mail)
        except ERRORS as error:
            meaning, outcome = classify_smtp_error(error)
            if meaning is Meaning.GONE:
                gone = Suppression(channel=Channel.EMAIL, address=recipient, reason=SuppressionReason.BOUNCED)
                return outcome.model_copy(update={"suppress": (gone,)})
            if meaning is Meaning.OPERATOR:
                # Without the traceback, whose last line may hold an address.
                log.error("relay.refused", delivery=request.id, reason=outcome.reason)  # noqa: TRY400
            return outcome
        code, _, words = answer.partition(" ")
        queued = _QUEUED_AS.search(words)
        return Outcome(
            kind=OutcomeKind.DELIVERED,
            reason=f"SMTP {reply_codes(int(code), words)}",
            provider_id=queued[1] if queued else message_id,
            response=answer[:MAX_RESPONSE],
        )


def _not_now(request: SendRequest, reason: str) -> Outcome:
    """Deferred before anything was sent: whoever is owed the mail still is, and whoever has it is not owed it again."""
    return Outcome(
        kind=OutcomeKind.DEFERRED,
        reason=reason[:MAX_REASON],
        fault=Fault.OPERATOR,
        remaining_recipients=request.delivery.remaining_recipients,
        provider_id=request.delivery.provider_id,
    )


def _owed(request: SendRequest, recipients: Sequence[str]) -> Sequence[str]:
    """Who is to get the mail now. If the target has changed since a partial refusal: all, rather twice than never."""
    remaining_recipients = request.delivery.remaining_recipients
    return remaining_recipients if remaining_recipients and set(remaining_recipients) <= set(recipients) else recipients


def _suppressed(request: SendRequest, recipient: str) -> Outcome:
    return Outcome(
        kind=OutcomeKind.REJECTED,
        reason=f"recipient suppressed: {request.suppressed[recipient]}",
        fault=Fault.OPERATOR,
    )


def _together(made: Sequence[tuple[str, Outcome]], request: SendRequest, recipients: Sequence[str]) -> Outcome:
    """One outcome out of one for each recipient.

    That someone accepted on an earlier attempt shows in the delivery's provider id, which only an acceptance sets.
    """
    if len(recipients) == 1:
        return made[0][1]
    accepted = [outcome for _, outcome in made if outcome.kind is OutcomeKind.DELIVERED]
    refused = [(recipient, outcome) for recipient, outcome in made if outcome.kind is OutcomeKind.REJECTED]
    remaining_recipients = [(recipient, outcome) for recipient, outcome in made if outcome.kind not in _DONE]
    before = request.delivery.provider_id if len(made) < len(recipients) else None
    provider_id = accepted[-1].provider_id if accepted else before
    notes = [f"{len(refused)} of {len(recipients)} refused: {refused[0][1].reason}"] if refused else []
    if remaining_recipients:
        notes.append(f"{len(remaining_recipients)} of {len(recipients)} owed: {remaining_recipients[0][1].reason}")
        lost = any(outcome.kind is OutcomeKind.UNKNOWN for _, outcome in remaining_recipients)
        kind = OutcomeKind.UNKNOWN if lost else OutcomeKind.DEFERRED
    else:
        kind = OutcomeKind.DELIVERED if provider_id else OutcomeKind.REJECTED
    nobody_is_left = len(refused) == len(recipients) and all(
        outcome.disable or recipient in request.suppressed for recipient, outcome in refused
    )
    return Outcome(
        kind=kind,
        reason="; ".join(notes)[:MAX_REASON] or accepted[0].reason,
        disable=nobody_is_left,
        fault=Fault.RECEIVER if kind is OutcomeKind.DELIVERED else _fault(made, accepted=bool(provider_id)),
        provider_id=provider_id,
        response="\n".join(f"{recipient}: {outcome.response or outcome.reason}" for recipient, outcome in made)[
            :MAX_RESPONSE
        ],
        remaining_recipients=tuple(recipient for recipient, _ in remaining_recipients)
        if 0 < len(remaining_recipients) < len(recipients)
        else None,
        suppress=tuple(suppression for _, outcome in made for suppression in outcome.suppress),
    )


def _fault(made: Sequence[tuple[str, Outcome]], *, accepted: bool) -> Fault:
    """Whose fault it is that not every recipient got the mail. Once one has `accepted` it, the subscription works."""
    faults = [outcome.fault for _, outcome in made if outcome.kind is not OutcomeKind.DELIVERED]
    others = [fault for fault in faults if not fault.counts_against_endpoint]
    if accepted:
        return others[0] if others else Fault.PROVIDER
    return others[0] if len(others) == len(faults) else Fault.RECEIVER
