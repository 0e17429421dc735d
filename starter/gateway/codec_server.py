"""The codec server: decrypts payloads for Temporal's CLI and UI, for users with a token.

Temporal's protocol: `POST /codec/encode` and `/codec/decode`, each with `{"payloads": […]}` as protobuf's JSON, and the
response in the same form. It decrypts any payload of its keys, so each request names the namespace and carries a token:
the CLI as `Authorization: Bearer`, the UI, which cannot, as a cookie that `/codec/login` sets.

No page of another origin can use that cookie: X-Namespace makes browsers send a preflight request first.
"""

import hmac
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import parse_qs

from google.protobuf.json_format import MessageToDict, Parse, ParseError
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from temporalio.api.common.v1 import Payload, Payloads

from bellwire.errors import NotReadable
from bellwire.service.settings import Settings
from bellwire.temporal.codec import Codec
from bellwire.temporal.connection import namespace
from starter.gateway.bodies import BodyTooLarge, read_body

#: Maximum bytes of a request. Temporal's own responses have up to 4 MB, which base64 makes a third larger.
MAX_BODY = 8_000_000
#: Seconds that a browser caches the response to a preflight request.
PREFLIGHT_SECONDS = 600

#: The cookie that holds a token, and the seconds it lasts: a working day.
COOKIE, COOKIE_SECONDS = "bellwire_codec", 43_200
#: Maximum bytes of a login.
MAX_LOGIN = 2_000

_FORM = """<!doctype html><html lang="en"><title>Bellwire</title><meta name="viewport" content="width=device-width">
<form method="post"><p><label>Token <input name="token" type="password" autocomplete="off" autofocus></label>
<button>Read encrypted runs</button></p><p>{message}</p></form></html>"""
_PAGE_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; form-action 'self'; frame-ancestors 'none'",
}
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

    def endpoint(
        convert: Callable[[Sequence[Payload]], Awaitable[Sequence[Payload]]],
    ) -> Callable[[Request], Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            try:
                _authenticate(request, tokens)
                _check_namespace(request, served)
                given = await _payloads(request)
                converted = Payloads(payloads=await convert(given.payloads))
            except _Refused as refusal:
                headers = {"www-authenticate": "Bearer"} if refusal.status == 401 else None
                return JSONResponse({"error": refusal.reason}, status_code=refusal.status, headers=headers)
            except NotReadable as error:
                return JSONResponse({"error": str(error)}, status_code=422)
            return JSONResponse(MessageToDict(converted))

        return respond

    async def login(request: Request) -> Response:
        if request.method != "POST":
            return _page("Enter one of BELLWIRE_CODEC_TOKENS.")
        try:
            body = await _body(request, MAX_LOGIN)
        except _Refused as refusal:
            return _page("Invalid token.", refusal.status)
        token = parse_qs(body.decode("latin-1")).get("token", [""])[0].strip()
        if not _known(token, tokens):
            return _page("Invalid token.", 401)
        page = _page("Temporal's UI can now show encrypted data. You can close this page.")
        https = request.url.scheme == "https"
        page.set_cookie(
            COOKIE,
            token,
            max_age=COOKIE_SECONDS,
            path="/codec",
            httponly=True,
            secure=https,
            # The UI is usually on another site. Browsers send such cookies over https only.
            samesite="none" if https else "lax",
        )
        return page

    return [
        Mount(
            "/codec",
            routes=[
                Route("/encode", endpoint(codec.encode), methods=["POST"]),
                Route("/decode", endpoint(codec.decode), methods=["POST"]),
                Route("/login", login, methods=["GET", "POST"]),
            ],
            middleware=[
                Middleware(
                    CORSMiddleware,
                    allow_origins=settings.codec_origins,
                    allow_methods=["POST"],
                    allow_headers=_HEADERS,
                    allow_credentials=True,
                    max_age=PREFLIGHT_SECONDS,
                )
            ],
        )
    ]


def _authenticate(request: Request, tokens: Sequence[str]) -> None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    given = token.strip() if scheme.lower() == "bearer" else request.cookies.get(COOKIE, "")
    if not _known(given, tokens):
        raise _Refused(401, "a token is needed: Authorization: Bearer <one of BELLWIRE_CODEC_TOKENS>")


def _known(token: str, tokens: Sequence[str]) -> bool:
    # All are compared, so that the response time reveals nothing about a token.
    return sum(hmac.compare_digest(token.encode(), known.encode()) for known in tokens) > 0


def _page(message: str, status: int = 200) -> Response:
    return HTMLResponse(_FORM.format(message=message), status_code=status, headers=_PAGE_HEADERS)


def _check_namespace(request: Request, served: str) -> None:
    if request.headers.get("x-namespace") != served:
        raise _Refused(403, f"X-Namespace: must be {served}, the namespace of this gateway (TEMPORAL_NAMESPACE)")


async def _body(request: Request, max_bytes: int) -> bytes:
    try:
        return await read_body(request, max_bytes)
    except BodyTooLarge as error:
        raise _Refused(413, f"{error}; send fewer payloads at a time") from error


async def _payloads(request: Request) -> Payloads:
    body = await _body(request, MAX_BODY)
    try:
        return Parse(body, Payloads(), ignore_unknown_fields=True)
    except (ParseError, UnicodeDecodeError, RecursionError) as error:
        raise _Refused(
            400, 'the body must be {"payloads": […]}, as Temporal\'s remote codec protocol defines'
        ) from error
