"""Pages: a cursor, a limit, and `Link` headers (RFC 8288)."""

import base64
from collections.abc import Sequence
from typing import Annotated, Generic, TypeVar
from urllib.parse import urlencode

from fastapi import Query, Request, Response
from pydantic import AwareDatetime, BaseModel, BeforeValidator

from bellwire.formats.timestamps import parse_timestamp
from starter.gateway.api.problems import ApiProblem, refused

T = TypeVar("T")

#: How many items a page has, unless told otherwise, and at most.
DEFAULT_LIMIT, MAX_LIMIT = 50, 200

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="How many items the page has at most.")]
Cursor = Annotated[
    str, Query(max_length=500, description="Where the page begins: `next` of the page before. Empty: the first page.")
]
Time = Annotated[AwareDatetime, BeforeValidator(parse_timestamp)]
Since = Annotated[Time | None, Query(description="Only of events that were accepted at or after this time (RFC 3339).")]
Until = Annotated[Time | None, Query(description="Only of events that were accepted before this time.")]


class Page(BaseModel, Generic[T]):
    """A page of a list."""

    items: list[T]
    #: The cursor of the next page; null on the last one.
    next: str | None


def read_cursor(cursor: str) -> str:
    """The key that a cursor stands for. Raises ApiProblem."""
    try:
        key = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)).decode()
    except ValueError:
        key = ""
    # The decoder ignores what is not base64.
    if cursor and (cursor_of(key) != cursor or not key.isprintable()):
        raise invalid_cursor()
    return key


def cursor_of(key: str) -> str:
    """The cursor of the page after the item with this key."""
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def invalid_cursor() -> ApiProblem:
    """The problem of a cursor that no page has given."""
    return refused("cursor", "is not a cursor", remedy="use `next` of the page before")


def page_of(request: Request, response: Response, items: Sequence[T], *, last_key: str, limit: int) -> Page[T]:
    """The page of `items`, the last of which has this key. A full page links to the next, which may be empty."""
    following = None
    if len(items) >= limit:
        following = cursor_of(last_key)
        query = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
        response.headers["link"] = f'<{request.url.path}?{urlencode([*query, ("cursor", following)])}>; rel="next"'
    return Page(items=list(items), next=following)
