"""Idempotency-Key (draft-ietf-httpapi-idempotency-key-header): a POST that is sent again gets the first response again.

Publishing needs none: an event's source and id are its key.
"""

import hashlib
import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bellwire.errors import BellwireError
from bellwire.registry import Registry
from bellwire.registry.api.idempotency import Claim, StoredResponse
from starter.gateway.api.callers import KeyVerifier
from starter.gateway.api.problems import ApiProblem, ProblemType, problem_response, refused
from starter.gateway.api.publishing import PUBLISH
from starter.gateway.bodies import read_body
from starter.gateway.well_formed import MAX_BODY

FIELD = "Idempotency-Key"
#: A key: a string of structured fields, with or without its quotes.
_KEY = re.compile(r'"?([\x21\x23-\x5b\x5d-\x7e]{1,255})"?')
#: Set in the scope of a request whose response has a secret that must not be stored.
SECRET = "response_has_secret"  # noqa: S105 - names a flag
#: Responses that say nothing about the request itself, so that it may be sent again with the same key.
_PASSING = {401, 403, 408, 429}


class IdempotencyKeys:
    """Middleware within the API."""

    def __init__(self, app: ASGIApp, *, registry: Registry, verifier: KeyVerifier) -> None:
        self._app, self._registry, self._verifier = app, registry, verifier

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] == PUBLISH:
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("idempotency-key")
        if given is None:
            await self._app(scope, receive, send)
            return
        # Outside the application's own handlers of exceptions.
        try:
            await self._once(given, scope, receive, send)
        except ApiProblem as problem:
            await problem_response(Request(scope), problem)(scope, receive, send)
        except BellwireError as error:
            await problem_response(Request(scope), ApiProblem.of(error))(scope, receive, send)

    async def _once(self, given: str, scope: Scope, receive: Receive, send: Send) -> None:
        key = _KEY.fullmatch(given.strip())
        if key is None:
            raise refused(FIELD, "must be 1 to 255 visible ASCII characters")
        caller = await self._verifier.caller(Request(scope))
        body = await read_body(Request(scope, receive), MAX_BODY)
        request = "\n".join((scope["path"], scope["query_string"].decode("latin-1"), hashlib.sha256(body).hexdigest()))
        fingerprint = hashlib.sha256(request.encode()).hexdigest()
        claim = await self._registry.idempotency.claim(caller.key_id, key[1], fingerprint)
        if not claim.is_first:
            await _repeated(claim)(scope, receive, send)
            return
        response: StoredResponse | None = None
        try:
            response = await self._execute(body, scope, receive, send)
        finally:
            await self._registry.idempotency.complete(caller.key_id, key[1], response)

    async def _execute(self, body: bytes, scope: Scope, receive: Receive, send: Send) -> StoredResponse | None:
        """Execute the request and return the response to store, if any."""
        status, content_type, sent = 0, "", bytearray()
        delivered = False

        async def receive_again() -> Message:
            nonlocal delivered
            if delivered:
                return await receive()
            delivered = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def record(message: Message) -> None:
            nonlocal status, content_type
            if message["type"] == "http.response.start":
                status = message["status"]
                content_type = MutableHeaders(scope=message).get("content-type", "")
            elif message["type"] == "http.response.body":
                sent.extend(message.get("body", b""))
            await send(message)

        await self._app(scope, receive_again, record)
        if status >= 500 or status in _PASSING:
            return None
        return StoredResponse(status, "" if scope.get(SECRET) else sent.decode(), content_type)


def _repeated(claim: Claim) -> Response:
    if not claim.is_same:
        raise refused(
            FIELD,
            "its first request had another path or body",
            remedy="use a new key for a new request",
            kind=ProblemType.IDEMPOTENCY_KEY_REUSED,
        )
    if claim.response is None:
        detail = "the first request with this idempotency key is in progress; try again in a second"
        raise ApiProblem(ProblemType.CONFLICT, detail, headers={"retry-after": "1"})
    if not claim.response.body and claim.response.status in {200, 201}:
        raise ApiProblem(
            ProblemType.CONFLICT,
            "the first request with this idempotency key succeeded; its response had a secret or an erased recipient, and is not "
            "stored",
        )
    headers = {"idempotency-replayed": "true"}
    return Response(
        claim.response.body, claim.response.status, headers=headers, media_type=claim.response.content_type or None
    )
