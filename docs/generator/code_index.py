"""An index of the code: which functions a call may mean, who calls a function, what classes and constants hold."""

import ast
from collections.abc import Iterator, Sequence

from docs.generator.sources import Function, Module, assignments, called_name

#: An expression and the module that it is in.
Place = tuple[ast.expr, Module]


class Index:
    """Functions, calls, classes and constants of modules, by their names."""

    def __init__(self, modules: Sequence[Module]) -> None:
        #: What is assigned at the top of modules.
        self.constants: dict[str, list[Place]] = {}
        self._functions: dict[str, list[tuple[Function, Module]]] = {}
        self._calls: dict[str, list[tuple[ast.Call, Module]]] = {}
        self._classes: dict[str, list[tuple[ast.ClassDef, Module]]] = {}
        for module in modules:
            for name, value in module.constants.items():
                self.constants.setdefault(name, []).append((value, module))
            for node in ast.walk(module.tree):
                if isinstance(node, Function):
                    self._functions.setdefault(node.name, []).append((node, module))
                elif isinstance(node, ast.ClassDef):
                    self._classes.setdefault(node.name, []).append((node, module))
                elif isinstance(node, ast.Call):
                    self._calls.setdefault(called_name(node), []).append((node, module))

    def has_class(self, name: str) -> bool:
        return name in self._classes

    def members(self, owner: str, name: str) -> list[Place] | None:
        """What the body of a class assigns to a name; None for nothing."""
        found = [
            (value, module)
            for definition, module in self._classes.get(owner, [])
            for statement in definition.body
            for target, value in assignments(statement)
            if target == name
        ]
        return found or None

    def members_below(self, owner: str, name: str) -> list[Place] | None:
        """What the bodies of classes that inherit a class assign to a name; None for nothing."""
        found = [
            place
            for other, definitions in self._classes.items()
            if any(_base_name(base) == owner for definition, _ in definitions for base in definition.bases)
            for place in (self.members(other, name) or []) + (self.members_below(other, name) or [])
        ]
        return found or None

    def meant_by(self, call: ast.Call, module: Module) -> list[tuple[Function, Module]]:
        """The functions that a call may mean: those of its module, or else all of that name."""
        found = self._functions.get(called_name(call), [])
        match call.func:
            case ast.Name() | ast.Attribute(value=ast.Name(id="self" | "cls")):
                return [each for each in found if each[1] is module] or found
        return found

    def callers(self, function: Function, module: Module) -> Iterator[tuple[ast.Call, Module]]:
        """The calls that may mean a function. That of `__init__` is the call of its class, or of one that inherits it."""
        owner = module.class_around(function)
        if owner is not None and function.name == "__init__":
            for name in (owner.name, *self._inheriting(owner.name)):
                yield from self._calls.get(name, [])
            return
        for call, where in self._calls.get(function.name, []):
            is_private = function.name.startswith("_")
            if (where is module or not is_private) and (function, module) in self.meant_by(call, where):
                yield call, where

    def _inheriting(self, name: str) -> Iterator[str]:
        """Classes directly below one that have no `__init__` of their own."""
        for other, definitions in self._classes.items():
            for definition, _ in definitions:
                has_own = any(isinstance(each, Function) and each.name == "__init__" for each in definition.body)
                if not has_own and any(isinstance(base, ast.Name) and base.id == name for base in definition.bases):
                    yield other


def _base_name(base: ast.expr) -> str:
    """The name of a base class: that of `Base` and of `Base[T]`."""
    inner = base.value if isinstance(base, ast.Subscript) else base
    return inner.id if isinstance(inner, ast.Name) else ""
