"""Any provider of SMS that takes them over HTTP, as the operator describes it."""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import aiohttp
from pydantic import SecretStr

from activities.sms.provider_config import (
    SECRETS,
    Auth,
    Description,
    at,
    filled,
)
from activities.sms.provider_http import (
    Answer,
    AnswerLost,
    NotSent,
    call,
    limits,
)
from activities.sms.providers import (
    SendResult,
    Sms,
    lost,
    unreachable,
)
from activities.sms.twilio_http import basic
from bellwire.deliveries import MAX_RESPONSE, Fault, Outcome, OutcomeKind
from bellwire.suppressions import SuppressionReason

#: What may stand in a reason of what a provider says: a short code, and nothing that could be a number of somebody.
_CODE = re.compile(r"(?!.*\d{7})[\w.:-]{1,40}", re.ASCII)
_MAX_ID = 200


class HttpProvider:
    """One described provider. `secrets`: by the names that descriptions give them, in small letters, without their prefix.

    Raises ValueError if the secret that it names is not there. The session stays the caller's to close.
    """

    def __init__(
        self,
        description: Description,
        session: aiohttp.ClientSession,
        *,
        secrets: Mapping[str, SecretStr],
    ) -> None:
        self.name = description.name
        #: Without a look-up, repeating under the same key is how to find out.
        self.repeats = description.lookup is None and description.idempotency_header is not None
        self._description = description
        self._session = session
        self._limits = limits(description.timeout)
        self._auth = _authorization(description.name, description.auth, secrets) if description.auth else {}

    def sender_of(self, sms: Sms) -> str:
        """A messaging service is Twilio's, and means nothing here."""
        named = sms.sender if sms.sender and not sms.sender.startswith("MG") else None
        return named or self._description.sender or ""

    async def send(self, sms: Sms) -> SendResult:
        this, values = self._description, self._values(sms)
        fields = filled(this.body.fields, values)
        form = this.body.format == "form"
        headers = {
            "Content-Type": "application/x-www-form-urlencoded" if form else "application/json",
            "Accept": "application/json",
            **filled(this.headers, values),
            **self._auth,
        }
        if this.idempotency_header is not None:
            headers[this.idempotency_header] = sms.reference
        try:
            answer = await call(
                self._session,
                this.method,
                filled(this.url, values, encoded=True),
                timeout=self._limits,
                headers=headers,
                data=(urlencode(fields) if form else json.dumps(fields)).encode(),
            )
        except NotSent as error:
            return unreachable(self.name, error)
        except AnswerLost as error:
            return lost(f"{self.name}: {error}")
        return self._judge(answer)

    async def find(self, sms: Sms, since: datetime) -> SendResult | None:  # noqa: ARG002 - a reference needs no time
        if self._description.lookup is not None:
            return await self._look_up(sms)
        if self.repeats:
            verdict = await self.send(sms)
            if verdict.outcome.kind in {OutcomeKind.DELIVERED, OutcomeKind.UNKNOWN} or verdict.suppress:
                return verdict
            # A refusal of the repetition says nothing about what went before.
            words = f"repeated: {verdict.outcome.reason}"
            return lost(words, wait=verdict.outcome.retry_after, obstacle=verdict.obstacle)
        return lost(f"{self.name} cannot be asked; describe a lookup or an idempotency_header")

    async def _look_up(self, sms: Sms) -> SendResult | None:
        lookup = self._description.lookup
        assert lookup is not None
        url = filled(lookup.url, self._values(sms), encoded=True)
        headers = {"Accept": "application/json", **self._auth}
        try:
            answer = await call(self._session, "GET", url, timeout=self._limits, headers=headers)
        except (NotSent, AnswerLost) as error:
            return lost(f"while reconciling, {self.name}: {error}")
        if answer.status in lookup.absent:
            return None
        document = _document(answer.text)
        if answer.status != 200 or document is None:
            obstacle = f"{self.name} look-up {answer.status}" if answer.status in {400, 401, 403, 404} else None
            words = f"while reconciling, {self.name} {answer.status}: {answer.text}"
            return lost(words, wait=answer.retry_after, obstacle=obstacle)
        found = _id(at(document, lookup.id))
        if found is None:
            return None
        return SendResult(
            outcome=Outcome(kind=OutcomeKind.DELIVERED, reason=f"{self.name} has it, reconciled", provider_id=found)
        )

    def _judge(self, answer: Answer) -> SendResult:
        meaning, status = self._description.answer, answer.status
        document = _document(answer.text)
        code = str(at(document, meaning.code)) if meaning.code and at(document, meaning.code) is not None else ""
        reason = f"{self.name} {status} {code}" if _CODE.fullmatch(code) else f"{self.name} {status}"
        final = status in meaning.rejected or code in meaning.dead | meaning.unsubscribed
        kind, outage, obstacle = OutcomeKind.REJECTED, False, None
        if status in meaning.accepted:
            kind, provider_id = self._judge_accepted(document)
            if kind is OutcomeKind.DELIVERED:
                return SendResult(outcome=Outcome(kind=kind, reason=reason, provider_id=provider_id))
        elif status in meaning.unknown:
            kind = OutcomeKind.UNKNOWN
        elif status == 429 or (status >= 500 and status not in meaning.rejected):
            kind, outage = OutcomeKind.DEFERRED, True
        elif status in meaning.retry:
            kind = OutcomeKind.DEFERRED
        elif (status < 400 or status in {401, 403, 404}) and not final:
            kind, obstacle = OutcomeKind.DEFERRED, reason
        if kind is OutcomeKind.UNKNOWN:
            return lost(f"{reason}: {answer.text}", wait=answer.retry_after)
        # Of other refusals nobody can tell whether they speak of the number, the text or us.
        gone = kind is OutcomeKind.REJECTED and code in meaning.dead
        outcome = Outcome(
            kind=kind,
            reason=reason,
            retry_after=answer.retry_after if kind is OutcomeKind.DEFERRED else None,
            disable=gone,
            fault=Fault.RECEIVER if gone else Fault.OPERATOR if obstacle else Fault.PROVIDER,
            response=answer.text[:MAX_RESPONSE],
        )
        suppress = self._suppression(code) if kind is OutcomeKind.REJECTED else None
        return SendResult(outcome=outcome, outage=outage, obstacle=obstacle, suppress=suppress)

    def _judge_accepted(self, document: Any) -> tuple[OutcomeKind, str | None]:
        """Some providers answer 200 whatever they think of it. What cannot be understood may have been accepted."""
        meaning = self._description.answer
        if meaning.result is not None:
            said = str(at(document, meaning.result))
            if said in meaning.rejected_results:
                return OutcomeKind.REJECTED, None
            if said in meaning.retry_results:
                return OutcomeKind.DEFERRED, None
            if said not in meaning.accepted_results:
                return OutcomeKind.UNKNOWN, None
        found = _id(at(document, meaning.id))
        return (OutcomeKind.DELIVERED, found) if found else (OutcomeKind.UNKNOWN, None)

    def _suppression(self, code: str) -> SuppressionReason | None:
        if code in self._description.answer.unsubscribed:
            return SuppressionReason.UNSUBSCRIBED
        return SuppressionReason.BOUNCED if code in self._description.answer.dead else None

    def _values(self, sms: Sms) -> dict[str, str]:
        return {
            "to": sms.to,
            "text": sms.text,
            "sender": self.sender_of(sms),
            "reference": sms.reference,
            "delivery": sms.delivery_id,
        }


def _authorization(name: str, auth: Auth, secrets: Mapping[str, SecretStr]) -> dict[str, str]:
    found = secrets.get(auth.secret.removeprefix(SECRETS).lower())
    if found is None or not (secret := found.get_secret_value()):
        raise ValueError(f"{auth.secret}: is not set, and provider {name} of BELLWIRE_SMS_PROVIDERS names it")
    if not (secret.isascii() and secret.isprintable()):
        raise ValueError(f"{auth.secret}: must be printable ASCII")
    if auth.kind == "basic":
        return basic((auth.username or "", secret))
    return {"Authorization": f"Bearer {secret}"} if auth.kind == "bearer" else {auth.header or "": secret}


def _document(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _id(value: Any) -> str | None:
    """Ids are texts or numbers; what is longer than any id is none."""
    is_one = isinstance(value, str | int) and not isinstance(value, bool)
    return str(value) if is_one and 0 < len(str(value)) <= _MAX_ID else None
