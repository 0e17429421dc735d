"""Collects the log events of the code: names, levels, fields and files."""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from docs.generator.flow import Flow
from docs.generator.sources import Function, Module, assignments, modules

LEVELS = ("debug", "info", "warning", "error", "exception", "critical")
#: Arguments of log calls that are no fields.
_NO_FIELDS = {"exc_info": "exception", "stack_info": "stack"}


@dataclass(frozen=True)
class Line:
    """One call that logs."""

    event: str
    level: str
    fields: tuple[str, ...]
    file: str


class NotFollowed(Exception):
    """A log call whose event or fields cannot be read from the code; write the event's name as text in the call."""


def collect(source: Sequence[Module] | None = None) -> list[Line]:
    """Every log call of the product. Raises NotFollowed, with file and line."""
    source = modules() if source is None else source
    flow = Flow(source)
    loggers = {name for module in source for name in _loggers(module)}
    return sorted(
        (line for module in source for line in _lines(module, loggers, flow)),
        key=lambda line: (line.event, LEVELS.index(line.level), line.file),
    )


def _loggers(module: Module) -> Iterator[str]:
    """Names that hold a logger of structlog."""
    for name, value in module.constants.items():
        if isinstance(value, ast.Call) and ast.unparse(value.func).endswith("get_logger"):
            yield name


def _lines(module: Module, loggers: set[str], flow: Flow) -> Iterator[Line]:
    if not _has_logger(module, loggers):
        return
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call):
            continue
        levels = _levels(node.func, module, loggers)
        if not levels:
            continue
        where = f"{module.name}:{node.lineno}"
        events = flow.texts(node.args[0], module) if node.args else set()
        if not events or any(event.opaque for event in events):
            raise NotFollowed(f"{where}: the event of {ast.unparse(node)[:80]}")
        fields = tuple(_fields(node, module, where))
        yield from (Line(event.pattern, level, fields, module.name) for event in events for level in levels)


def _has_logger(module: Module, loggers: set[str]) -> bool:
    imported = {
        alias.name for node in ast.walk(module.tree) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    return not loggers.isdisjoint(imported | module.constants.keys())


def _levels(function: ast.expr, module: Module, loggers: set[str]) -> list[str]:
    """The levels at which a call logs: of `log.error(…)`, or of a name that was assigned `log.error if … else log.info`."""
    match function:
        case ast.Attribute(value=ast.Name(id=logger), attr=level) if logger in loggers:
            if level not in LEVELS:
                raise NotFollowed(f"{module.name}:{function.lineno}: {logger}.{level}")
            return [level]
        case ast.Name(id=name):
            around = module.function_around(function)
            values = [value for target, value in _assigned(around) if target == name]
            return [
                level
                for value in values
                for choice in ([value.body, value.orelse] if isinstance(value, ast.IfExp) else [value])
                if isinstance(choice, ast.Attribute)
                for level in _levels(choice, module, loggers)
            ]
    return []


def _fields(call: ast.Call, module: Module, where: str) -> Iterator[str]:
    for keyword in call.keywords:
        if keyword.arg is not None:
            yield _NO_FIELDS.get(keyword.arg, keyword.arg)
            continue
        mapping: ast.expr | None = keyword.value
        if isinstance(mapping, ast.Name):
            around = module.function_around(mapping)
            name = mapping.id
            mapping = next((value for target, value in _assigned(around) if target == name), None)
        if not isinstance(mapping, ast.Dict):
            raise NotFollowed(f"{where}: the fields of **{ast.unparse(keyword.value)}")
        yield from (str(key.value) for key in mapping.keys if isinstance(key, ast.Constant))


def _assigned(function: Function | None) -> Iterator[tuple[str, ast.expr]]:
    for node in ast.walk(function) if function is not None else ():
        if isinstance(node, ast.stmt):
            yield from assignments(node)
