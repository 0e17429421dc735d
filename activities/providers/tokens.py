"""Tokens: the access token of one account with a provider, shared by all workers.

A token is replaced at 90% of its life, or once a provider rejects it. One worker at a time asks the provider for the next one;
the others go on with the token that they have, or wait for the new one.
"""

import asyncio
import math
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from activities.providers.http import NotSent, ResponseLost
from bellwire.registry import Registry
from bellwire.registry.providers.tokens import StoredToken

log = structlog.get_logger("bellwire")

#: The part of a token's life after which it is replaced.
REPLACED_AFTER = 0.9
#: How long a worker may take to get a token before another one may ask, and seconds between looks while one waits for it.
CLAIM, LOOK_SECONDS = timedelta(seconds=30), 0.1
#: Seconds for which a worker does not ask again after a provider issued no token: many sends need it at the same time.
PAUSE_SECONDS = 5.0
#: The longest such pause, if the provider asks for one.
MAX_PAUSE_SECONDS = 60.0
#: Bounds in seconds of a token's life, whatever the provider says.
LIFE_BOUNDS = (1.0, 30 * 86_400.0)
#: The life of a token that comes without one.
ASSUMED_LIFE = 600.0
#: What a token is made of, since it is sent in headers and URLs.
_TOKEN = re.compile(r"[!-~]{1,8192}")


@dataclass(frozen=True, kw_only=True)
class IssuedToken:
    """A token as a provider issued it."""

    token: str
    #: Seconds from now for which it is valid.
    life: float

    def __repr__(self) -> str:
        return "IssuedToken(…)"


class TokenUnavailable(Exception):
    """The provider issued no token. The text is a reason without secrets, such as "WeCom 40001"."""

    def __init__(self, reason: str, *, operator: bool = False, retry_after: float | None = None) -> None:
        super().__init__(reason)
        #: Whether the operator has to fix it, such as a wrong secret or an address that is not on the provider's list.
        self.operator = operator
        self.retry_after = retry_after

    def again(self) -> "TokenUnavailable":
        """The same for another send."""
        return TokenUnavailable(str(self), operator=self.operator, retry_after=self.retry_after)


def issued_token(token: Any, life: Any) -> IssuedToken | None:
    """The token of an answer, however its life is written; None if it is no token."""
    if not isinstance(token, str) or not token:
        return None
    if isinstance(life, str) and re.fullmatch("[0-9]{1,12}", life, re.ASCII):
        life = int(life)
    is_number = isinstance(life, int) or (isinstance(life, float) and math.isfinite(life))
    return IssuedToken(token=token, life=life if is_number and not isinstance(life, bool) else ASSUMED_LIFE)


class Tokens:
    """The tokens of `account` (`Account.row_of_token`) with `provider`. `issue` asks for one, and raises TokenUnavailable."""

    def __init__(
        self,
        registry: Registry,
        provider: str,
        account: str,
        issue: Callable[[], Awaitable[IssuedToken]],
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry, self._provider, self._account, self._issue = registry, provider, account, issue
        self._clock, self._monotonic = clock, monotonic
        self._known: StoredToken | None = None
        #: The last failure, and until when no further token is asked for because of it.
        self._failure, self._paused_until = TokenUnavailable(""), 0.0
        self._lock = asyncio.Lock()

    async def current(self) -> StoredToken:
        """The token to use now. Raises TokenUnavailable."""
        known = self._known
        if known is not None and (not self._is_old(known) or (self._lock.locked() and not self._is_over(known))):
            return known
        async with self._lock:
            known = self._known = await self._registry.provider_tokens.get(self._provider, self._account)
            if known is None or self._is_over(known):
                return (await self._next(known))[0]
            if self._is_old(known):
                # It is still valid: this worker waits neither for another one that gets the next, nor for a provider that fails.
                with suppress(TokenUnavailable):
                    return await self._claimed(known) or known
            return known

    async def after(self, rejected: StoredToken) -> tuple[StoredToken, bool]:
        """The token after one that the provider rejected, and whether it was got by this call. Raises TokenUnavailable."""
        async with self._lock:
            if self._known is None or self._known.generation <= rejected.generation:
                self._known = await self._registry.provider_tokens.get(self._provider, self._account)
            if self._known is not None and self._known.generation > rejected.generation:
                return self._known, False
            return await self._next(rejected, is_rejected=True)

    async def _next(self, known: StoredToken | None, *, is_rejected: bool = False) -> tuple[StoredToken, bool]:
        """The token after this one, from the provider or from the worker that is getting it; and whether from the provider."""
        until = self._monotonic() + CLAIM.total_seconds()
        while True:
            if (new := await self._claimed(known, is_rejected=is_rejected)) is not None:
                return new, True
            stored = await self._registry.provider_tokens.get(self._provider, self._account)
            if stored is not None and stored.generation > (known.generation if known else 0):
                self._known = stored
                return stored, False
            if self._monotonic() > until:
                raise self._failed(TokenUnavailable("no token within 30 s"))
            await asyncio.sleep(LOOK_SECONDS)

    async def _claimed(self, known: StoredToken | None, *, is_rejected: bool = False) -> StoredToken | None:
        """The token after this one, if no other worker is getting it."""
        if self._monotonic() < self._paused_until:
            raise self._failure.again()
        tokens, caller, generation = self._registry.provider_tokens, uuid.uuid4().hex, known.generation if known else 0
        if not await tokens.claim(self._provider, self._account, generation=generation, by=caller, lasting=CLAIM):
            return None
        try:
            issued = await self._issued(known if is_rejected else None)
        except BaseException:
            await tokens.release(self._provider, self._account, by=caller)
            raise
        low, high = LIFE_BOUNDS
        expires_at = self._clock() + timedelta(seconds=min(max(issued.life, low), high))
        self._known = await tokens.store(
            self._provider, self._account, generation=generation, token=issued.token, expires_at=expires_at
        )
        if self._known is not None:
            name = self._account.partition("/")[0]
            log.info("provider.token_issued", provider=self._provider, account=name, generation=generation + 1)
        return self._known

    async def _issued(self, rejected: StoredToken | None) -> IssuedToken:
        """The provider's next token, which is not the rejected one. Raises TokenUnavailable."""
        try:
            issued = await self._issue()
        except TokenUnavailable as error:
            raise self._failed(error) from None
        except (NotSent, ResponseLost) as error:
            # Whatever became of this call, no message was sent.
            raise self._failed(TokenUnavailable(str(error))) from None
        if not _TOKEN.fullmatch(issued.token):
            raise self._failed(TokenUnavailable("invalid response"))
        if rejected is not None and issued.token == rejected.token:
            raise self._failed(TokenUnavailable("the rejected token again", operator=True))
        return issued

    def _failed(self, error: TokenUnavailable) -> TokenUnavailable:
        """The same error, which is raised for all sends until the pause is over."""
        pause = max(PAUSE_SECONDS, min(error.retry_after or 0.0, MAX_PAUSE_SECONDS))
        self._failure, self._paused_until = error, self._monotonic() + pause
        return error

    def _is_over(self, token: StoredToken) -> bool:
        return self._clock() >= token.expires_at

    def _is_old(self, token: StoredToken) -> bool:
        return self._clock() >= token.fetched_at + (token.expires_at - token.fetched_at) * REPLACED_AFTER
