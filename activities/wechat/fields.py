"""The values of a WeChat message's fields, rendered from the template wechat.json and cut to what WeChat allows."""

import json
import re
from datetime import datetime, timedelta, timezone
from typing import Any

from activities.rendering.text import one_line, shortened, valid_unicode
from bellwire.errors import TemplateInvalid
from bellwire.targets.chat.wechat_fields import MAX_FIELDS, FieldType, field_type, limit_of

#: China's time, which has no summer time.
CHINA = timezone(timedelta(hours=8), "CST")

_NAME = "wechat.json"
#: A time as events have it (RFC 3339).
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d.*")


def fields_of(text: str) -> dict[str, dict[str, str]]:
    """The fields of a rendered template, as WeChat takes them. Raises TemplateInvalid, which shows no value."""
    document: Any = json.loads(text)
    if not isinstance(document, dict) or not 1 <= len(document) <= MAX_FIELDS:
        raise TemplateInvalid(
            f'template {_NAME} must write an object of up to {MAX_FIELDS} fields, such as {{"thing1": …}}'
        )
    return {name: {"value": _value(name, value)} for name, value in document.items()}


def _value(name: str, value: object) -> str:
    kind = field_type(name)
    if kind is None:
        raise TemplateInvalid(f"template {_NAME} writes a field that WeChat does not know")
    if value is not None and not isinstance(value, str | int | float):
        raise TemplateInvalid(f"template {_NAME}: {name} must be a text or a number")
    text = str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
    if name.startswith(("time", "date")):
        text = _in_china(text)
    return fitted(name, kind, one_line(valid_unicode(text), limit=len(text) + 1)) or kind.empty


def fitted(name: str, kind: FieldType, line: str) -> str:
    """The value in as many characters as the field may have. Raises TemplateInvalid for a number that has more."""
    limit = limit_of(name, kind, line)
    if len(line) <= limit:
        return line
    if kind.ending is None:
        raise TemplateInvalid(f"template {_NAME}: {name} has more than the {limit} characters that WeChat allows")
    return shortened(line, limit, kind.ending)


def _in_china(text: str) -> str:
    """A time of RFC 3339 as WeChat takes it, in China's time; other texts as they are."""
    if not _TIME.fullmatch(text):
        return text
    try:
        at = datetime.fromisoformat(text)
        return (at.astimezone(CHINA) if at.tzinfo else at).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError):
        return text
