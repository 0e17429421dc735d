"""How the code is laid out: sizes of files and folders, no import circles, and which folders stand above which."""

import ast
from collections.abc import Iterator
from functools import cache
from itertools import count
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
PRODUCT = ("bellwire", "workflows", "activities", "starter")
#: Lines of a file. A longer one holds more than one concept.
MAX_LINES = 400
#: The same where another number holds: `worker.py` only composes; tests have a row per response that a provider may give.
MAX_LINES_OF = {"worker.py": 170, "tests": 500}
#: Python files of a folder's own. A fuller one is hard to search.
MAX_FILES = 14
#: The same where another number holds: folders of chats grow by one with each.
MAX_FILES_OF = {
    "bellwire/registry": 20,
    "bellwire/targets/chat": 30,
    "activities/chat": 30,
    "starter/local/receivers/providers": 30,
}
#: Floors, from the ground up: a folder imports only folders below its own floor. Folders of one floor do not import
#: each other. What a table does not name may be imported from anywhere in its part.
FLOORS = {
    "bellwire": (
        {"bellwire/formats"},
        {"bellwire/keys", "bellwire/filters"},
        {"bellwire/targets"},
        {"bellwire/email", "bellwire/sms"},
        {"bellwire/contract"},
        {"bellwire/temporal", "bellwire/registry"},
        {"bellwire/service", "bellwire/testing"},
    ),
    "activities": ({"activities/egress", "activities/rendering"}, {"activities/sending"}),
    "starter": ({"starter/operations"}, {"starter/gateway", "starter/local"}, {"starter/cli"}),
}


def files(*parts: str) -> Iterator[Path]:
    for part in parts:
        found = CHECKOUT / part
        yield from [found] if found.is_file() else sorted(found.rglob("*.py"))


def module_of(file: Path) -> str:
    parts = file.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports() -> dict[str, frozenset[str]]:
    """By module of the product, the modules of the product that it imports, at any depth of its code."""
    modules = {module_of(file): file for file in files(*PRODUCT, "worker.py")}
    found: dict[str, frozenset[str]] = {}
    for module, file in modules.items():
        names: set[str] = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                full = {f"{node.module}.{alias.name}" for alias in node.names}
                names |= {name if name in modules else node.module for name in full}
        found[module] = frozenset(names & modules.keys() - {module})
    return found


def folder_of(module: str) -> str:
    file = CHECKOUT / (module.replace(".", "/") + ".py")
    return str((file.parent if file.exists() else file.with_suffix("")).relative_to(CHECKOUT))


def circles() -> list[list[str]]:
    """Strongly connected components of more than one module (Tarjan)."""
    graph, numbers = imports(), count()
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = next(numbers)
        stack.append(module)
        for other in graph[module]:
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            component = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(component) > 1:
                found.append(sorted(component))

    for module in graph:
        if module not in index:
            visit(module)
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles() == []


@pytest.mark.parametrize("part", FLOORS)
def test_folders_import_only_from_lower_floors(part: str) -> None:
    floor_of = {folder: number for number, folders in enumerate(FLOORS[part]) for folder in folders}
    assert {folder for folder in floor_of if not (CHECKOUT / folder).is_dir()} == set()

    def place(module: str) -> str | None:
        """The folder of the table that holds the module."""
        folder = folder_of(module)
        return next((name for name in floor_of if folder == name or folder.startswith(f"{name}/")), None)

    upward = {
        f"{module} imports {other}"
        for module, others in imports().items()
        for other in others
        if (above := place(module)) and (below := place(other)) and above != below
        if floor_of[below] >= floor_of[above]
    }
    assert upward == set()


def test_channels_import_no_other_channel_and_nothing_imports_one_but_what_opens_them_or_previews_them() -> None:
    channels = {str(file.parent.relative_to(CHECKOUT)) for file in files("activities") if file.name == "channel.py"}
    assert len(channels) >= 3
    wrong = {
        f"{module} imports {other}"
        for module, others in imports().items()
        for other in others
        if folder_of(other) in channels
        and not f"{folder_of(module)}/".startswith(f"{folder_of(other)}/")  # a folder of the channel's own
        and module not in {"activities.channels", "activities.as_sent"}
    }
    assert wrong == set()


@pytest.mark.parametrize("part", [*PRODUCT, "worker.py", "benchmarks", "docs", "examples", "tests"])
def test_no_file_is_longer_than_one_concept(part: str) -> None:
    lengths = {str(file.relative_to(CHECKOUT)): len(file.read_text().splitlines()) for file in files(part)}
    assert lengths
    limit = MAX_LINES_OF.get(part, MAX_LINES)
    long = {name: length for name, length in lengths.items() if length > limit}
    assert long == {}, f"a file has at most {limit} lines: move one of its concepts into a file of its own"


@pytest.mark.parametrize("part", PRODUCT)
def test_no_folder_is_crowded(part: str) -> None:
    numbers: dict[str, int] = {}
    for file in files(part):
        folder = str(file.parent.relative_to(CHECKOUT))
        numbers[folder] = numbers.get(folder, 0) + 1
    assert numbers
    crowded = {name: n for name, n in numbers.items() if n > MAX_FILES_OF.get(name, MAX_FILES)}
    assert crowded == {}, (
        f"a folder has at most {MAX_FILES} Python files: put those that belong together into one below it"
    )
