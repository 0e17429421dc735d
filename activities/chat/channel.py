"""ChatChannel: what all channels of chat providers do. A subclass per provider says what it posts and what the answers mean."""

import json
from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar, cast

import aiohttp

from activities.chat.content import ChatContent, chat_content
from activities.providers.accounts import Account
from activities.providers.answers import blocked, no_account, outcome_of, suppressed_outcome
from activities.providers.hooks import HookFailed, Hooks
from activities.providers.http import ProviderResponse, call, limits
from activities.providers.token_calls import ApiAnswer, outcome_of_call
from activities.rendering.renderer import Renderer
from bellwire.deliveries import Outcome
from bellwire.errors import TemplateInvalid
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.targets import ChannelTarget
from bellwire.targets.accounts import DEFAULT_ACCOUNT

AnyTarget = TypeVar("AnyTarget", bound=ChannelTarget)
AnyAccount = TypeVar("AnyAccount", bound=Account)


@dataclass(frozen=True, kw_only=True)
class ChatParts:
    """What chat channels are made of."""

    #: Posts to the URLs of tenants.
    hooks: Hooks
    #: Calls the APIs of providers.
    session: aiohttp.ClientSession
    renderer: Renderer
    registry: Registry


@dataclass(frozen=True, kw_only=True)
class HookPost:
    """A POST to a hook. Its URL is a credential."""

    url: str
    message: Mapping[str, object]


class ChatChannel(ABC, Generic[AnyTarget, AnyAccount]):
    """Posts to the hooks of rooms, and sends by the operator's `accounts` with the provider."""

    #: The provider, as people write it. In lower case, its section in BELLWIRE_ACCOUNTS.
    name: ClassVar[str]

    def __init__(self, parts: ChatParts, accounts: Mapping[str, AnyAccount]) -> None:
        self._parts, self._accounts = parts, accounts

    async def attempt(self, request: SendRequest) -> Outcome:
        """Send the message once. Whatever the provider does is an outcome, never an exception."""
        target = cast(AnyTarget, request.subscription.target)
        if outcome := suppressed_outcome(request):
            return outcome
        try:
            content = await chat_content(self._parts.renderer, request)
        except TemplateInvalid as error:
            return blocked(str(error))
        if (post := self.hook_post(target, content)) is not None:
            return await self._post(request, post)
        account_name = getattr(target, "account", DEFAULT_ACCOUNT)
        account = self._accounts.get(account_name)
        if account is None:
            return no_account(self.name, account_name)
        return await outcome_of_call(self.name, request, lambda: self.send(request, target, account, content))

    def hook_post(self, target: AnyTarget, content: ChatContent) -> HookPost | None:  # noqa: ARG002 - for subclasses
        """What is posted to the target's hook; None if an account sends to the target."""
        return None

    def read_hook(self, response: ProviderResponse) -> ApiAnswer:
        """What a hook's response means."""
        raise NotImplementedError

    async def send(
        self, request: SendRequest, target: AnyTarget, account: AnyAccount, content: ChatContent
    ) -> ApiAnswer:
        """Send by the account. Raises TokenUnavailable, NotSent and ResponseLost."""
        raise NotImplementedError

    async def call(
        self,
        account: AnyAccount,
        method: str,
        url: str,
        message: Mapping[str, object] | None = None,
        *,
        params: Mapping[str, str] | None = None,
        bearer: str | None = None,
        shown: str | None = None,
    ) -> ProviderResponse:
        """Call the provider's API with JSON; `bearer`: with this token. Raises NotSent and ResponseLost."""
        authorization = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
        return await call(
            self._parts.session,
            method,
            url,
            timeout=limits(account.timeout),
            headers={**authorization, "Content-Type": "application/json; charset=utf-8"},
            params=params,
            data=None if message is None else json.dumps(message, ensure_ascii=False).encode(),
            shown=shown,
        )

    async def _post(self, request: SendRequest, post: HookPost) -> Outcome:
        try:
            response = await self._parts.hooks.post(post.url, post.message, delivery=request.id)
        except HookFailed as failure:
            return failure.outcome
        answer = self.read_hook(response)
        return outcome_of(answer.meaning, f"{self.name} {answer.code}", request, response=answer.text)
