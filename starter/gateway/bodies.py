"""Request bodies, read up to a maximum size."""

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Bytes of a body that are read, and thrown away, although the request is refused without them.
MAX_UNUSED = 16 * 1024 * 1024


class BodyTooLarge(Exception):
    """The request's body is larger than its resource allows."""


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The body. Raises BodyTooLarge; starlette's ClientDisconnect if the client hangs up."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > max_bytes:
            raise BodyTooLarge(f"at most {max_bytes:,} bytes are allowed")
    return bytes(body)


class WholeBodies:
    """Middleware that responds only when the body has arrived.

    Closing a connection with unread bytes resets it, and then most clients report that instead of the response, which says what
    is wrong. Larger bodies, and clients that ask first (`Expect: 100-continue`), are not waited for.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        has_body = b"content-length" in headers or b"transfer-encoding" in headers
        if scope["type"] != "http" or not has_body or b"expect" in headers:
            await self._app(scope, receive, send)
            return
        arrived = False

        async def follow() -> Message:
            nonlocal arrived
            message = await receive()
            arrived = not message.get("more_body", False)
            return message

        async def send_after_body(message: Message) -> None:
            if message["type"] == "http.response.start":
                unused = 0
                while not arrived and unused <= MAX_UNUSED:
                    unused += len((await follow()).get("body", b""))
            await send(message)

        await self._app(scope, follow, send_after_body)
