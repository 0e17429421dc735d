"""CompiledTemplates: templates of tenants, compiled from source. They cannot include or extend other templates."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Template, TemplateAssertionError
from jinja2 import nodes as tree

from activities.rendering.html.final import finish
from activities.rendering.sandbox.environment import TemplateEnvironment
from activities.rendering.sandbox.faults import Fault, fault_of
from activities.rendering.sandbox.markup import MARKUPS
from activities.rendering.sandbox.output import render

#: Characters of source whose compiled templates are kept. Compiled, they take about thirty times the memory.
MAX_KEPT = 1024 * 1024
#: The templates of a mail's body.
TEXT, HTML = "email.text", "email.html"

_OTHER_TEMPLATES = (tree.Include, tree.Import, tree.FromImport, tree.Extends)


class CompiledTemplates:
    """Compiles sets of templates, keeps them by the digest of their sources, and renders them."""

    def __init__(self) -> None:
        self._environment = TemplateEnvironment()
        self._compiled: OrderedDict[str, dict[str, Template]] = OrderedDict()
        self._sizes: dict[str, int] = {}

    def has(self, digest: str) -> bool:
        return digest in self._compiled

    def compile(self, digest: str, sources: Mapping[str, str]) -> Fault | None:
        """Compile and keep the templates, given by name. Returns the first fault, or None."""
        compiled = {}
        for name, source in sources.items():
            try:
                self._environment.budget.reset()
                compiled[name] = self._compile_one(name, source)
            except Exception as error:  # a template can raise anything, also while it is compiled
                fault = fault_of(error, _names(sources))
                return Fault(fault.problem, name, fault.line)
        self._compiled[digest] = compiled
        self._sizes[digest] = sum(map(len, sources.values()))
        while sum(self._sizes.values()) > MAX_KEPT:
            oldest, _ = self._compiled.popitem(last=False)
            del self._sizes[oldest]
        return None

    def render(self, digest: str, names: list[str], context: Mapping[str, Any]) -> dict[str, str] | Fault:
        """Render these templates of a set that was compiled. Returns their texts by name, or the first fault.

        HTML is finished, and the text of a mail is derived from it if there is no template for the text.
        """
        compiled = self._compiled[digest]
        self._compiled.move_to_end(digest)
        texts = {}
        for name in names:
            try:
                load: Callable[[], Template] = lambda name=name: compiled[name]  # type: ignore[misc]  # noqa: E731
                texts[name] = render(self._environment, name, load, context, markup=MARKUPS.get(name))
                if name == HTML:
                    final = finish(texts[name], with_text=TEXT not in compiled)
                    texts |= {name: final.html} | ({} if TEXT in compiled else {TEXT: final.text})
            except Exception as error:
                fault = fault_of(error, _names(compiled))
                return Fault(fault.problem, name, fault.line)
        return texts

    def _compile_one(self, name: str, source: str) -> Template:
        parsed = self._environment.parse(source, name, name)
        for node in parsed.find_all((*_OTHER_TEMPLATES, tree.Filter, tree.Test, tree.Getattr)):
            if problem := self._problem(node):
                raise TemplateAssertionError(problem, node.lineno, name)
        code = self._environment.compile(parsed, name, name)
        return Template.from_code(self._environment, code, self._environment.make_globals(None))

    def _problem(self, node: tree.Node) -> str | None:
        """What is not available to tenants. Jinja2 checks filters and tests within conditions only when it renders."""
        match node:
            case tree.Filter(name=name) if name not in self._environment.filters:
                return f"no filter named {name!r}"
            case tree.Test(name=name) if name not in self._environment.tests:
                return f"no test named {name!r}"
            case tree.Getattr(attr=name) if name.startswith("__"):
                return f"access to {name} is not available"
            case _ if isinstance(node, _OTHER_TEMPLATES):
                statement = "from" if isinstance(node, tree.FromImport) else type(node).__name__.lower()
                return f"{statement} is not available here; write the text into the template"
        return None


def _names(templates: Mapping[str, Any]) -> Callable[[str], str | None]:
    return lambda file: file if file in templates else None
