"""Writes the parts of the documentation that are derived from code: `python -m docs.generate`. A test compares them.

docs/settings.md comes from `bellwire.service.settings.Settings`, with the comments that stand above its fields. The table of
schedules in docs/operating.md comes from `workflows.policies.SCHEDULES`.
"""

import re
import tokenize
from enum import Enum, StrEnum
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefinedType

from bellwire.service import settings
from bellwire.service.settings import Settings
from workflows.policies import HOUR, MINUTE, SCHEDULES
from workflows.rounds.visibility import span

FOLDER = Path(__file__).parent

_SETTINGS_HEAD = """# Settings

Made from `bellwire/service/settings.py` by `python -m docs.generate`; a test compares the two.

`worker.py` and `python -m starter` read these variables once, when they start. An empty variable counts as one that is
not set. A bad value ends the process with a line that names the variable. Services that only publish read none of them.

| variable | value | default | meaning |
|---|---|---|---|
"""

_SETTINGS_TAIL = """
The connection to Temporal has its own standard, which Temporal's SDK reads and which publishers share:
`TEMPORAL_ADDRESS` (localhost:7233 if nothing says otherwise), `TEMPORAL_NAMESPACE`, `TEMPORAL_API_KEY`, `TEMPORAL_TLS`
and its relatives, or a TOML file with profiles, chosen by `TEMPORAL_CONFIG_FILE` and `TEMPORAL_PROFILE`.
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


def settings_page() -> str:
    """The text of docs/settings.md."""
    meanings = comments_above(Path(settings.__file__))
    rows = [
        f"| `{_variable(name, field)}` | {_value(field)} | {_default(field.default)} | {meanings.get(name, '')} |"
        for name, field in Settings.model_fields.items()
    ]
    return _SETTINGS_HEAD + "\n".join(rows) + "\n" + _SETTINGS_TAIL


def schedules_table() -> str:
    """A row per channel: how many attempts, over how long, and the waits between them."""
    rows = [
        f"| {channel} | {len(waits) + 1} | {_total(sum(waits))} | {', '.join(map(span, waits))} |"
        for channel, waits in SCHEDULES.items()
    ]
    return "| channel | attempts | over | waits between them |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"


def with_schedules(page: str) -> str:
    """The page with the table of now between its two marks."""
    return re.sub(
        r"(<!-- schedules -->\n).*?(<!-- end of schedules -->)",
        lambda found: f"{found[1]}{schedules_table()}{found[2]}",
        page,
        flags=re.DOTALL,
    )


def comments_above(module: Path) -> dict[str, str]:
    """The `#:` comment that stands above each assignment of a module, by the name that is assigned."""
    found: dict[str, str] = {}
    comment: list[str] = []
    with module.open("rb") as file:
        tokens = [token for token in tokenize.tokenize(file.readline) if token.type != tokenize.NL]
    for token, following in pairwise(tokens):
        if token.type == tokenize.COMMENT and token.string.startswith("#:"):
            comment.append(token.string.removeprefix("#:").strip())
        elif token.type == tokenize.NAME and following.string in {":", "="} and comment:
            found[token.string] = " ".join(comment)
            comment = []
        elif token.type == tokenize.NEWLINE:
            comment = []
    return found


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
            return "not set"
        case bool():
            return f"`{str(value).lower()}`"
        case Enum():
            return f"`{value.value}`"
        case frozenset():
            return f"`{','.join(map(str, sorted(value)))}`"
        case tuple():
            return f"`{','.join(map(str, value))}`"
        case _:
            return f"`{value}`"


def _total(seconds: float) -> str:
    hours, minutes = divmod(int(seconds / MINUTE + 0.5), int(HOUR / MINUTE))
    return f"{hours} h {minutes} min" if hours else span(seconds)


def main() -> None:
    (FOLDER / "settings.md").write_text(settings_page())
    operating = FOLDER / "operating.md"
    operating.write_text(with_schedules(operating.read_text()))


if __name__ == "__main__":
    main()
