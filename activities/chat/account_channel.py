"""AccountChannel: a chat channel that also sends by the operator's accounts with the provider."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Generic, TypeVar, cast

from activities.chat.channel import AnyTarget, ChatChannel, HookPost
from activities.chat.content import ChatContent
from activities.providers.accounts import Account
from activities.providers.answers import DELIVERED, Meaning, no_account
from activities.providers.http import ProviderResponse, call, limits
from activities.providers.parts import ProviderParts
from activities.providers.token_calls import UNANSWERED, ApiAnswer, outcome_of_call, unanswered
from activities.sending.recalls import RecallAnswer
from bellwire.contract import RecallResult
from bellwire.deliveries import Delivery, Fault, Outcome, OutcomeKind
from bellwire.sends import SendRequest
from bellwire.targets import SPECS, ChannelTarget
from bellwire.targets.accounts import DEFAULT_ACCOUNT

AnyAccount = TypeVar("AnyAccount", bound=Account)

#: Between a provider's id of a message that can be changed, and the place where it is.
_AT = "@"
#: Kind and fault of an answer after which the same call may succeed.
_BUSY = (OutcomeKind.DEFERRED, Fault.PROVIDER)


class MessageGone(Exception):
    """The message cannot be changed any more: it was deleted, or it is too old."""


class TooLate(Exception):
    """The provider does not take the message back any more."""


class AccountChannel(ChatChannel[AnyTarget], Generic[AnyTarget, AnyAccount]):
    """Sends by `accounts`. Their section in BELLWIRE_ACCOUNTS is named after the channel.

    An event that replaces another changes the other one's message, if that is where its own would go.
    """

    #: Whether ids of messages are unique within a chat only.
    numbered_by_chat: ClassVar[bool] = False
    #: How long messages can be taken back, where the provider's refusal does not say that it is too late.
    recall_window: ClassVar[timedelta | None] = None

    def __init__(self, parts: ProviderParts, accounts: Mapping[str, AnyAccount]) -> None:
        super().__init__(parts)
        self._accounts = accounts

    def hook_post(self, target: AnyTarget, content: ChatContent) -> HookPost | None:  # noqa: ARG002 - for those with hooks
        return None

    async def send(
        self, request: SendRequest, target: AnyTarget, account: AnyAccount, content: ChatContent
    ) -> ApiAnswer:
        """Send a message. Raises TokenUnavailable, NotSent and ResponseLost."""
        raise NotImplementedError

    async def edit(self, target: AnyTarget, account: AnyAccount, content: ChatContent, message_id: str) -> ApiAnswer:
        """Change a message that `send` sent. Raises MessageGone, and what `send` raises."""
        raise NotImplementedError

    async def recall(self, target: AnyTarget, account: AnyAccount, message_id: str) -> ApiAnswer:
        """Take a message back. Raises MessageGone, TooLate, and what `send` raises."""
        raise NotImplementedError

    async def send_by_account(self, request: SendRequest, target: AnyTarget, content: ChatContent) -> Outcome:
        account_name = getattr(target, "account", DEFAULT_ACCOUNT)
        account = self._accounts.get(account_name)
        if account is None:
            return no_account(self.name, account_name, section=target.channel)
        if (message_id := message_at(target, request.replaced_id)) is not None:
            with suppress(MessageGone):
                edit = self._edit(target, account, content, message_id)
                return _of_edit(request, await outcome_of_call(self.name, request, edit))
        outcome = await outcome_of_call(self.name, request, self.send(request, target, account, content))
        if outcome.provider_id is None or not SPECS[target.channel].edits:
            return outcome
        return outcome.model_copy(update={"provider_id": f"{outcome.provider_id}{_AT}{_place(target)}"})

    async def take_back(self, target: ChannelTarget, delivery: Delivery) -> RecallAnswer:
        """Take back the message of a delivery. Whatever the provider does is an answer, never an exception."""
        if self.numbered_by_chat and message_at(target, delivery.provider_id) is None:
            return RecallAnswer(result=RecallResult.REFUSED, detail="the subscription's target was changed")
        account = self._accounts.get(getattr(target, "account", DEFAULT_ACCOUNT))
        if account is None:
            return RecallAnswer(result=RecallResult.REFUSED, detail=f"no {self.name} account")
        message_id = _without_place(target, delivery.provider_id or "")
        try:
            answer = await self.recall(cast(AnyTarget, target), account, message_id)
        except MessageGone:
            return RecallAnswer(result=RecallResult.TAKEN_BACK)
        except TooLate:
            return RecallAnswer(result=RecallResult.TOO_LATE)
        except UNANSWERED as error:
            return _recall_answer(*unanswered(self.name, error))
        is_late = self.recall_window is not None and datetime.now(UTC) - delivery.updated_at > self.recall_window
        return _recall_answer(answer.meaning, f"{self.name} {answer.code}", is_late=is_late)

    async def _edit(self, target: AnyTarget, account: AnyAccount, content: ChatContent, message_id: str) -> ApiAnswer:
        answer = await self.edit(target, account, content, message_id)
        return replace(answer, code="edited") if answer.meaning is DELIVERED else answer

    async def call(
        self,
        account: AnyAccount,
        method: str,
        url: str,
        message: Mapping[str, object] | None = None,
        *,
        params: Mapping[str, str] | None = None,
        bearer: str | None = None,
        headers: Mapping[str, str] | None = None,
        shown: str | None = None,
        secrets: Sequence[str] = (),
    ) -> ProviderResponse:
        """Call the provider's API with JSON; `bearer`: with this token. Raises NotSent and ResponseLost.

        `shown` is noted in place of a URL that contains one of `secrets`.
        """
        authorization = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
        return await call(
            self._parts.session,
            method,
            url,
            timeout=limits(account.timeout),
            headers={**authorization, **(headers or {}), "Content-Type": "application/json; charset=utf-8"},
            params=params,
            data=None if message is None else json.dumps(message, ensure_ascii=False).encode(),
            shown=shown,
            secrets=secrets,
        )


def message_at(target: ChannelTarget, provider_id: str | None) -> str | None:
    """The provider's id of a message that was sent to this target; None if it was sent before the target was changed."""
    message_id, _, place = (provider_id or "").rpartition(_AT)
    return message_id if message_id and place == _place(target) else None


