"""Pages of the outbox: a list that reloads itself, one message with its parts, the same as JSON, and endpoints for webhooks.

Mails are hostile: their texts are escaped, and their HTML is served without scripts, forms or remote content, in a frame of
its own origin. The pages have no scripts. They answer only under names of this machine, or a web page elsewhere could read
them through a name that it controls.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from starter.local.outbox.messages import Caught, Kind, Outbox

HOST = "127.0.0.1"
#: Largest webhook in bytes.
MAX_WEBHOOK = 1024 * 1024
#: Longest source that a page shows, in characters; the whole is at /source.
MAX_SHOWN = 200_000

_HOSTS = frozenset({HOST, "localhost", "[::1]"})
_PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'"
)
_MAIL_POLICY = (
    "sandbox; default-src 'none'; img-src data:; font-src data:; style-src 'unsafe-inline'; frame-ancestors 'self'"
)
_FILE_POLICY = "sandbox; default-src 'none'"
_TEMPLATES = Path(__file__).parent / "templates"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving_pages(outbox: Outbox, port: int) -> AsyncIterator[str]:
    """Serve the pages at this port of the loopback address (0: a free one). Yields their URL, which ends with a slash."""
    runner = web.AppRunner(_Pages(outbox).app(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, port).start()
        yield f"http://{HOST}:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


class _Pages:
    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._templates = Environment(
            loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )

    def app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_WEBHOOK, middlewares=[_protect])
        app.router.add_get("/", self._list)
        app.router.add_get("/style.css", _style)
        app.router.add_get(r"/messages/{id:\d{1,15}}", self._show)
        app.router.add_get(r"/messages/{id:\d{1,15}}/html", self._html)
        app.router.add_get(r"/messages/{id:\d{1,15}}/source", self._source)
        app.router.add_get(r"/messages/{id:\d{1,15}}/attachments/{nth:\d{1,5}}", self._attachment)
        app.router.add_post("/delete", self._delete_and_list)
        app.router.add_get("/api/messages", self._list_json)
        app.router.add_delete("/api/messages", self._delete)
        app.router.add_get(r"/api/messages/{id:\d{1,15}}", self._show_json)
        app.router.add_route("*", "/hooks", self._catch)
        app.router.add_route("*", "/hooks/{path:.*}", self._catch)
        return app

    async def _list(self, request: web.Request) -> web.Response:
        kind = _kind(request)
        messages = self._outbox.list(kind=kind)
        return self._page("list.html", messages=messages, kinds=list(Kind), chosen=kind, dropped=self._outbox.dropped)

    async def _show(self, request: web.Request) -> web.Response:
        number, caught = self._found(request)
        source = caught.source.decode(errors="replace")
        return self._page("message.html", number=number, message=caught, source=source[:MAX_SHOWN])

    async def _html(self, request: web.Request) -> web.Response:
        _, caught = self._found(request)
        if caught.html is None:
            raise web.HTTPNotFound
        body = caught.html.encode(errors="replace")
        return _response(body, "text/html", policy=_MAIL_POLICY)

    async def _source(self, request: web.Request) -> web.Response:
        _, caught = self._found(request)
        return _response(caught.source or caught.text.encode(errors="replace"), "text/plain", policy=_FILE_POLICY)

    async def _attachment(self, request: web.Request) -> web.Response:
        _, caught = self._found(request)
        attachments, nth = caught.attachments, int(request.match_info["nth"])
        if nth >= len(attachments):
            raise web.HTTPNotFound
        one = attachments[nth]
        response = _response(one.content, "application/octet-stream", policy=_FILE_POLICY)
        name = quote(one.name.encode(errors="replace"), safe="")
        response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{name}"
        return response

    async def _list_json(self, request: web.Request) -> web.Response:
        found = self._outbox.list(kind=_kind(request), to=request.query.get("to"))
        return _json({"messages": [_as_json(*each) for each in found], "dropped": self._outbox.dropped})

    async def _show_json(self, request: web.Request) -> web.Response:
        return _json(_as_json(*self._found(request)))

    async def _delete(self, _request: web.Request) -> web.Response:
        self._outbox.clear()
        return web.Response(status=204)

    async def _delete_and_list(self, _request: web.Request) -> web.Response:
        self._outbox.clear()
        raise web.HTTPSeeOther("/")

    async def _catch(self, request: web.Request) -> web.Response:
        """Accept a webhook; the first part of the path may be the status to respond with."""
        body = await request.read()
        event = _object(body)
        self._outbox.add(
            Caught(
                kind=Kind.WEBHOOK,
                sender=str(event.get("source") or request.headers.get("ce-source") or ""),
                to=(f"{request.method} {request.path_qs}",),
                title=str(event.get("type") or request.headers.get("ce-type") or request.method),
                text=json.dumps(event, indent=2, ensure_ascii=False) if event else body.decode(errors="replace"),
                headers=tuple(request.headers.items()),
                source=body,
            )
        )
        if request.method == "OPTIONS":
            origin = request.headers.get("WebHook-Request-Origin", "*")
            return web.Response(headers={"WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": "*"})
        first = request.match_info.get("path", "").partition("/")[0]
        return web.Response(
            status=int(first) if first.isascii() and first.isdecimal() and 200 <= int(first) < 600 else 204
        )

    def _found(self, request: web.Request) -> tuple[int, Caught]:
        number = int(request.match_info["id"])
        caught = self._outbox.get(number)
        if caught is None:
            raise web.HTTPNotFound(text="this message is gone\n")
        return number, caught

    def _page(self, template: str, **values: Any) -> web.Response:
        text = self._templates.get_template(template).render(**values)
        return _response(text.encode(errors="replace"), "text/html", policy=_PAGE_POLICY)


@web.middleware
async def _protect(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse requests under other names, and changes that pages elsewhere ask for."""
    if request.path == "/hooks" or request.path.startswith("/hooks/"):
        return await handler(request)
    host = request.headers.get("Host", "")
    if host.rpartition(":")[0] not in _HOSTS and host not in _HOSTS:
        raise web.HTTPForbidden(text=f"open this page as http://{HOST}\n")
    if request.method not in {"GET", "HEAD"}:
        site, origin = request.headers.get("Sec-Fetch-Site", "none"), request.headers.get("Origin")
        if site not in {"same-origin", "none"} or origin not in {None, f"http://{host}"}:
            raise web.HTTPForbidden(text="another site may not change this\n")
    return await handler(request)


async def _style(_request: web.Request) -> web.Response:
    return _response((_TEMPLATES / "style.css").read_bytes(), "text/css", policy=_FILE_POLICY)


def _response(body: bytes, media_type: str, *, policy: str) -> web.Response:
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
    charset = "utf-8" if media_type.startswith("text/") else None
    return web.Response(body=body, content_type=media_type, charset=charset, headers=headers)


def _json(value: object) -> web.Response:
    return _response(json.dumps(value, indent=2).encode(), "application/json", policy=_FILE_POLICY)


def _as_json(number: int, caught: Caught) -> dict[str, Any]:
    return {
        "id": number,
        "kind": str(caught.kind),
        "at": caught.at.isoformat(),
        "from": caught.sender,
        "to": list(caught.to),
        "title": caught.title,
        "text": caught.text,
        "html": caught.html,
        "headers": [list(pair) for pair in caught.headers],
        "attachments": [
            {"name": one.name, "media_type": one.media_type, "size": len(one.content)} for one in caught.attachments
        ],
    }


def _kind(request: web.Request) -> Kind | None:
    given = request.query.get("kind", "")
    return Kind(given) if given in set(Kind) else None


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
