"""TemplateEnvironment: the Jinja2 environment of all templates, sandboxed and with a budget for each rendering.

Jinja2's sandbox keeps templates away from Python's internals, but limits neither time nor memory. Here each block, call,
filter, operator and list is charged to a Budget before it runs, and templates can only access attributes that are listed.
"""

import json
from collections.abc import Callable, Sequence
from functools import update_wrapper
from typing import Any, cast

from jinja2 import BaseLoader, StrictUndefined, TemplateSyntaxError, pass_context
from jinja2 import nodes as tree
from jinja2.exceptions import SecurityError, TemplateRuntimeError
from jinja2.runtime import BlockReference, Context, LoopContext, Macro, Undefined, markup_join, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Cycler, Joiner, Namespace
from markupsafe import Markup, escape

from activities.rendering.sandbox.attributes import is_allowed
from activities.rendering.sandbox.budget import Budget, LimitExceeded, size, size_str_format
from activities.rendering.sandbox.codegen import ChargingCodeGenerator
from activities.rendering.sandbox.functions import (
    ADDED,
    CALL,
    bounded_filters,
    bounded_tests,
    charge_method,
    operator_size,
)
from activities.rendering.sandbox.written_text import WrittenText

#: Characters of one template's source.
MAX_SOURCE = 256 * 1024


class _Missing(StrictUndefined):
    """A missing variable. Its error message is for the author of the template."""

    @property
    def _undefined_message(self) -> str:
        if self._undefined_hint:
            return self._undefined_hint
        # A name that is not an identifier was computed, perhaps from data. Errors contain no data.
        name = self._undefined_name
        known = isinstance(name, str) and len(name) <= 64 and name.isascii() and name.isidentifier()
        return f"{name} is missing" if known else "a variable is missing"


