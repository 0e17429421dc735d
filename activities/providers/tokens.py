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
#: Seconds after a failure in which a token that is still valid is not replaced.
PAUSE_SECONDS = 10.0
#: Seconds for which a token may be used: the least, the most, and those of one that comes without.
MIN_LIFE, MAX_LIFE, ASSUMED_LIFE = 60.0, 30 * 86_400.0, 600.0

#: What headers and queries can carry.
_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}", re.ASCII)


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


def issued_token(token: Any, life: Any) -> IssuedToken | None:
    """The token of an answer, whatever its life is said to be; None if it is no token."""
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        return None
    if isinstance(life, str) and re.fullmatch("[0-9]{1,12}", life, re.ASCII):
        life = int(life)
    is_number = (
        isinstance(life, int | float) and not isinstance(life, bool) and (isinstance(life, int) or math.isfinite(life))
    )
    return IssuedToken(token=token, life=min(max(life, MIN_LIFE), MAX_LIFE) if is_number else ASSUMED_LIFE)


class Tokens:
    """The tokens of `account` with `provider`. `issue` asks the provider for one, and raises TokenUnavailable."""

    def __init__(
        self,
        registry: Registry,
        provider: str,
        account: str,
        issue: Callable[[], Awaitable[IssuedToken]],
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._registry, self._provider, self._account, self._issue = registry, provider, account, issue
        self._clock = clock
        self._known: StoredToken | None = None
        self._lock = asyncio.Lock()
        #: The last failure, and when it was.
        self._failure: Exception | None = None
        self._failed_at = -math.inf

    async def current(self) -> StoredToken:
        """The token to use now. Raises TokenUnavailable."""
        known = self._known
        if known is not None and not self._is_old(known):
            return known
        asked_at = time.monotonic()
        async with self._lock:
            known = self._known = await self._registry.provider_tokens.get(self._provider, self._account)
            if known is None or self._is_over(known):
                self._check_failed_since(asked_at)
                return await self._next(known)
            if self._is_old(known) and time.monotonic() - self._failed_at > PAUSE_SECONDS:
                # It is still valid: if another worker gets the next one, or there is none, this one does not wait.
                try:
                    return await self._claimed(known) or known
                except (TokenUnavailable, NotSent):
                    return known
            return known

    async def after(self, rejected: StoredToken) -> StoredToken:
        """The token after one that the provider rejected: another worker's, or a new one. Raises TokenUnavailable."""
        asked_at = time.monotonic()
        async with self._lock:
            if self._known is None or self._known.generation <= rejected.generation:
                self._known = await self._registry.provider_tokens.get(self._provider, self._account)
            if self._known is not None and self._known.generation > rejected.generation:
                return self._known
            self._check_failed_since(asked_at)
            return await self._next(rejected)

    def _check_failed_since(self, asked_at: float) -> None:
        """Those that waited while the provider was asked share its failure, or the last one would wait for many of them."""
        if self._failure is not None and self._failed_at >= asked_at:
            raise self._failure

    async def _next(self, known: StoredToken | None) -> StoredToken:
        """The token after this one, from the provider or from the worker that is getting it."""
        until = time.monotonic() + CLAIM.total_seconds()
        while True:
            if (new := await self._claimed(known)) is not None:
                return new
            stored = await self._registry.provider_tokens.get(self._provider, self._account)
            if stored is not None and stored.generation > (known.generation if known else 0):
                self._known = stored
                return stored
            if time.monotonic() > until:
                raise TokenUnavailable("no token within 30 s")
            await asyncio.sleep(LOOK_SECONDS)

    async def _claimed(self, known: StoredToken | None) -> StoredToken | None:
        """The token after this one, if no other worker is getting it."""
        tokens, caller, generation = self._registry.provider_tokens, uuid.uuid4().hex, known.generation if known else 0
        if not await tokens.claim(self._provider, self._account, generation=generation, by=caller, lasting=CLAIM):
            return None
        try:
            issued = await self._issue()
        except BaseException as error:
            await tokens.release(self._provider, self._account, by=caller)
            # Only the token was asked for: no message was sent.
            failure = TokenUnavailable(str(error)) if isinstance(error, ResponseLost) else error
            if isinstance(failure, TokenUnavailable | NotSent):
                self._failure, self._failed_at = failure, time.monotonic()
            raise failure from None
        expires_at = self._clock() + timedelta(seconds=issued.life)
        self._known = await tokens.store(
            self._provider, self._account, generation=generation, token=issued.token, expires_at=expires_at
        )
        log.info("provider.token_issued", provider=self._provider, account=self._account, generation=generation + 1)
        return self._known

    def _is_over(self, token: StoredToken) -> bool:
        return self._clock() >= token.expires_at

    def _is_old(self, token: StoredToken) -> bool:
        return self._clock() >= token.fetched_at + (token.expires_at - token.fetched_at) * REPLACED_AFTER
