"""Requests for access tokens: providers differ in where the request goes and in the names of its fields."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar
from urllib.parse import urlencode

import aiohttp

from activities.providers.accounts import Account
from activities.providers.answers import OPERATOR, TRANSIENT, Meaning
from activities.providers.http import call, limits, number_of, parse_object
from activities.providers.tokens import IssuedToken, Tokens, TokenUnavailable, issued_token
from bellwire.deliveries import Fault
from bellwire.registry import Registry

AnyAccount = TypeVar("AnyAccount", bound=Account)


@dataclass(frozen=True, kw_only=True)
class TokenRequest:
    """How one account gets a token. Give `query`, for a GET, `body`, for a POST of JSON, or `form`, for one of OAuth 2."""

    #: The provider, as people write it.
    name: str
    url: str
    #: Seconds for the call.
    timeout: float
    #: What its codes mean; those that it lacks are the operator's to fix. OAuth 2 has none: the HTTP status says it.
    codes: Mapping[int, Meaning] = field(default_factory=dict)
    query: Mapping[str, str] | None = field(default=None, repr=False)
    body: Mapping[str, object] | None = field(default=None, repr=False)
    form: Mapping[str, str] | None = field(default=None, repr=False)
    #: The fields of the answer.
    token_field: str = "access_token"  # noqa: S105 - a name
    life_field: str = "expires_in"
    code_field: str = "errcode"


async def request_token(session: aiohttp.ClientSession, request: TokenRequest) -> IssuedToken:
    """Ask for a token. Raises TokenUnavailable, NotSent and ResponseLost."""
    data, kind = _content(request)
    response = await call(
        session,
        "POST" if request.query is None else "GET",
        request.url,
        timeout=limits(request.timeout),
        headers={} if kind is None else {"Content-Type": kind},
        params=request.query,
        data=data,
        # Without the query, which has the secret.
        shown=request.url,
    )
    document = parse_object(response.text)
    issued = issued_token(document.get(request.token_field), document.get(request.life_field))
    if request.form is not None:
        if issued is not None and response.status < 300:
            return issued
        # RFC 6749 §5.2
        raise TokenUnavailable(
            f"{request.name} {response.status}",
            operator=400 <= response.status < 429,
            retry_after=response.retry_after,
        )
    code = number_of(document.get(request.code_field))
    if issued is not None and code in {0, None}:
        return issued
    known = code not in {0, -1, None} and response.status < 500
    meaning = request.codes.get(code or 0, OPERATOR) if known else TRANSIENT
    raise TokenUnavailable(
        f"{request.name} {code if known else response.status}",
        operator=meaning.fault is Fault.OPERATOR,
        retry_after=meaning.after(response.retry_after).wait,
    )


def _content(request: TokenRequest) -> tuple[bytes | None, str | None]:
    """The request's body and its media type."""
    if request.form is not None:
        return urlencode(request.form).encode(), "application/x-www-form-urlencoded"
    if request.body is not None:
        return json.dumps(request.body).encode(), "application/json; charset=utf-8"
    return None, None


def tokens_by_account(
    session: aiohttp.ClientSession,
    registry: Registry,
    provider: str,
    accounts: Mapping[str, AnyAccount],
    request_of: Callable[[AnyAccount], TokenRequest],
) -> dict[str, Tokens]:
    """The tokens of each account, which come by its request."""
    return {
        name: Tokens(
            registry, provider, account.row_of_token(name), partial(request_token, session, request_of(account))
        )
        for name, account in accounts.items()
    }
