"""Unsubscribing: what the link in a mail leads to (RFC 8058), for mail readers that post it and for people who open it.

Nothing is asked but the link: no cookie, no login, no redirect. Opening it changes nothing, since scanners open every link
of a mail; the page has a button that posts. What became of a token that is none is not told.
"""

import base64
import hashlib
from email import message_from_bytes
from urllib.parse import parse_qs

import structlog
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from bellwire.email.unsubscribe_links import (
    ONE_CLICK,
    UNSUBSCRIBE,
    LinkKeys,
    UnsubscribeRequest,
)
from bellwire.errors import BellwireError, SubscriptionNotFound
from bellwire.registry import Registry
from bellwire.suppressions import Suppression, SuppressionReason
from bellwire.targets import Channel, EmailTarget

log = structlog.get_logger("bellwire")

#: Bytes of a posted form that are read; the only one that counts has 30, or 300 in parts.
MAX_FORM = 4096

_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:32em;margin:4em auto;padding:0 1em}button{font:inherit;padding:.5em 1em}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
#: Never kept, indexed, framed or run, and the token does not travel on as a referrer.
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
    """What links to unsubscribe lead to; `keys` verify them."""

    async def ask(request: Request) -> Response:
        if keys.read(request.path_params["token"]) is None:
            return _unknown()
        return _page("Unsubscribe", f"<p>Do you want no more of these emails?</p>{_BUTTON}")

    async def unsubscribe(request: Request) -> Response:
        asked = keys.read(request.path_params["token"])
        if asked is None:
            return _unknown()
        form = await _form(request)
        if form is None or not _one_click(form, request.headers.get("content-type", "")):
            return _page("Not understood", f"<p>Use the button.</p>{_BUTTON}", status=400)
        try:
            await _suppress(registry, asked)
        except BellwireError as error:
            log.error("unsubscribing.failed", subscription=asked.subscription_id, error=type(error).__name__)  # noqa: TRY400
            later = "<p>This does not work at the moment. Please try again in a few minutes.</p>"
            return _page("Try again later", later + _BUTTON, status=503, more={"retry-after": "120"})
        return _page("Unsubscribed", "<p>You will get no more of these emails.</p>")

    path = UNSUBSCRIBE + "{token}"
    return [Route(path, ask, methods=["GET"]), Route(path, unsubscribe, methods=["POST"])]


async def _suppress(registry: Registry, asked: UnsubscribeRequest) -> None:
    """Write to the recipient no more. Whoever is not among the recipients any more gets none anyway."""
    try:
        target = (await registry.subscriptions.get(asked.subscription_id)).target
    except SubscriptionNotFound:
        return
    address = asked.match(target.recipients) if isinstance(target, EmailTarget) else None
    if address is None:
        return
    await registry.suppressions.add(
        Suppression(
            channel=Channel.EMAIL,
            address=address,
            reason=SuppressionReason.UNSUBSCRIBED,
            subscription_id=asked.subscription_id,
        )
    )
    log.info("recipient.unsubscribed", subscription=asked.subscription_id)


async def _form(request: Request) -> bytes | None:
    """The body; None if it is too long to be the form."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_FORM:
            return None
    return body


def _one_click(form: bytes, content_type: str) -> bool:
    """Whether the form says List-Unsubscribe=One-Click, in either encoding that RFC 8058 §3.2 allows."""
    name, value = ONE_CLICK
    if content_type.lower().startswith("multipart/form-data"):
        head = f"Content-Type: {content_type}\r\nMIME-Version: 1.0\r\n\r\n".encode("latin-1", "replace")
        return any(
            part.get_param("name", header="content-disposition") == name
            and (part.get_payload(decode=True) or b"").strip() == value.encode()  # type: ignore[union-attr]
            for part in message_from_bytes(head + form).walk()
            if not part.is_multipart()
        )
    # Some that post it forget to say how it is encoded.
    return value in parse_qs(form.strip().decode("latin-1")).get(name, [])


def _unknown() -> Response:
    return _page("Not found", "<p>This link does not work. It may be incomplete: copy all of it.</p>", status=404)


def _page(title: str, body: str, *, status: int = 200, more: dict[str, str] | None = None) -> Response:
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><h1>{title}</h1>{body}</body></html>"
    )
    return HTMLResponse(page, status_code=status, headers=_HEADERS | (more or {}))
