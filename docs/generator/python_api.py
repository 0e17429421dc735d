"""Pages of the Python API: what services import. The site fills them from docstrings (mkdocstrings)."""

import inspect
import sys
from collections import defaultdict
from types import ModuleType

import bellwire
from bellwire import errors, nexus, outbox, testing, webhooks
from docs.generator.markdown import MARK, code, document, table

FOLDER = "reference/python-api"
#: Modules beside the façade that services and receivers import by their own names.
BESIDE: tuple[ModuleType, ...] = (errors, nexus, outbox, testing, webhooks)


def pages() -> dict[str, str]:
    """The overview, and a page for each part of the package that has public names."""
    parts = _parts()
    return {f"{FOLDER}/index.md": _overview(parts)} | {
        f"{FOLDER}/{part}.md": _page(part, names) for part, names in sorted(parts.items())
    }


def _parts() -> dict[str, list[str]]:
    """Dotted names of what is public, by the module or folder of `bellwire` that defines it."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in bellwire.__all__:
        value = getattr(bellwire, name)
        module = getattr(value, "__module__", "")
        found[_part(module)].append(f"{module}.{name}")
    for each in BESIDE:
        own = getattr(each, "__all__", None) or [name for name, value in vars(each).items() if _is_own(value, each)]
        found[_part(each.__name__)] = [f"{each.__name__}.{name}" for name in own]
    return found


def _part(module: str) -> str:
    return module.split(".")[1]


def _is_own(value: object, module: ModuleType) -> bool:
    return (
        (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
        and not value.__name__.startswith("_")
    )


def _overview(parts: dict[str, list[str]]) -> str:
    rows = [
        (f"[{_title(part)}]({part}.md)", ", ".join(code(name.rpartition(".")[2]) for name in names))
        for part, names in sorted(parts.items())
    ]
    *first, last = (code(each.__name__) for each in BESIDE)
    return document(
        "Python API",
        "Services import `bellwire`; it needs pydantic and temporalio only. Everything in `bellwire.__all__` and the modules"
        f" {', '.join(first)} and {last} are public.",
        table(("page", "names"), rows),
    )


def _page(part: str, names: list[str]) -> str:
    module = sys.modules[f"bellwire.{part}"]
    introduction = (inspect.getdoc(module) or "").partition("\n\n")[0]
    directives = "\n\n".join(f"::: {name}" for name in names)
    return f"{MARK}\n# {_title(part)}\n\n{introduction}\n\n{directives}\n"


def _title(part: str) -> str:
    return part.replace("_", " ").capitalize()
