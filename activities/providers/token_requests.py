"""Requests for access tokens: providers differ in where the request goes and in the names of its fields."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import aiohttp

from activities.providers.accounts import Account
from activities.providers.answers import OPERATOR, TRANSIENT, Meaning
from activities.providers.http import call, limits, parse_object
from activities.providers.tokens import IssuedToken, Tokens, TokenUnavailable, issued_token
from bellwire.deliveries import Fault
from bellwire.registry import Registry

AnyAccount = TypeVar("AnyAccount", bound=Account)


@dataclass(frozen=True, kw_only=True)
class TokenRequest:
    """How one account gets a token. Give `query`, for a GET, or `body`, for a POST of JSON."""

    #: The provider, as people write it.
    name: str
    url: str
    #: What its codes mean; those that it lacks are the operator's to fix.
    codes: Mapping[int, Meaning]
    #: Seconds for the call.
    timeout: float
    query: Mapping[str, str] | None = field(default=None, repr=False)
    body: Mapping[str, object] | None = field(default=None, repr=False)
    #: The fields of the answer.
    token_field: str = "access_token"  # noqa: S105 - a name
    life_field: str = "expires_in"
    code_field: str = "errcode"


async def request_token(session: aiohttp.ClientSession, request: TokenRequest) -> IssuedToken:
    """Ask for a token. Raises TokenUnavailable, NotSent and ResponseLost."""
    response = await call(
        session,
        "POST" if request.query is None else "GET",
        request.url,
        timeout=limits(request.timeout),
        headers={} if request.body is None else {"Content-Type": "application/json; charset=utf-8"},
        params=request.query,
        data=None if request.body is None else json.dumps(request.body).encode(),
        # Without the query, which has the secret.
        shown=request.url,
    )
    document = parse_object(response.text)
    issued = issued_token(document.get(request.token_field), document.get(request.life_field))
    code = document.get(request.code_field, 0)
    if code == 0 and issued is not None:
        return issued
    is_number = isinstance(code, int) and not isinstance(code, bool)
    known = is_number and code not in {0, -1} and response.status < 500
    meaning = request.codes.get(code, OPERATOR) if known else TRANSIENT
    raise TokenUnavailable(
        f"{request.name} {code if known else response.status}",
        operator=meaning.fault is Fault.OPERATOR,
        retry_after=meaning.after(response.retry_after).wait,
    )


def tokens_by_account(
    session: aiohttp.ClientSession,
    registry: Registry,
    provider: str,
    accounts: Mapping[str, AnyAccount],
    request_of: Callable[[AnyAccount], TokenRequest],
) -> dict[str, Tokens]:
    """The tokens of each account, which come by its request."""
    return {
        name: Tokens(registry, provider, name, partial(request_token, session, request_of(account)))
        for name, account in accounts.items()
    }
