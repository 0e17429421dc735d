"""EmailChannel: sends deliveries by SMTP, with an envelope of its own for each recipient.

The Message-ID is the same on each attempt, so that receivers can deduplicate a mail that was sent again after a lost reply.
Suppressed addresses are left out. An address is suppressed when the relay replies that its mailbox does not exist.
"""

import re

import structlog

from activities.email.attachments import Attachments, AttachmentUnavailable, Fetch
from activities.email.dkim import DkimSigner
from activities.email.message import Composer, Draft, ascii_domain
from activities.email.recipients import (
    RecipientOutcome,
    combine,
    defer_all,
    remaining_recipients,
    suppressed_outcomes,
)
from activities.email.relays import Relays
from activities.email.smtp_pool import SmtpPool
from activities.email.smtp_replies import ERRORS, Meaning, classify_smtp_error, reply_codes
from activities.rendering.renderer import Renderer
from bellwire.deliveries import MAX_RESPONSE, Fault, Outcome, OutcomeKind
from bellwire.email.return_path import ReturnPath
from bellwire.email.unsubscribe_links import UnsubscribeLinks
from bellwire.errors import TemplateInvalid
from bellwire.sends import SendRequest
from bellwire.suppressions import Suppression, SuppressionReason
from bellwire.targets import Channel, EmailTarget

log = structlog.get_logger("bellwire")

_QUEUED_AS = re.compile(r"queued as ([\w.-]{1,64})", re.IGNORECASE)


class EmailChannel:
    """Sends mails from `sender` ("Name <address>").

    `links` creates unsubscribe links, `signer` signs, `fetch` downloads attachments, `return_path` creates envelope senders.
    The constructor raises ValueError if `sender` is not a valid address.
    """

    def __init__(
        self,
        pool: SmtpPool | Relays,
        renderer: Renderer,
        *,
        sender: str,
        links: UnsubscribeLinks | None = None,
        signer: DkimSigner | None = None,
        fetch: Fetch | None = None,
        return_path: ReturnPath | None = None,
    ) -> None:
        self._pool, self._renderer = pool, renderer
        self._return_path = return_path
        self._composer = Composer(sender, links=links, signer=signer)
        self._attachments = Attachments(fetch)

    async def attempt(self, request: SendRequest) -> Outcome:
        """Send the mail to each recipient who does not have it yet. A refusal is an outcome, never an exception."""
        target = request.subscription.target
        if not isinstance(target, EmailTarget):
            return Outcome(
                kind=OutcomeKind.REJECTED, reason="target is no longer an email address", fault=Fault.OPERATOR
            )
        remaining = remaining_recipients(request, target.recipients)
        suppressed = suppressed_outcomes(request, remaining)
        if len(suppressed) == len(target.recipients):
            return suppressed[0].outcome
        try:
            text = await self._renderer.email(request)
        except TemplateInvalid as error:
            log.error("template.failed", delivery=request.id, reason=str(error))  # noqa: TRY400 - the reason says where
            return defer_all(request, str(error))
        message_id = f"<{request.id}@{self._composer.domain}>"
        try:
            async with self._attachments.load(
                request.event, tenant=request.subscription.tenant, wanted=target.attachments
            ) as found:
                draft = await self._composer.draft(
                    found.add_notice(text),
                    message_id=message_id,
                    subscription_id=request.subscription.id,
                    files=found.files,
                )
                sent = [
                    RecipientOutcome(recipient, await self._send(request, recipient, draft, message_id))
                    for recipient in remaining
                    if recipient not in request.suppressed
                ]
        except AttachmentUnavailable as unavailable:
            return defer_all(request, unavailable.reason)
        return combine([*sent, *suppressed], request, target.recipients)

    async def _send(self, request: SendRequest, recipient: str, draft: Draft, message_id: str) -> Outcome:
        sender = self._composer.address
        if self._return_path is not None:
            sender = self._return_path.sender(request.delivery.event_key, request.subscription.id, recipient)
        mail = await self._composer.compose(draft, recipient)
        try:
            reply = await self._pool.send(sender, ascii_domain(recipient), mail)
        except ERRORS as error:
            meaning, outcome = classify_smtp_error(error)
            if meaning is Meaning.GONE:
                gone = Suppression(
                    channel=Channel.EMAIL,
                    address=recipient,
                    reason=SuppressionReason.BOUNCED,
                    cause=outcome.reason.rpartition(" ")[2],
                )
                return outcome.model_copy(update={"suppress": (gone,)})
            if meaning is Meaning.OPERATOR:
                # Without the traceback, whose last line may contain an address.
                log.error("relay.refused", delivery=request.id, reason=outcome.reason)  # noqa: TRY400
            return outcome
        code, _, message = reply.partition(" ")
        queued = _QUEUED_AS.search(message)
        return Outcome(
            kind=OutcomeKind.DELIVERED,
            reason=f"SMTP {reply_codes(int(code), message)}",
            provider_id=queued[1] if queued else message_id,
            response=reply[:MAX_RESPONSE],
        )
