"""The fields of WeChat's templates: their types, what each may hold, and the check of a template that fills them.

A template of WeChat names its fields by type and number: thing1, time2, phrase3.
developers.weixin.qq.com/miniprogram/dev/framework/open-ability/subscribe-message.html
"""

import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class FieldType(NamedTuple):
    """What a field of one type may hold."""

    #: Longest value, in characters.
    limit: int
    #: What ends a value that was cut; None: it is not cut, since half a number is another number.
    ending: str | None
    #: Stands for an empty value, which WeChat refuses.
    empty: str = "-"


_WHOLE: str | None = None
#: By the letters of a field's name.
FIELD_TYPES: Mapping[str, FieldType] = MappingProxyType(
    {
        "thing": FieldType(20, "…"),
        "const": FieldType(20, "…"),
        # Of templates from before 2023, and cut by WeChat at the same length.
        "keyword": FieldType(20, "…"),
        # Letters, digits and marks of ASCII.
        "character_string": FieldType(32, "..."),
        # 10 Chinese characters, or 20 letters; marks may be among them.
        "name": FieldType(20, "…"),
        # Letters only, Chinese characters only, and marks that each mean something: WeChat refuses an ellipsis there.
        "letter": FieldType(32, ""),
        "phrase": FieldType(5, "", "无"),
        "symbol": FieldType(5, ""),
        "number": FieldType(32, _WHOLE),
        # One sign, ten digits with two decimals, and 元.
        "amount": FieldType(16, _WHOLE),
        "phone_number": FieldType(17, _WHOLE),
        "car_number": FieldType(8, _WHOLE),
        "time": FieldType(64, _WHOLE),
        "date": FieldType(64, _WHOLE),
    }
)
#: Longest name with Chinese characters in it.
_MAX_CHINESE_NAME = 10
#: Most fields of a template.
MAX_FIELDS = 20

_CHINESE = re.compile(r"[\u3400-\u9fff]")
_NAME = re.compile(r"([a-z]+(?:_[a-z]+)?)([0-9]{1,2})")
#: Jinja's comments, statements and expressions.
_JINJA = re.compile(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", re.DOTALL)
#: A name of JSON, and its value if that is a text as it stands.
_MEMBER = re.compile(r'"((?:[^"\\]|\\.)*)"\s*:(?:\s*"((?:[^"\\]|\\.)*)")?')


def field_type(name: str) -> FieldType | None:
    """The type of the field of this name; None if WeChat has none."""
    found = _NAME.fullmatch(name)
    return FIELD_TYPES.get(found[1]) if found else None


def limit_of(name: str, kind: FieldType, value: str) -> int:
    """How many characters this value of the field may have."""
    return _MAX_CHINESE_NAME if name.startswith("name") and _CHINESE.search(value) else kind.limit


def check_fields(source: str) -> None:
    """Check the fields of a template, as far as it writes them out. Raises ValueError, which names field and limit."""
    for member in _MEMBER.finditer(_JINJA.sub("0", source)):
        name, value = _text(member[1]), _text(member[2] or "")
        kind = field_type(name)
        if kind is None:
            known = ", ".join(sorted(FIELD_TYPES))
            raise ValueError(f"unknown field {name[:40]!r}; write one of {known} and its number, such as thing1")
        limit = limit_of(name, kind, value)
        if len(value) > limit:
            raise ValueError(f"{name} has {len(value)} characters, WeChat allows {limit}; shorten it")


def _text(written: str) -> str:
    """What a text of JSON stands for, which may be written with escapes; as it is if it is not valid."""
    try:
        return str(json.loads(f'"{written}"', strict=False))
    except ValueError:
        return written
