"""Where texts come from: follows an expression back to the literals, templates and tables that it can be.

`"HTTP 503"` may be written as `f"HTTP {status}"`, stand in a table, or be passed through three functions. A placeholder of a
template is shown as `<status>`. What cannot be followed is returned as such, so that no text goes missing silently.
"""

import ast
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product

from docs.generator.code_index import Index, Place
from docs.generator.sources import Function, Module, argument, called_name, default, parameters


@dataclass(frozen=True)
class Text:
    """One text that an expression can be."""

    pattern: str
    #: Whether this is the source of an expression that cannot be followed.
    opaque: bool = False
    #: File and line of such an expression.
    where: str = field(default="", compare=False)


Found = set[Text]


class Flow:
    """Follows expressions through the given modules.

    `settled` are names of attributes whose values are collected where they are assigned, so that reading one adds nothing.
    """

    def __init__(self, modules: Sequence[Module], *, settled: frozenset[str] = frozenset()) -> None:
        self._settled = settled
        self._index = Index(modules)
        self._open: set[tuple[int, int]] = set()
        self._items_of: dict[int, list[Place] | None] = {}

    def texts(self, expression: ast.expr, module: Module) -> Found:
        """All texts that the expression can be; empty for None, and for what is collected elsewhere."""
        match expression:
            case ast.Constant(value=None):
                return set()
            case ast.Constant(value=value):
                return {Text(str(value))}
            case ast.JoinedStr(values=parts):
                with self._following(expression) as is_new:
                    pieces = [self._piece(part, module) for part in parts if is_new]
                    return {Text("".join(chosen)) for chosen in product(*pieces)} if is_new else set()
            case ast.IfExp(body=first, orelse=second):
                return self.texts(first, module) | self.texts(second, module)
            case ast.BoolOp(values=values):
                return set().union(*(self.texts(value, module) for value in values))
            case ast.NamedExpr(value=value) | ast.Await(value=value):
                return self.texts(value, module)
            case ast.Subscript(value=value, slice=ast.Slice()):
                return self.texts(value, module)
            case ast.Attribute(attr=name) if name in self._settled:
                return set()
            case ast.Name() | ast.Attribute() | ast.Call() | ast.Subscript():
                with self._following(expression) as is_new:
                    places = self._origins(expression, module) if is_new else []
                    if places is not None:
                        return set().union(*(self.texts(*place) for place in places))
        return {Text(ast.unparse(expression), opaque=True, where=f"{module.name}:{expression.lineno}")}

    def _piece(self, part: ast.expr, module: Module) -> list[str]:
        """What a part of an f-string can be: its text, the constants behind a name, or a placeholder."""
        if isinstance(part, ast.Constant):
            return [str(part.value)]
        assert isinstance(part, ast.FormattedValue)
        if (number := self._number(part.value, module)) is not None:
            return [str(number)]
        found = self.texts(part.value, module)
        short = all(not text.opaque and len(text.pattern) <= 40 for text in found)
        if found and short and isinstance(part.value, ast.Name):
            return sorted(text.pattern for text in found)
        return [f"<{placeholder(part.value)}>"]

    def _number(self, expression: ast.expr, module: Module) -> int | None:
        """The value of whole numbers and constants, multiplied or divided."""
        match expression:
            case ast.Constant(value=int(value)):
                return value
            case ast.Name(id=name) if name.isupper():
                values = {self._number(value, where) for value, where in self._of_name(name, expression, module) or []}
                return values.pop() if len(values) == 1 else None
            case ast.BinOp(left=left, op=ast.Mult() | ast.FloorDiv() as operator, right=right):
                first, second = self._number(left, module), self._number(right, module)
                if first is not None and second is not None:
                    return first * second if isinstance(operator, ast.Mult) else first // second
        return None

    def _origins(self, expression: ast.expr, module: Module) -> list[Place] | None:
        """Where the expression's value comes from; None if that is not known."""
        match expression:
            case ast.Name(id=name):
                return self._of_name(name, expression, module)
            case ast.Attribute(value=ast.Name(id=owner), attr=name) if self._index.has_class(owner):
                return self._index.members(owner, name)
            case ast.Attribute(value=ast.Name(id="self"), attr=name):
                around = module.class_around(expression)
                return None if around is None else self._index.members_below(around.name, name)
            case ast.Call():
                return self._of_call(expression, module)
            case ast.Subscript(value=container):
                return self._items(container, module)
        return None

    @contextmanager
    def _following(self, expression: ast.expr, at: int = -1) -> Iterator[bool]:
        """Whether the expression is not being followed already, as it is in functions that call each other."""
        key = (id(expression), at)
        if key in self._open:
            yield False
            return
        self._open.add(key)
        try:
            yield True
        finally:
            self._open.discard(key)

    def _of_name(self, name: str, at: ast.expr, module: Module) -> list[Place] | None:
        function = module.function_around(at)
        while function is not None:
            if found := self._assigned(name, function, module):
                return found
            if name in parameters(function):
                return self._passed(name, function, module)
            function = module.function_around(function)
        if name in module.constants:
            return [(module.constants[name], module)]
        return self._index.constants.get(name)

    def _of_call(self, call: ast.Call, module: Module) -> list[Place] | None:
        name = called_name(call)
        if name == "next" and call.args:
            rows = self._items(call.args[0], module)
            return None if rows is None else [*rows, *((each, module) for each in call.args[1:])]
        if name == "join" and isinstance(call.func, ast.Attribute):
            return self._items(call.args[0], module)
        if name == "str" and len(call.args) == 1 and not isinstance(call.args[0], ast.Name):
            return [(call.args[0], module)]
        found = [
            (node.value, where)
            for function, where in self._index.meant_by(call, module)
            for node in ast.walk(function)
            if isinstance(node, ast.Return) and node.value is not None and where.function_around(node) is function
        ]
        return found or None

    def _passed(self, name: str, function: Function, module: Module) -> list[Place] | None:
        """What callers pass for a parameter."""
        is_method = module.class_around(function) is not None
        passed = [
            (argument(call, function, name, bound=is_method), where)
            for call, where in self._index.callers(function, module)
        ]
        found = [(value, where) for value, where in [(default(function, name), module), *passed] if value is not None]
        return found or None

    def _assigned(self, name: str, function: Function, module: Module) -> list[Place]:
        """What a function assigns to a name, in whatever way."""
        found: list[Place] = []
        for node in ast.walk(function):
            match node:
                case ast.NamedExpr(target=ast.Name(id=target), value=value) if target == name:
                    found.append((value, module))
                case ast.Assign(targets=targets, value=value):
                    for target in targets:
                        found += self._bound(name, target, [(value, module)])
                case ast.For(target=target, iter=source) | ast.comprehension(target=target, iter=source):
                    if name in _names(target):
                        found += self._bound(name, target, self._items(source, module) or [])
        return found

    def _appended(self, container: ast.expr, module: Module) -> list[Place]:
        """What a function adds to a list or mapping of its own."""
        function, name = module.function_around(container), ast.unparse(container)
        found: list[Place] = []
        for node in ast.walk(function) if function is not None else ():
            match node:
                case ast.Call(func=ast.Attribute(value=changed, attr="append"), args=[added]):
                    pass
                case ast.Assign(targets=[ast.Subscript(value=changed)], value=added):
                    pass
                case _:
                    continue
            if ast.unparse(changed) == name:
                found.append((added, module))
        return found

    def _bound(self, name: str, target: ast.expr, places: list[Place]) -> list[Place]:
        """What a name gets when the target that it is part of is assigned each of these."""
        match target:
            case ast.Name(id=found) if found == name:
                return places
            case ast.Tuple(elts=elements):
                for at, element in enumerate(elements):
                    if name in _names(element):
                        parts = [part for place in places for part in self._element(*place, at)]
                        return self._bound(name, element, parts)
        return []

    def _element(self, expression: ast.expr, module: Module, at: int) -> list[Place]:
        """The element of a tuple at an index."""
        match expression:
            case ast.Tuple(elts=elements):
                return [(elements[at], module)] if at < len(elements) else []
            case ast.IfExp(body=first, orelse=second):
                return [*self._element(first, module, at), *self._element(second, module, at)]
            case ast.Call() | ast.Subscript() | ast.Name():
                with self._following(expression, at) as is_new:
                    places = self._origins(expression, module) if is_new else []
                    return [part for place in places or [] for part in self._element(*place, at)]
        return []

    def _items(self, container: ast.expr, module: Module) -> list[Place] | None:
        """The items of a sequence, the values of a mapping, what a generator yields."""
        match container:
            case ast.Tuple(elts=elements) | ast.List(elts=elements) | ast.Set(elts=elements):
                return [(element, module) for element in elements]
            case ast.Dict(values=values):
                return [(value, module) for value in values]
            case ast.GeneratorExp(elt=element) | ast.ListComp(elt=element):
                return [(element, module)]
            case ast.IfExp(body=first, orelse=second):
                return [*(self._items(first, module) or []), *(self._items(second, module) or [])]
            case ast.Call(func=ast.Name(id="tuple" | "list" | "sorted"), args=[inner, *_]):
                return self._items(inner, module)
            case ast.Await(value=inner) | ast.Call(func=ast.Attribute(value=inner, attr="values"), args=[]):
                return self._items(inner, module)
            case ast.Call(func=ast.Attribute(value=inner, attr="items"), args=[]):
                pairs = self._items(inner, module)
                return pairs and [(ast.Tuple([ast.Constant(None), value]), where) for value, where in pairs]
            case ast.Name() | ast.Attribute() | ast.Call(func=ast.Name() | ast.Attribute()):
                key = id(container)
                if key not in self._items_of:
                    # Containers that are made of each other have the same items; what is being followed adds none.
                    self._items_of[key] = None
                    rows = [self._items(*place) for place in self._origins(container, module) or []]
                    found = [item for row in rows if row for item in row] + self._appended(container, module)
                    self._items_of[key] = found or None
                return self._items_of[key]
        return None


def placeholder(expression: ast.expr) -> str:
    """How a page calls the value of an expression: by the last name in it."""
    match expression:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.strip("_")
        case ast.Call(func=ast.Name(id="len"), args=[inner]):
            return f"number of {placeholder(inner)}"
        case ast.Call(args=[inner, *_]) | ast.Subscript(value=inner) | ast.FormattedValue(value=inner):
            return placeholder(inner)
        case ast.Call(func=inner):
            return placeholder(inner)
        case ast.BinOp(left=inner):
            return placeholder(inner)
    return "…"


def _names(target: ast.expr) -> set[str]:
    return {node.id for node in ast.walk(target) if isinstance(node, ast.Name)}
