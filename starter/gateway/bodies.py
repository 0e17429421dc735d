"""Request bodies, read up to a maximum size."""

from starlette.requests import Request


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
