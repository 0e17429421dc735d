"""Refuses what no resource takes, before any of them sees it: bodies that are not strict JSON, and text that is not Unicode.

What it lets through can be stored in any database and be written into any response.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bellwire.errors import BellwireError
from bellwire.formats import media_types, strict_json
from starter.gateway.api.callers import KeyVerifier
from starter.gateway.api.problems import ApiProblem, ProblemType, problem_response, refused
from starter.gateway.api.publishing import PUBLISH
from starter.gateway.bodies import BodyTooLarge, read_body

PREFIX = "/v1/"
#: Bytes of a body; more than any resource takes.
MAX_BODY = 2 * 1024 * 1024
#: Levels of objects and lists within each other.
MAX_DEPTH = 100

_JSON = re.compile(r"application/([a-z0-9!#$&^_.-]+\+)?json")
#: NUL cannot be stored in PostgreSQL; half a surrogate pair cannot be written as UTF-8.
_BAD_CHARACTER = re.compile("[\x00\ud800-\udfff]")


class WellFormed:
    """Middleware around everything that reads a request."""

    def __init__(self, app: ASGIApp, *, verifier: KeyVerifier) -> None:
        self._app, self._verifier = app, verifier

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self._app(scope, receive, send)
            return
        # Outside the application's own handlers of exceptions.
        try:
            check_target(scope)
            if scope["method"] in {"POST", "PATCH", "PUT"} and scope["path"] != PUBLISH:
                receive = await self._checked(scope, receive)
        except ApiProblem as problem:
            await problem_response(Request(scope), problem)(scope, receive, send)
        except BellwireError as error:
            await problem_response(Request(scope), ApiProblem.of(error))(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _checked(self, scope: Scope, receive: Receive) -> Receive:
        """A body that can be read again. Raises ApiProblem, RegistryUnavailable."""
        request = Request(scope, receive)
        # Only who has a key makes the gateway read a body.
        await self._verifier.caller(request)
        try:
            body = await read_body(request, MAX_BODY)
        except BodyTooLarge as error:
            raise refused("body", str(error), kind=ProblemType.TOO_LARGE) from error
        if body:
            check_json(body, request.headers.get("content-type"))
        left = [body]

        async def receive_again() -> Message:
            return {"type": "http.request", "body": left.pop(), "more_body": False} if left else await receive()

        return receive_again


def check_target(scope: Scope) -> None:
    """Raises ApiProblem unless path and query are percent-encoded UTF-8 without NUL."""
    if _is_bad(unquote_to_bytes(scope.get("raw_path") or scope["path"])):
        raise refused("path", "is not percent-encoded UTF-8, or has NUL")
    # Bytes as characters, so that none is replaced.
    for name, value in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True, encoding="latin-1"):
        if _is_bad(name.encode("latin-1")):
            raise refused("query", "has a name that is not percent-encoded UTF-8, or has NUL")
        if _is_bad(value.encode("latin-1")):
            raise refused(name, "is not percent-encoded UTF-8, or has NUL")


def check_json(body: bytes, content_type: str | None) -> None:
    """Raises ApiProblem unless the body is JSON that every resource can handle."""
    essence = media_types.essence(content_type)
    if essence is None or not _JSON.fullmatch(essence):
        message = f"{essence[:100]} is not supported" if essence else "is missing"
        raise refused("Content-Type", message, remedy="send application/json", kind=ProblemType.UNSUPPORTED_MEDIA_TYPE)
    try:
        value = strict_json.loads(body.decode())
    except UnicodeDecodeError as error:
        raise refused("body", "is not UTF-8") from error
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        raise refused("body", f"is not valid JSON: {str(error)[:200]}") from error
    for place, text in _texts(value):
        if _BAD_CHARACTER.search(text):
            raise refused(".".join(place) or "body", "has NUL, or half a surrogate pair", remedy="remove the character")


class _Level(NamedTuple):
    place: tuple[str, ...]
    value: Any


def _texts(value: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text with its place; a name is at the place of its object. Raises ApiProblem if it is too deep."""
    levels = [_Level((), value)]
    while levels:
        place, value = levels.pop()
        if len(place) > MAX_DEPTH:
            raise _too_deep()
        match value:
            case str():
                yield place, value
            case list():
                levels += [_Level((*place, str(nth)), each) for nth, each in enumerate(value)]
            case dict():
                for name in value:
                    yield place, name
                levels += [_Level((*place, name), each) for name, each in value.items()]


def _too_deep() -> ApiProblem:
    return refused("body", f"has more than {MAX_DEPTH} levels of objects and lists within each other")


def _is_bad(raw: bytes) -> bool:
    try:
        return "\x00" in raw.decode()
    except UnicodeDecodeError:
        return True
