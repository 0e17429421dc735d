"""PushContent: what a push shows and carries, rendered."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from activities.rendering.renderer import Renderer
from activities.rendering.text import one_line, shortened, shortened_bytes
from bellwire.sends import SendRequest

#: Longest title and body, in characters. Phones show less.
MAX_TITLE, MAX_BODY = 120, 500
#: Bytes of data. Push services take about 4 kB in all, and some relays 2.5 kB.
MAX_DATA = 1_500
#: Bytes of the URL of a page; a longer one is left out.
MAX_URL = 800
#: Bytes of all texts as JSON: the body is cut to what is left. FCM gets the URL twice.
MAX_TEXTS, LEAST_BODY = 3_700, 100
#: Bytes of the id by which a device replaces a notice.
MAX_COLLAPSE_ID = 64
#: Least seconds for which a push service keeps a push for a device that is not connected.
LEAST_KEPT = 3600


@dataclass(frozen=True, kw_only=True)
class PushContent:
    """A push: texts in plain text, the page to open, the number on the app's icon, and data for the app."""

    title: str
    body: str
    url: str | None
    badge: int | None
    #: A push replaces a shown one with the same.
    notice_id: str
    #: As texts, which is all that FCM takes.
    data: dict[str, str]
    #: Seconds for which a push service keeps it: as long as the delivery would be attempted.
    kept: int


async def push_content(renderer: Renderer, request: SendRequest) -> PushContent:
    """Render the push of a request. Raises TemplateInvalid."""
    texts = await renderer.texts(request, ("push.title", "push.body", "push.url", "push.badge", "push.data"))
    url, badge = texts["push.url"], texts["push.badge"]
    data: Any = json.loads(texts["push.data"])
    fields = {str(name): _text(value) for name, value in data.items()} if isinstance(data, dict) else {}
    if len(json.dumps(fields)) > MAX_DATA:
        fields = {name: fields[name] for name in ("delivery", "event", "type") if name in fields}
    title = one_line(texts["push.title"], limit=MAX_TITLE) or request.event.type[:MAX_TITLE]
    # Another scheme could run a script or open an app.
    page = url if _scheme(url) in {"https", "http"} and _size(url) <= MAX_URL else None
    replaced = {} if request.notice_id == request.id else {"notice": request.notice_id}
    room = MAX_TEXTS - _size(title) - 2 * _size(page or "") - _size({**replaced, **fields})
    return PushContent(
        title=title,
        body=_fitting(shortened(texts["push.body"], MAX_BODY), max(room, LEAST_BODY)),
        url=page,
        badge=int(badge) if badge.isascii() and badge.isdecimal() and len(badge) < 6 else None,
        notice_id=request.notice_id,
        data={"delivery": request.id, **replaced, **fields},
        kept=max(int(request.seconds_left), LEAST_KEPT),
    )


def _scheme(url: str) -> str:
    try:
        return urlsplit(url).scheme
    except ValueError:
        return ""


def _size(value: Any) -> int:
    """Bytes as JSON."""
    return len(json.dumps(value, ensure_ascii=False).encode())


def _fitting(text: str, limit: int) -> str:
    while _size(text) > limit:
        text = shortened_bytes(text, len(text.encode()) * 9 // 10)
    return text


def collapse_id(notice_id: str) -> str:
    """The id by which a device replaces a notice, as Apple takes it: the notice's, or its hash if that is too long."""
    if len(notice_id) <= MAX_COLLAPSE_ID:
        return notice_id
    return hashlib.sha256(notice_id.encode()).hexdigest()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
