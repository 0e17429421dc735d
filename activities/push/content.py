"""PushContent: what a push shows and carries, rendered."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from activities.rendering.renderer import Renderer
from activities.rendering.text import one_line, shortened
from bellwire.sends import SendRequest

#: Longest title and body, in characters. Phones show less.
MAX_TITLE, MAX_BODY = 120, 500
#: Bytes of data. Push services take about 4 kB in all, and some relays 2.5 kB.
MAX_DATA = 1_500
#: Bytes of the id by which a device replaces a notice.
MAX_COLLAPSE_ID = 64
#: How long a push service keeps a push for a device that is not connected.
KEPT = timedelta(days=1)


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
    #: When the event happened.
    at: datetime


async def push_content(renderer: Renderer, request: SendRequest) -> PushContent:
    """Render the push of a request. Raises TemplateInvalid."""
    texts = await renderer.texts(request, ("push.title", "push.body", "push.url", "push.badge", "push.data"))
    url, badge = texts["push.url"], texts["push.badge"]
    data: Any = json.loads(texts["push.data"])
    fields = {str(name): _text(value) for name, value in data.items()} if isinstance(data, dict) else {}
    if len(json.dumps(fields)) > MAX_DATA:
        fields = {name: fields[name] for name in ("delivery", "event", "type") if name in fields}
    replaced = {} if request.notice_id == request.id else {"notice": request.notice_id}
    return PushContent(
        title=one_line(texts["push.title"], limit=MAX_TITLE) or request.event.type[:MAX_TITLE],
        body=shortened(texts["push.body"], MAX_BODY),
        # Another scheme could run a script or open an app.
        url=url if urlsplit(url).scheme in {"https", "http"} else None,
        badge=int(badge) if badge.isascii() and badge.isdecimal() and len(badge) < 6 else None,
        notice_id=request.notice_id,
        data={"delivery": request.id, **replaced, **fields},
        at=request.delivery.updated_at,
    )


def collapse_id(notice_id: str) -> str:
    """The id by which a device replaces a notice, as Apple takes it: the notice's, or its hash if that is too long."""
    if len(notice_id) <= MAX_COLLAPSE_ID:
        return notice_id
    return hashlib.sha256(notice_id.encode()).hexdigest()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