class _Namespace(Namespace):
    def __repr__(self) -> str:
        return "<namespace>"  # it may contain itself


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Loads templates from `loader`, or compiles them from source. The caller resets `budget` before each rendering."""

    code_generator_class = ChargingCodeGenerator
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self, loader: BaseLoader | None = None) -> None:
        self.budget = Budget()
        #: Whether expressions write JSON values. `render` sets it, also for templates that the rendered one includes.
        self.writes_json = False
        #: How values are escaped in the markup that the template writes; None in other texts. `render` sets it, too.
        self.markup: Callable[[str], str] | None = None
        super().__init__(
            loader=loader,
            undefined=_Missing,
            autoescape=_escapes,
            trim_blocks=True,
            lstrip_blocks=True,
            # Constant expressions would be evaluated while compiling, without being charged.
            optimized=False,
            finalize=self._finalize,
        )
        self.filters = bounded_filters({**self.filters, **ADDED}, self.budget)
        self.filters["tojson"] = self._marked_as_json(self.filters["tojson"])
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
        # Editors on Windows begin files with a byte order mark, which would be sent.
        return super()._parse(source.removeprefix("\ufeff"), name, filename)

    def get_template(self, *args: Any, **kwargs: Any) -> Any:
        self.budget.spend(20)  # a template may include itself
        return super().get_template(*args, **kwargs)

    def step(self) -> bool:
        """True. Compiled templates call it for each item that a loop's condition tests, so that `call` charges the item."""
        return True

    @pass_context
    def _finalize(self, context: Context, value: Any) -> Any:  # noqa: ARG002 - or Jinja2 would call it while compiling
        """What an expression writes. In a JSON template that is a JSON value, and in markup it is escaped, so data cannot change
        the structure.
        """
        if isinstance(value, str | list | tuple | dict):
            self.budget.charge(value)
        if not self._marks_text:
            return value
        if isinstance(value, WrittenText):
            self.budget.charge(value)
            return Markup(value.text)  # noqa: S704 - JSON is not escaped
        if isinstance(value, Undefined):
            str(value)  # raises the error that names the missing variable
        if self.markup is not None:
            return self.markup(str(value))
        return Markup(json.dumps(value, ensure_ascii=False))  # noqa: S704

    def captured(self, context: Context, value: Any, is_text: bool) -> Any:
        """The value of a `{% set %}` block. `is_text`: as the template wrote it, without a filter."""
        self.budget.charge(value)
        if self._marks_text:
            return WrittenText(value) if is_text else value
        return Markup(value) if context.eval_ctx.autoescape else value  # noqa: S704 - its values are escaped

    def written(self, context: Context, value: Any) -> str:
        """What a `{% call %}` block writes."""
        value = self._finalize(context, value)
        return escape(value) if context.eval_ctx.autoescape else str(value)

    def refuse_filter_block(self) -> None:
        """Raise an error in JSON templates and in markup: a filter of the text could change its structure."""
        if self._marks_text:
            kind = "JSON templates" if self.writes_json else "chat templates"
            raise TemplateRuntimeError(f"filter blocks are not available in {kind}; use the filter in an expression")

    @property
    def _marks_text(self) -> bool:
        """Whether what the template wrote itself is told apart from values."""
        return self.writes_json or self.markup is not None

    def _marked_as_json(self, tojson: Callable[..., Any]) -> Callable[..., Any]:
        def marked(*args: Any, **fields: Any) -> Any:
            written = tojson(*args, **fields)
            return WrittenText(written) if self.writes_json else written

        return update_wrapper(marked, tojson)

    def concatenate(self, escape: bool, values: Sequence[Any]) -> str:
        """`a ~ b`."""
        self.budget.charge_size(sum(map(size, values)))
        return markup_join(values) if escape else str_join(values)

    def field(self, obj: Any, attribute: str) -> Any:
        """`data.items`, where the template names the field. It is the field, not the method of dict that Jinja2 would prefer."""
        if isinstance(obj, dict):
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """A field whose name was computed, as in `"{0.name}".format(data)`. Errors do not show the name: it may be data."""
        self.budget.spend()
        return self._unnamed(obj, self.field(obj, attribute))

    def getitem(self, obj: Any, argument: Any) -> Any:
        """`data[name]`, also each step of `map(attribute="a.b")`. Errors do not show the name: it may be data."""
        self.budget.spend()
        field = isinstance(obj, dict) and isinstance(argument, str)
        return self._unnamed(obj, self.field(obj, argument) if field else super().getitem(obj, argument))

    def _unnamed(self, obj: Any, found: Any) -> Any:
        if not isinstance(found, _Missing):
            return found
        unsafe = found._undefined_exception is SecurityError
        return self.undefined("access to an unsafe attribute", name="") if unsafe else self.undefined(obj=obj, name="")

    def _filter_test_common(self, name: Any, *args: Any, **fields: Any) -> Any:
        """A filter or test whose name was computed, as in `map(name)`."""
        if name not in (self.filters if args[-1] else self.tests):
            raise TemplateRuntimeError("no filter or test has this name")
        return super()._filter_test_common(name, *args, **fields)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return super().is_safe_attribute(obj, attr, value) and is_allowed(obj, attr)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        format_safely = super().wrap_str_format(value)
        if format_safely is None:
            return None
        if value.__name__ != "format":
            raise LimitExceeded("format_map is not available; use format")

        def charged(*args: Any, **fields: Any) -> str:
            self.budget.charge_size(size_str_format(value.__self__, (*args, fields)))
            return format_safely(*args, **fields)

        return charged

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        __self.budget.spend(CALL + (len(args) + len(kwargs) >> 2))
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str):
            charge_method(__self.budget, __obj, args, kwargs)
        elif isinstance(owner, list | tuple | LoopContext):  # they compare their elements or arguments
            for value in (owner, *args):
                __self.budget.charge(value)
        if not __self.is_safe_callable(__obj):
            raise SecurityError("a value is not safely callable")
        result = __self.budget.charge(super().call(__context, __obj, *args, **kwargs))
        is_text = (
            __self._marks_text and isinstance(__obj, Macro | BlockReference | LoopContext) and isinstance(result, str)
        )
        return WrittenText(result) if is_text else result

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self.budget.charge_size(operator_size(operator, left, right))
        return self.budget.charge(super().call_binop(context, operator, left, right))


def _escapes(name: str | None) -> bool:
    return name is not None and name.endswith((".html", ".json"))
