"""The attributes that templates may access, by the class of the value. Everything else is refused."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from jinja2.environment import TemplateModule
from jinja2.runtime import LoopContext, Macro
from jinja2.utils import Cycler, Namespace

_STRING = frozenset(
    {
        "capitalize",
        "casefold",
        "center",
        "count",
        "endswith",
        "find",
        "format",
        "index",
        "isalnum",
        "isalpha",
        "isdecimal",
        "isdigit",
        "islower",
        "isnumeric",
        "isspace",
        "istitle",
        "isupper",
        "join",
        "ljust",
        "lower",
        "lstrip",
        "partition",
        "removeprefix",
        "removesuffix",
        "replace",
        "rfind",
        "rindex",
        "rjust",
        "rpartition",
        "rsplit",
        "rstrip",
        "split",
        "splitlines",
        "startswith",
        "strip",
        "swapcase",
        "title",
        "upper",
        "zfill",
    }
)
_LOOP = frozenset(
    {
        "index",
        "index0",
        "revindex",
        "revindex0",
        "first",
        "last",
        "length",
        "depth",
        "depth0",
        "previtem",
        "nextitem",
        "cycle",
        "changed",
    }
)
_BY_CLASS: Mapping[type, frozenset[str]] = MappingProxyType(
    {
        str: _STRING,
        list: frozenset({"count", "index"}),
        tuple: frozenset({"count", "index", "grouper", "list"}),
        LoopContext: _LOOP,
        Macro: frozenset({"name", "arguments", "catch_kwargs", "catch_varargs", "caller"}),
        Cycler: frozenset({"next", "reset", "current"}),
    }
)


def is_allowed(value: Any, attribute: str) -> bool:
    """Whether templates may access this attribute of the value. Fields of data are items, not attributes."""
    if isinstance(value, Namespace | TemplateModule):
        return True
    return any(attribute in names for kind, names in _BY_CLASS.items() if isinstance(value, kind))
