"""Callers: which API key a request has, and what its scope allows."""

import time
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Annotated, NamedTuple

from fastapi import Request, Security
from fastapi.security import HTTPBearer

from bellwire.keys.api_keys import Scope, api_key_hash, is_well_formed
from bellwire.registry import Registry
from bellwire.registry.api.api_keys import USE_RESOLUTION, ApiKey
from bellwire.registry.db.auditing import Actor
from starter.gateway.api.problems import ApiProblem, ProblemType

#: Seconds for which a process trusts what it read about a key. A revoked key is refused after that.
TRUST_SECONDS = 3.0
#: Keys that a process remembers, those that do not exist included.
MAX_REMEMBERED = 10_000

_CHALLENGE = {"www-authenticate": 'Bearer realm="bellwire"'}


class Caller(NamedTuple):
    """Who sent a request."""

    key_id: str
    scope: Scope
    #: The address that the request came from.
    address: str

    @property
    def actor(self) -> Actor:
        return Actor(self.key_id, self.address)

    @property
    def tenant(self) -> str | None:
        """The only tenant whose resources the caller may see; None: all."""
        return self.scope.tenant


class _Remembered(NamedTuple):
    key: ApiKey | None
    until: float


class KeyVerifier:
    """Reads keys from the registry, and remembers them for TRUST_SECONDS."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._remembered: OrderedDict[str, _Remembered] = OrderedDict()
        self._uses_recorded: dict[str, float] = {}

    async def caller(self, request: Request) -> Caller:
        """Raises ApiProblem without a usable key; RegistryUnavailable."""
        kind, _, text = request.headers.get("authorization", "").partition(" ")
        if not text:
            raise ApiProblem(ProblemType.UNAUTHENTICATED, "send it as `Authorization: Bearer bw_…`", headers=_CHALLENGE)
        key = await self._find(text.strip()) if kind.lower() == "bearer" else None
        if key is None or not key.is_usable(datetime.now(UTC)):
            raise ApiProblem(
                ProblemType.UNAUTHENTICATED,
                "the API key is mistyped, revoked, expired or from another installation",
                headers=_CHALLENGE,
            )
        await self._record_use(key)
        return Caller(key.id, key.scope, request.client.host if request.client else "")

    async def _find(self, text: str) -> ApiKey | None:
        if not is_well_formed(text):
            return None
        key_hash, now = api_key_hash(text), time.monotonic()
        remembered = self._remembered.get(key_hash)
        if remembered and now < remembered.until:
            return remembered.key
        key = await self._registry.api_keys.find(text)
        self._remembered[key_hash] = _Remembered(key, now + TRUST_SECONDS)
        self._remembered.move_to_end(key_hash)
        while len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return key

    async def _record_use(self, key: ApiKey) -> None:
        now = time.monotonic()
        if now - self._uses_recorded.get(key.id, -USE_RESOLUTION.total_seconds()) < USE_RESOLUTION.total_seconds():
            return
        self._uses_recorded[key.id] = now
        await self._registry.api_keys.record_use(key.id, datetime.now(UTC))


#: Declares the scheme in the OpenAPI document; KeyVerifier checks the key, since it responds with problems.
_BEARER = HTTPBearer(auto_error=False, description="An API key: `bw_` and 38 letters and digits.", scheme_name="ApiKey")


async def authenticated(request: Request, _: Annotated[object, Security(_BEARER)]) -> Caller:
    """The caller of a request, whatever its scope."""
    verifier: KeyVerifier = request.app.state.verifier
    caller = await verifier.caller(request)
    request.state.caller = caller
    return caller