def _without_place(target: ChannelTarget, provider_id: str) -> str:
    return provider_id.rpartition(_AT)[0] or provider_id if SPECS[target.channel].edits else provider_id


def _place(target: ChannelTarget) -> str:
    """Differs for two addresses, and shows none. Ids of messages may be equal in two chats."""
    return hashlib.sha256(target.address.encode()).hexdigest()[:8]


def _of_edit(request: SendRequest, outcome: Outcome) -> Outcome:
    """The outcome of changing a message. To change it twice does no harm, so a lost response is deferred."""
    if outcome.kind is OutcomeKind.DELIVERED:
        return outcome.model_copy(update={"provider_id": request.replaced_id})
    kind = OutcomeKind.DEFERRED if outcome.kind is OutcomeKind.UNKNOWN else outcome.kind
    return outcome.model_copy(update={"kind": kind})


def _recall_answer(meaning: Meaning, detail: str, *, is_late: bool = False) -> RecallAnswer:
    """What a provider's answer means for a recall. `is_late`: its refusals are for lateness."""
    if meaning.kind is OutcomeKind.DELIVERED:
        return RecallAnswer(result=RecallResult.TAKEN_BACK)
    if meaning.kind is OutcomeKind.UNKNOWN or (meaning.kind, meaning.fault) == _BUSY:
        return RecallAnswer(result=RecallResult.BUSY, detail=detail, wait=meaning.wait)
    return RecallAnswer(result=RecallResult.TOO_LATE if is_late else RecallResult.REFUSED, detail=detail)
