"""The codec server: lets Temporal's CLI and UI show what is encrypted, to those who have a token.

Temporal's protocol: `POST /codec/encode` and `/codec/decode`, each with `{"payloads": […]}` as protobuf's JSON, and the
answer in the same form. It decrypts whatever it is given, so each request names the namespace and carries a token.
"""

import hmac
from collections.abc import Awaitable, Callable, Sequence

from google.protobuf.json_format import MessageToDict, Parse, ParseError
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from temporalio.api.common.v1 import Payload, Payloads

from bellwire.codec import Codec
from bellwire.connection import namespace
from bellwire.errors import NotReadable
from bellwire.settings import Settings

#: Bytes of a request. Temporal's own answers have up to 4 MB, which base64 makes a third larger.
MAX_BODY = 8_000_000
#: Seconds that a browser remembers what another origin may ask.
PREFLIGHT_SECONDS = 600

_HEADERS = ("authorization", "content-type", "x-namespace")


class _Refused(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


def codec_routes(settings: Settings) -> Sequence[BaseRoute]:
    """`/codec`, if there are tokens for it. Raises TemporalUnavailable if Temporal's configuration cannot be read."""
    if settings.ring is None or not settings.tokens:
        return ()
    codec, tokens, served = Codec(settings.ring), settings.tokens, namespace()

    def through(
        work: Callable[[Sequence[Payload]], Awaitable[Sequence[Payload]]],
    ) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                _authenticate(request, tokens)
                _check_namespace(request, served)
                given = await _payloads(request)
                done = Payloads(payloads=await work(given.payloads))
            except _Refused as refusal:
                headers = {"www-authenticate": "Bearer"} if refusal.status == 401 else None
                return JSONResponse({"error": refusal.reason}, status_code=refusal.status, headers=headers)
            except NotReadable as error:
                return JSONResponse({"error": str(error)}, status_code=422)
            return JSONResponse(MessageToDict(done))

        return answer

    return [
        Mount(
            "/codec",
            routes=[
                Route("/encode", through(codec.encode), methods=["POST"]),
                Route("/decode", through(codec.decode), methods=["POST"]),
            ],
            middleware=[
                Middleware(
                    CORSMiddleware,
                    allow_origins=settings.codec_origins,
                    allow_methods=["POST"],
                    allow_headers=_HEADERS,
                    max_age=PREFLIGHT_SECONDS,
                )
            ],
        )
    ]


def _authenticate(request: Request, tokens: Sequence[str]) -> None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    # All are compared, so that the time says nothing either about which one came close.
    good = [hmac.compare_digest(token.strip().encode(), known.encode()) for known in tokens]
    if scheme.lower() != "bearer" or not any(good):
        raise _Refused(401, "a token is needed: Authorization: Bearer <one of BELLWIRE_CODEC_TOKENS>")


def _check_namespace(request: Request, served: str) -> None:
    asked = request.headers.get("x-namespace")
    if asked != served:
        raise _Refused(403, f"X-Namespace: must be {served}, the namespace of this gateway (TEMPORAL_NAMESPACE)")


async def _payloads(request: Request) -> Payloads:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise _Refused(413, f"a request may have {MAX_BODY:,} bytes; ask for fewer payloads at a time")
    try:
        return Parse(bytes(body), Payloads(), ignore_unknown_fields=True)
    except (ParseError, UnicodeDecodeError, RecursionError) as error:
        raise _Refused(400, 'the body must be {"payloads": […]}, as Temporal\'s remote codecs take it') from error
