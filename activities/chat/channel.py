"""ChatChannel: what all channels of chat providers do. A subclass says what it posts and what the answers mean."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar, cast

from activities.chat.content import ChatContent, chat_content
from activities.providers.answers import blocked, outcome_of, suppressed_outcome
from activities.providers.hooks import HookFailed
from activities.providers.http import ProviderResponse
from activities.providers.parts import ProviderParts
from activities.providers.token_calls import ApiAnswer
from bellwire.deliveries import Outcome
from bellwire.errors import TemplateInvalid
from bellwire.sends import SendRequest
from bellwire.targets import ChannelTarget

AnyTarget = TypeVar("AnyTarget", bound=ChannelTarget)


@dataclass(frozen=True, kw_only=True)
class HookPost:
    """A POST to a hook. Its URL is a credential."""

    url: str
    message: Mapping[str, object]
    #: Those in the message, such as its signature.
    secrets: Sequence[str] = ()


class ChatChannel(ABC, Generic[AnyTarget]):
    """Posts to the hooks of rooms. Those that also send by accounts are AccountChannels."""

    #: The provider, as people write it.
    name: ClassVar[str]

    def __init__(self, parts: ProviderParts) -> None:
        self._parts = parts

    async def attempt(self, request: SendRequest) -> Outcome:
        """Send the message once. Whatever the provider does is an outcome, never an exception."""
        target = cast(AnyTarget, request.subscription.target)
        if outcome := suppressed_outcome(request):
            return outcome
        try:
            content = await chat_content(self._parts.renderer, request)
        except TemplateInvalid as error:
            return blocked(str(error))
        post = self.hook_post(target, content)
        return await (self._post(request, post) if post else self.send_by_account(request, target, content))

    @abstractmethod
    def hook_post(self, target: AnyTarget, content: ChatContent) -> HookPost | None:
        """What is posted to the target's hook; None if it has none."""

    def read_hook(self, response: ProviderResponse) -> ApiAnswer:
        """What a hook's response means."""
        raise NotImplementedError

    async def send_by_account(self, request: SendRequest, target: AnyTarget, content: ChatContent) -> Outcome:
        """Send to a target without a hook."""
        raise NotImplementedError

    async def _post(self, request: SendRequest, post: HookPost) -> Outcome:
        try:
            response = await self._parts.hooks.post(request, post.url, post.message, secrets=post.secrets)
        except HookFailed as failure:
            return failure.outcome
        answer = self.read_hook(response)
        name, code = self.name, answer.code
        return outcome_of(answer.meaning, f"{name} {code}", request, response=answer.text)
