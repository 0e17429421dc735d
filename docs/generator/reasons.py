"""Collects the reasons that the code gives to deliveries, attempts and disabled subscriptions, as patterns: `HTTP <status>`.

A reason is whatever is passed as `reason=`, kept by an exception as `self.reason`, or written over another reason.
"""

import ast
from collections.abc import Iterator, Sequence

from docs.generator.code_index import Place
from docs.generator.flow import Flow, Text
from docs.generator.sources import Module, called_name, modules

#: What takes another kind of `reason`: suppressed addresses have an enumeration, and Temporal notes who changed a queue.
OTHER = frozenset({"Suppression", "lift", "RateLimitUpdate"})
#: Modules that give no reasons to deliveries: those of a filter say what the filter found.
_WITHOUT = "bellwire/filters/"
#: Keys of the mappings that change a reason: of a copied model (`update=`), or of an SQL statement.
STATEMENT_KEYS = frozenset({"new_reason", "state_reason"})
#: What is read from a model or an exception was collected where that was made.
_SETTLED = frozenset({"reason", "state_reason"})


def collect(source: Sequence[Module] | None = None) -> set[Text]:
    """All reasons. An operator who pauses a subscription may give any other."""
    if source is None:
        product = modules("bellwire", "workflows", "activities", "worker.py")
        source = [module for module in product if not module.name.startswith(_WITHOUT)]
    flow = Flow(source, settled=_SETTLED)
    found = {text for module in source for place in _places(module) for text in flow.texts(*place)}
    return {text for text in found if text.pattern}


def _places(module: Module) -> Iterator[Place]:
    for node in ast.walk(module.tree):
        match node:
            case ast.Call(keywords=keywords) if not _is_other(node):
                for keyword in keywords:
                    if keyword.arg in _SETTLED and not _is_bind(keyword.value):
                        yield keyword.value, module
                    elif keyword.arg == "update" and isinstance(keyword.value, ast.Dict):
                        yield from _values(keyword.value, module, _SETTLED)
            case ast.Assign(targets=[ast.Attribute(value=ast.Name(id="self"), attr="reason")], value=value):
                yield value, module
            case ast.Dict():
                yield from _values(node, module, STATEMENT_KEYS)


def _values(mapping: ast.Dict, module: Module, keys: frozenset[str]) -> Iterator[Place]:
    for key, value in zip(mapping.keys, mapping.values, strict=True):
        if isinstance(key, ast.Constant) and key.value in keys:
            yield value, module


def _is_other(call: ast.Call) -> bool:
    """Whether a call logs a line, or takes another kind of reason; `write(lift, …)` stands for `lift(…)`."""
    first = call.args[0] if call.args else None
    if isinstance(first, ast.Constant) and "." in str(first.value):
        return True
    passed_on = first.attr if isinstance(first, ast.Attribute) else first.id if isinstance(first, ast.Name) else ""
    return not OTHER.isdisjoint({called_name(call), passed_on})


def _is_bind(value: ast.expr) -> bool:
    """Whether a value is a parameter of an SQL statement, which is collected where the statement is executed."""
    return isinstance(value, ast.Call) and called_name(value) == "bindparam"
