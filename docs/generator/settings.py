"""The page of settings, made from `Settings` and the comments above its fields."""

import inspect
from enum import Enum, StrEnum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefinedType

from bellwire.service.settings import Settings
from docs.generator import meanings
from docs.generator.comments import above
from docs.generator.markdown import code, document, table

_INTRODUCTION = """
`worker.py` and `python -m starter` read these environment variables once, when they start. An empty variable counts as
not set. A bad value ends the process with a line that names the variable. Services that only publish read none of them.
"""

_TEMPORAL = """
## The connection to Temporal

Temporal's SDK has its own variables, which publishers use as well: `TEMPORAL_ADDRESS` (default: `localhost:7233`),
`TEMPORAL_NAMESPACE`, `TEMPORAL_API_KEY`, `TEMPORAL_TLS` and related ones; or a TOML file with profiles, chosen by
`TEMPORAL_CONFIG_FILE` and `TEMPORAL_PROFILE`.
"""

_TYPES = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    SecretStr: "text, kept out of logs",
    Path: "path",
    dict[str, SecretStr]: "text for each, kept out of logs",
}


def page() -> str:
    """The text of docs/reference/settings.md."""
    found = above(Path(inspect.getfile(Settings)))
    described = meanings.of("settings", [name for name in Settings.model_fields if not found.get(name)])
    rows = [
        (
            code(_variable(name, field)),
            f"{found.get(name) or described[name]}<br>*{_value(field)}; {_default(field.default)}*",
        )
        for name, field in Settings.model_fields.items()
    ]
    return document("Settings", _INTRODUCTION, table(("variable", "meaning, *value, default*"), rows), _TEMPORAL)


def _variable(name: str, field: FieldInfo) -> str:
    return f"BELLWIRE_{name.upper()}" + ("__NAME" if get_origin(field.annotation) is dict else "")


def _value(field: FieldInfo) -> str:
    kind: Any = field.annotation
    if get_origin(kind) in {Union, UnionType}:
        kind = next(each for each in get_args(kind) if each is not type(None))
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return ", ".join(f"`{each}`" for each in kind)
    limits = {name: getattr(limit, name) for limit in field.metadata for name in ("ge", "le") if hasattr(limit, name)}
    between = f", {limits['ge']:.12g} to {limits['le']:.12g}" if len(limits) == 2 else ""
    choices = next((limit.pattern for limit in field.metadata if getattr(limit, "pattern", None)), None)
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices.strip("^()$").split("|"))
    return _TYPES.get(kind, "list, separated by commas") + between


def _default(value: Any) -> str:
    match value:
        case None | () | PydanticUndefinedType():
            return "not set by default"
        case bool():
            return f"default `{str(value).lower()}`"
        case Enum():
            return f"default `{value.value}`"
        case frozenset():
            return f"default `{','.join(map(str, sorted(value)))}`"
        case tuple():
            return f"default `{','.join(map(str, value))}`"
        case _:
            return f"default `{value}`"
