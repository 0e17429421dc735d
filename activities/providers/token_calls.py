"""Calls of a provider's API with an access token, and the outcome of an attempt that makes one."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from activities.providers.answers import (
    OPERATOR,
    TRANSIENT,
    UNKNOWN,
    Meaning,
    blocked,
    busy,
    by_server,
    is_page,
    outcome_of,
)
from activities.providers.http import NotSent, ProviderResponse, ResponseLost, number_of, parse_object
from activities.providers.tokens import Tokens, TokenUnavailable
from bellwire.deliveries import Outcome, OutcomeKind
from bellwire.sends import SendRequest

#: Longest code that a reason shows, in characters.
MAX_CODE = 40
#: What an operator does whose account gets no token.
TOKEN_REMEDY = (
    "check the ids and the secret of the account in BELLWIRE_ACCOUNTS, and the addresses that the provider allows"  # noqa: S105
)
#: Tokens after the first one that an attempt tries.
MAX_RENEWALS = 3
#: Why a call has no answer.
UNANSWERED = (TokenUnavailable, NotSent, ResponseLost)


@dataclass(frozen=True, kw_only=True)
class ApiAnswer:
    """The answer of a provider, and what it means."""

    meaning: Meaning
    #: The provider's code, or the HTTP status.
    code: str
    document: Mapping[str, Any] = field(default_factory=dict)
    text: str = field(default="", repr=False)
    #: The provider's id of what was sent.
    provider_id: str | None = None


def answer_of(
    response: ProviderResponse, field_name: str, codes: Mapping[int, Meaning], *, or_field: str = ""
) -> ApiAnswer:
    """The answer of an API that says with a number in a field whether it did what it was asked, mostly with status 200.

    Codes that `codes` lacks are the operator's to fix. `or_field`: where the number is if not in that field.
    """
    document = parse_object(response.text)
    code = number_of(document.get(field_name))
    if code is None:
        code = number_of(document.get(or_field))
    if code is None:
        # A proxy, or an outage: a document without the code says nothing about the message.
        meaning = busy(60) if response.status == 429 else TRANSIENT if response.status >= 300 else UNKNOWN
        return ApiAnswer(meaning=meaning.after(response.retry_after), code=str(response.status), text=response.shown)
    meaning = codes.get(code, OPERATOR)
    if meaning.kind is OutcomeKind.DELIVERED and response.status >= 300:
        meaning = UNKNOWN  # it says both
    meaning = by_server(meaning, response.status).after(response.retry_after)
    return ApiAnswer(meaning=meaning, code=str(code)[:MAX_CODE], document=document, text=response.shown)


def answer_of_status(
    response: ProviderResponse, statuses: Mapping[int, Meaning], other: Meaning = TRANSIENT, *, accepted: str = ""
) -> ApiAnswer:
    """The answer of an API that says with the HTTP status whether it did what it was asked.

    `accepted`: a field that the answer to an accepted message always has.
    """
    document, status = parse_object(response.text), response.status
    meaning = statuses.get(status, UNKNOWN if status < 300 else other)
    has_page = is_page(response.text)
    if status < 300 and (has_page or (accepted and accepted not in document)):
        meaning = UNKNOWN  # a proxy, or a page for people, may say 200
    elif has_page and meaning.kind is OutcomeKind.REJECTED and status != 413:
        meaning = OPERATOR  # the page of a proxy says nothing about the address or the message
    return ApiAnswer(
        meaning=meaning.after(response.retry_after), code=str(status), document=document, text=response.shown
    )


async def with_token(tokens: Tokens, call: Callable[[str], Awaitable[ApiAnswer]]) -> ApiAnswer:
    """Make the call with the account's token, and once more with a new one if the provider rejects it. Raises what `call` raises.

    A token that was got for another call may have died before it is used here, so the call goes on to the next one.
    """
    token = await tokens.current()
    answer = await call(token.token)
    for _ in range(MAX_RENEWALS):
        if not answer.meaning.renew:
            break
        token, is_new = await tokens.after(token)
        answer = await call(token.token)
        if is_new:
            break
    return answer


async def outcome_of_call(name: str, request: SendRequest, call: Awaitable[ApiAnswer]) -> Outcome:
    """The outcome of an attempt that makes this call. `name` is the provider's, as people write it."""
    try:
        answer = await call
    except UNANSWERED as error:
        meaning, reason = unanswered(name, error)
        return blocked(reason, TOKEN_REMEDY) if meaning is OPERATOR else outcome_of(meaning, reason, request)
    code = answer.code
    return outcome_of(answer.meaning, f"{name} {code}", request, response=answer.text, provider_id=answer.provider_id)


def unanswered(name: str, error: Exception) -> tuple[Meaning, str]:
    """What it means that a call has no answer, and the reason."""
    if isinstance(error, TokenUnavailable):
        meaning = OPERATOR if error.operator else TRANSIENT.after(error.retry_after)
        return meaning, f"{name} token: {error}"
    if isinstance(error, NotSent):
        return TRANSIENT, f"{name} unreachable: {error}"
    return UNKNOWN, f"{name}: {error}"
