"""The Jinja2 environment of all templates: sandboxed, with a budget for each rendering.

Jinja2's sandbox keeps templates away from Python's insides, and bounds neither time nor memory. Here each block, call,
filter, operator and list is paid for out of a Budget before it is made; what a template can reach is a list of names.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

from jinja2 import BaseLoader, StrictUndefined, TemplateSyntaxError, pass_context
from jinja2 import nodes as tree
from jinja2.compiler import CodeGenerator, Frame
from jinja2.environment import TemplateModule
from jinja2.runtime import Context, LoopContext, Macro, Undefined, markup_join, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Cycler, Joiner, Namespace
from markupsafe import Markup

from activities.rendering.sandbox.budget import (
    Budget,
    LimitExceeded,
    size,
    size_filled,
)
from activities.rendering.sandbox.catalogue import (
    ADDED,
    CALL,
    bounded_filters,
    bounded_tests,
    operator_size,
    pay_for_method,
)

#: Characters of one template's source.
MAX_SOURCE = 256 * 1024

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
#: What templates may ask of a value, by its class; of others nothing. Fields of data are no attributes.
_ATTRIBUTES: Mapping[type, frozenset[str]] = MappingProxyType(
    {
        str: _STRING,
        list: frozenset({"count", "index"}),
        tuple: frozenset({"count", "index", "grouper", "list"}),
        LoopContext: _LOOP,
        Macro: frozenset({"name", "arguments", "catch_kwargs", "catch_varargs", "caller"}),
        Cycler: frozenset({"next", "reset", "current"}),
    }
)


_SIGNS = {"eq": "==", "ne": "!=", "gt": ">", "gteq": ">=", "lt": "<", "lteq": "<=", "in": "in", "notin": "not in"}


class _Missing(StrictUndefined):
    """A variable that is not there, in the words of the person who mends the template."""

    @property
    def _undefined_message(self) -> str:
        if self._undefined_hint:
            return self._undefined_hint
        # A name that is not a word was computed, perhaps from data, and errors name no data.
        name = self._undefined_name
        known = isinstance(name, str) and len(name) <= 64 and name.isascii() and name.isidentifier()
        return f"{name} is missing" if known else "a variable is missing"


class _Namespace(Namespace):
    def __repr__(self) -> str:
        return "<namespace>"  # what it holds may hold itself


class _Payer(CodeGenerator):
    """Compiles templates to Python that pays as it goes."""

    def blockvisit(self, nodes: Iterable[tree.Node], frame: Frame) -> None:
        nodes = list(nodes)
        fixed = sum(len(data.data) for node in nodes for data in _fixed(node))
        self.writeline(f"environment.budget.spend({1 + (fixed >> 6)})")
        super().blockvisit(nodes, frame)

    def visit_For(self, node: tree.For, frame: Frame) -> None:  # noqa: N802
        if node.test is not None:  # it is looked at also for what it leaves out
            step = tree.Call(tree.EnvironmentAttribute("step"), [], [], None, None, lineno=node.lineno)
            node.test = tree.And(step, node.test, lineno=node.lineno)
        super().visit_For(node, frame)

    def visit_Concat(self, node: tree.Concat, frame: Frame) -> None:  # noqa: N802
        escaping = "context.eval_ctx.autoescape" if frame.eval_ctx.volatile else repr(bool(frame.eval_ctx.autoescape))
        self.write(f"environment.concatenated({escaping}, (")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_List(self, node: tree.List, frame: Frame) -> None:  # noqa: N802
        self._weighed(super().visit_List, node, frame)

    def visit_Dict(self, node: tree.Dict, frame: Frame) -> None:  # noqa: N802
        self._weighed(super().visit_Dict, node, frame)

    def visit_Tuple(self, node: tree.Tuple, frame: Frame) -> None:  # noqa: N802
        if node.ctx == "load":
            self._weighed(super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)

    def visit_Compare(self, node: tree.Compare, frame: Frame) -> None:  # noqa: N802
        self.write("(")
        self._weighed(self.visit, node.expr, frame)
        for operand in node.ops:
            self.visit(operand, frame)
        self.write(")")

    def visit_Operand(self, node: tree.Operand, frame: Frame) -> None:  # noqa: N802
        self.write(f" {_SIGNS[node.op]} ")

        self._weighed(self.visit, node.expr, frame)

    def visit_Getitem(self, node: tree.Getitem, frame: Frame) -> None:  # noqa: N802
        if isinstance(node.arg, tree.Slice):
            self._weighed(self.visit, node.node, frame)
            self.write("[")
            self.visit(node.arg, frame)
            self.write("]")
        else:
            super().visit_Getitem(node, frame)

    def _weighed(self, visit: Callable[[Any, Frame], None], node: tree.Node, frame: Frame) -> None:
        self.write("environment.budget.weigh(")
        visit(node, frame)
        self.write(")")


def _fixed(node: tree.Node) -> list[tree.TemplateData]:
    """The fixed text that a statement puts out by itself; statements inside it are blocks of their own."""
    return [part for part in node.nodes if isinstance(part, tree.TemplateData)] if isinstance(node, tree.Output) else []


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Templates from `loader`, or from source only. `budget` is reset by whoever compiles or renders, one at a time."""

    code_generator_class = _Payer
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self, loader: BaseLoader | None = None) -> None:
        self.budget = Budget()
        super().__init__(
            loader=loader,
            undefined=_Missing,
            autoescape=_escapes,
            trim_blocks=True,
            lstrip_blocks=True,
            # Nothing is worked out while compiling, when nobody counts.
            optimized=False,
            finalize=self._put_out,
        )
        self.filters = bounded_filters({**self.filters, **ADDED}, self.budget)
        self.tests = cast(Any, bounded_tests(cast(Any, self.tests), self.budget))
        self.globals = {
            "range": safe_range,
            "dict": lambda *args, **fields: dict(*args, **fields),
            "namespace": _Namespace,
            "cycler": Cycler,
            "joiner": Joiner,
        }

    def _parse(self, source: str, name: str | None, filename: str | None) -> tree.Template:
        if len(source) > MAX_SOURCE:
            raise TemplateSyntaxError(f"has more than {MAX_SOURCE:,} characters", 1, name, filename)
        return super()._parse(source, name, filename)

    def get_template(self, *args: Any, **kwargs: Any) -> Any:
        self.budget.spend(20)  # includes may include themselves
        return super().get_template(*args, **kwargs)

    def step(self) -> bool:
        """One more item was looked at, which the call has paid for."""
        return True

    @pass_context
    def _put_out(self, context: Context, value: Any) -> Any:
        """What an expression writes. In JSON that is a JSON value, so that data never becomes structure, whatever it holds."""
        if isinstance(value, str | list | tuple | dict):
            self.budget.weigh(value)
        if context.name is None or not context.name.endswith(".json") or isinstance(value, Markup):
            return value
        if isinstance(value, Undefined):
            str(value)  # says which variable is missing
        return Markup(json.dumps(value, ensure_ascii=False))  # noqa: S704

    def concatenated(self, escaping: bool, values: Sequence[Any]) -> str:
        """`a ~ b`."""
        self.budget.make(sum(map(size, values)))
        return markup_join(values) if escaping else str_join(values)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`data.items` is the field "items" of the data, not the method of dict that Jinja2 would prefer."""
        if isinstance(obj, dict):
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """What stands in brackets may come from data, word or not, so that nothing is told of it if it is missing."""
        field = isinstance(obj, dict) and isinstance(argument, str)
        found = self.getattr(obj, argument) if field else super().getitem(obj, argument)
        unnamed = isinstance(found, _Missing) and not found._undefined_hint
        return self.undefined(obj=obj, name="") if unnamed else found

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if not super().is_safe_attribute(obj, attr, value):
            return False
        if isinstance(obj, _Namespace | TemplateModule):
            return True
        return any(attr in names for kind, names in _ATTRIBUTES.items() if isinstance(obj, kind))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        fill = super().wrap_str_format(value)
        if fill is None:
            return None
        if value.__name__ != "format":
            raise LimitExceeded("format_map is not available; use format")

        def paid(*args: Any, **fields: Any) -> str:
            self.budget.make(size_filled(value.__self__, (*args, fields)))
            return fill(*args, **fields)

        return paid

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        __self.budget.spend(CALL)
        if isinstance(getattr(__obj, "__self__", None), str):
            pay_for_method(__self.budget, __obj, args, kwargs)
        return __self.budget.weigh(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self.budget.make(operator_size(operator, left, right))
        return self.budget.weigh(super().call_binop(context, operator, left, right))


def _escapes(name: str | None) -> bool:
    return name is not None and name.endswith((".html", ".json"))
