"""Collects the metrics that the code creates through Temporal's SDK: names, types, labels and descriptions."""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from docs.generator.sources import Module, assignments, modules

#: Types of Prometheus, by how the SDK's method begins.
KINDS = {"create_counter": "counter", "create_histogram": "histogram", "create_gauge": "gauge"}
_RECORDING = {"add", "record", "set"}


@dataclass(frozen=True)
class Metric:
    """One metric, under the name that Prometheus shows."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str
    file: str


class NotFollowed(Exception):
    """A metric whose name, description or labels are not written as text where it is created."""


def collect(source: Sequence[Module] | None = None) -> list[Metric]:
    """Every metric of Bellwire itself; those of Temporal's SDK come beside them. Raises NotFollowed."""
    source = modules() if source is None else source
    return sorted((metric for module in source for metric in _metrics(module)), key=lambda metric: metric.name)


def _metrics(module: Module) -> Iterator[Metric]:
    for node in ast.walk(module.tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        kind = next((kind for start, kind in KINDS.items() if node.func.attr.startswith(start)), None)
        if kind is None:
            continue
        match node.args:
            case [ast.Constant(value=str(name)), ast.Constant(value=str(meaning)), *_]:
                labels = _labels(node, module)
                shown = f"{name}_total" if kind == "counter" else name
                yield Metric(shown, kind, labels, meaning.rstrip(".") + ".", module.name)
            case _:
                raise NotFollowed(f"{module.name}:{node.lineno}: {ast.unparse(node)}")


def _labels(creation: ast.Call, module: Module) -> tuple[str, ...]:
    """The labels that a metric is recorded with, in the function that creates it."""
    function = module.function_around(creation)
    assert function is not None
    assigned = {
        name: value for node in ast.walk(function) if isinstance(node, ast.stmt) for name, value in assignments(node)
    }
    names = {name for name, value in assigned.items() if value is creation}
    for node in ast.walk(function):
        match node:
            case ast.Call(func=ast.Attribute(value=recorded, attr=method), args=[_, labels]) if method in _RECORDING:
                if recorded is creation or (isinstance(recorded, ast.Name) and recorded.id in names):
                    mapping = assigned.get(labels.id) if isinstance(labels, ast.Name) else labels
                    if isinstance(mapping, ast.Dict):
                        return tuple(str(key.value) for key in mapping.keys if isinstance(key, ast.Constant))
            case ast.Call(func=ast.Attribute(value=recorded, attr=method), args=[_]) if method in _RECORDING:
                if recorded is creation or (isinstance(recorded, ast.Name) and recorded.id in names):
                    return ()
    raise NotFollowed(f"{module.name}:{creation.lineno}: no labels of {ast.unparse(creation)}")
