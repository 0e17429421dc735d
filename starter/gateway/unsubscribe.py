"""Unsubscribe pages: where the link in a mail leads (RFC 8058), for mail clients that post it and people who open it.

The link suffices: no cookie, no login, no redirect. Opening it changes nothing, since scanners open every link of a mail;
the page has a button that posts. A bad token gets the same response whatever is wrong with it.
"""

import base64
import hashlib
from email import message_from_bytes
from urllib.parse import parse_qs

import structlog
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from bellwire.email.unsubscribe_links import ONE_CLICK, UNSUBSCRIBE, LinkKeys
from bellwire.errors import BellwireError
from bellwire.registry import Registry
from starter.gateway.bodies import BodyTooLarge, read_body
from starter.operations.subscribers import unsubscribing

log = structlog.get_logger("bellwire")

#: Maximum bytes of a posted form. The expected one has 30, or 300 as multipart.
MAX_FORM = 4096

_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:32em;margin:4em auto;padding:0 1em}button{font:inherit;padding:.5em 1em}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
#: The page is not cached, indexed or framed, runs no script, and does not pass its token on as a referrer.
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "referrer-policy": "no-referrer",
    "strict-transport-security": "max-age=31536000",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "x-robots-tag": "noindex, nofollow",
}
_BUTTON = (
    f'<form method="post"><input type="hidden" name="{ONE_CLICK[0]}" value="{ONE_CLICK[1]}">'
    "<button>Unsubscribe</button></form>"
)


def routes(keys: LinkKeys, registry: Registry) -> list[Route]:
    """The routes of unsubscribe links; `keys` verify them."""

    async def ask(request: Request) -> Response:
        if keys.read(request.path_params["token"]) is None:
            return _not_found()
        return _page("Unsubscribe", f"<p>Do you want no more of these emails?</p>{_BUTTON}")

    async def unsubscribe(request: Request) -> Response:
        wanted = keys.read(request.path_params["token"])
        if wanted is None:
            return _not_found()
        try:
            form = await read_body(request, MAX_FORM)
        except BodyTooLarge:
            form = b""
        if not _one_click(form, request.headers.get("content-type", "")):
            return _page("Invalid request", f"<p>Please use the button.</p>{_BUTTON}", status=400)
        try:
            suppressed = await unsubscribing.unsubscribe(registry, wanted)
        except BellwireError as error:
            log.error("unsubscribing.failed", subscription=wanted.subscription_id, error=type(error).__name__)  # noqa: TRY400
            later = "<p>This does not work at the moment. Please try again in a few minutes.</p>"
            return _page("Try again later", later + _BUTTON, status=503, more={"retry-after": "120"})
        if suppressed:
            log.info("recipient.unsubscribed", subscription=wanted.subscription_id)
        return _page("Unsubscribed", "<p>You will get no more of these emails.</p>")

    path = UNSUBSCRIBE + "{token}"
    return [Route(path, ask, methods=["GET"]), Route(path, unsubscribe, methods=["POST"])]


def _one_click(form: bytes, content_type: str) -> bool:
    """Whether the form has List-Unsubscribe=One-Click, in either encoding that RFC 8058 §3.2 allows."""
    name, value = ONE_CLICK
    if content_type.lower().startswith("multipart/form-data"):
        head = f"Content-Type: {content_type}\r\nMIME-Version: 1.0\r\n\r\n".encode("latin-1", "replace")
        return any(
            part.get_param("name", header="content-disposition") == name
            and (part.get_payload(decode=True) or b"").strip() == value.encode()  # type: ignore[union-attr]
            for part in message_from_bytes(head + form).walk()
            if not part.is_multipart()
        )
    # Some clients omit the content type.
    return value in parse_qs(form.strip().decode("latin-1")).get(name, [])


def _not_found() -> Response:
    return _page("Not found", "<p>This link does not work. It may be incomplete: copy all of it.</p>", status=404)


def _page(title: str, body: str, *, status: int = 200, more: dict[str, str] | None = None) -> Response:
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><h1>{title}</h1>{body}</body></html>"
    )
    return HTMLResponse(page, status_code=status, headers=_HEADERS | (more or {}))
