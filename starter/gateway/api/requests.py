"""What every request of the API gets: an id, and the fields that tell what its caller may still do."""

import re

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bellwire.events import uuid7

#: Ids that clients may give; others are replaced.
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")


#: Where the RateLimit fields of a response are in the scope of its request.
RATE_LIMIT = "rate_limit_headers"


class ResponseHeaders:
    """Gives each request an id, which the response has as X-Request-Id and problems and log lines name; and adds its RateLimit
    fields."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid7().hex
        scope["request_id"] = request_id

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                for name, value in scope.get(RATE_LIMIT, {}).items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)
