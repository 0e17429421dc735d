"""Parts that tenants wrote, compiled: templates without files, which include and extend nothing."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from jinja2 import Template, TemplateAssertionError
from jinja2 import nodes as tree

from activities.rendering.sandbox.environment import TemplateEnvironment
from activities.rendering.sandbox.output import Fault, fault_of, render

#: Characters of source that are kept compiled, which takes some thirty times the memory.
MAX_KEPT = 1024 * 1024

_ELSEWHERE = (tree.Include, tree.Import, tree.FromImport, tree.Extends)


class WrittenParts:
    """Compiles parts, keeps them by the digest of their sources, and renders them."""

    def __init__(self) -> None:
        self._environment = TemplateEnvironment()
        self._compiled: OrderedDict[str, dict[str, Template]] = OrderedDict()
        self._sizes: dict[str, int] = {}

    def has(self, digest: str) -> bool:
        return digest in self._compiled

    def compile(self, digest: str, sources: Mapping[str, str]) -> Fault | None:
        """Compile and keep the parts; what is wrong with the first that is wrong."""
        compiled = {}
        for part, source in sources.items():
            try:
                self._environment.budget.reset()
                compiled[part] = self._template(part, source)
            except Exception as error:  # a template can raise anything, also while it is compiled
                fault = fault_of(error, _named(sources))
                return Fault(fault.what, part, fault.line)
        self._compiled[digest] = compiled
        self._sizes[digest] = sum(map(len, sources.values()))
        while sum(self._sizes.values()) > MAX_KEPT:
            oldest, _ = self._compiled.popitem(last=False)
            del self._sizes[oldest]
        return None

    def render(self, digest: str, parts: list[str], context: Mapping[str, Any]) -> dict[str, str] | Fault:
        """The texts of these parts, which must have been compiled."""
        compiled = self._compiled[digest]
        self._compiled.move_to_end(digest)
        texts = {}
        for part in parts:
            try:
                texts[part] = render(self._environment, part, lambda part=part: compiled[part], context)  # type: ignore[misc]
            except Exception as error:
                fault = fault_of(error, _named(compiled))
                return Fault(fault.what, part, fault.line)
        return texts

    def _template(self, part: str, source: str) -> Template:
        parsed = self._environment.parse(source, part, part)
        for found in parsed.find_all((*_ELSEWHERE, tree.Filter, tree.Test, tree.Getattr)):
            if complaint := self._complaint(found):
                raise TemplateAssertionError(complaint, found.lineno, part)
        code = self._environment.compile(parsed, part, part)
        return Template.from_code(self._environment, code, self._environment.make_globals(None))

    def _complaint(self, found: tree.Node) -> str | None:
        """What a part must not say. Jinja2 looks for a filter in a condition only when it renders."""
        match found:
            case tree.Filter(name=name) if name not in self._environment.filters:
                return f"no filter named {name!r}"
            case tree.Test(name=name) if name not in self._environment.tests:
                return f"no test named {name!r}"
            case tree.Getattr(attr=name) if name.startswith("__"):
                return f"access to {name} is not available"
            case _ if isinstance(found, _ELSEWHERE):
                word = "from" if isinstance(found, tree.FromImport) else type(found).__name__.lower()
                return f"{word} is not available here; write the text into the part"
        return None


def _named(parts: Mapping[str, Any]) -> Any:
    return lambda file: file if file in parts else None
