"""The product's source code as syntax trees, with the few look-ups that the reference pages need.

The pages of reasons, log events and metrics are read from the code itself: what is listed exists, and what exists is listed.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
#: What runs in production, in the order of the pages.
PRODUCT = ("bellwire", "workflows", "activities", "starter", "worker.py")
#: What runs only in the tests of services.
_TESTING = CHECKOUT / "bellwire" / "testing"

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, eq=False)
class Module:
    """One file of the product."""

    name: str
    tree: ast.Module
    #: The scope that each node is in: the innermost function or class around it, or the module.
    owners: dict[ast.AST, ast.AST] = field(default_factory=dict)

    @classmethod
    def parse(cls, name: str, text: str) -> "Module":
        """A module of this text. Its name is the path in the checkout."""
        module = cls(name, ast.parse(text))
        module._own(module.tree, module.tree)
        return module

    def _own(self, node: ast.AST, owner: ast.AST) -> None:
        inner = node if isinstance(node, Function | ast.ClassDef) else owner
        for child in ast.iter_child_nodes(node):
            self.owners[child] = inner
            self._own(child, inner)

    def function_around(self, node: ast.AST) -> Function | None:
        """The innermost function that the node is in."""
        owner = self.owners.get(node)
        while owner is not None and not isinstance(owner, Function):
            owner = self.owners.get(owner)
        return owner

    def class_around(self, node: ast.AST) -> ast.ClassDef | None:
        """The class whose method the node is in."""
        owner = self.owners.get(node)
        while owner is not None and not isinstance(owner, ast.ClassDef):
            owner = self.owners.get(owner)
        return owner

    @cached_property
    def constants(self) -> dict[str, ast.expr]:
        """What is assigned to names at the top of the module."""
        return {name: value for node in self.tree.body for name, value in assignments(node)}


def assignments(node: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    """Each name that a statement assigns, with its value."""
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
        yield node.target.id, node.value
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, ast.Name):
                yield target.id, node.value
            elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = zip(target.elts, node.value.elts, strict=False)
                yield from ((name.id, value) for name, value in pairs if isinstance(name, ast.Name))


def modules(*parts: str) -> tuple[Module, ...]:
    """The product's modules, in a fixed order."""
    files: list[Path] = []
    for part in parts or PRODUCT:
        found = CHECKOUT / part
        files += [found] if found.is_file() else sorted(found.rglob("*.py"))
    files = [file for file in files if not file.is_relative_to(_TESTING)]
    return tuple(Module.parse(file.relative_to(CHECKOUT).as_posix(), file.read_text()) for file in files)


def called_name(call: ast.Call) -> str:
    """The last name of what is called: `f` of `a.b.f()`; empty if it has none."""
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


def argument(call: ast.Call, function: Function, name: str, *, bound: bool) -> ast.expr | None:
    """What a call passes for a parameter; None if it leaves the parameter out. `bound`: self is not among the arguments."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    names = [each.arg for each in (*function.args.posonlyargs, *function.args.args)]
    if bound and names[:1] in (["self"], ["cls"]):
        names = names[1:]
    if name in names and (at := names.index(name)) < len(call.args):
        return call.args[at]
    return None


def default(function: Function, name: str) -> ast.expr | None:
    """The default of a parameter."""
    positional = [*function.args.posonlyargs, *function.args.args]
    found = dict(zip([each.arg for each in positional][::-1], function.args.defaults[::-1], strict=False))
    for each, value in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
        if value is not None:
            found[each.arg] = value
    return found.get(name)


def parameters(function: Function) -> set[str]:
    """The names of a function's parameters."""
    arguments = function.args
    return {each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
