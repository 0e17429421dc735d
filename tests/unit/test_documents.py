"""What the documentation says is true: commands exist, code parses, links have targets, generated parts are up to date."""

import ast
import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from bellwire.contract import SEARCH_ATTRIBUTES
from bellwire.service.settings import Settings
from starter.cli.input.optional_values import with_seconds
from starter.cli.main import app
from tests.tracked import tracked_files

CHECKOUT = Path(__file__).parents[2]
PAGES = [
    *(CHECKOUT / name for name in ("README.md", "README.zh-CN.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *tracked_files("docs/**/*.md"),
]
DOCS = [page for page in PAGES if page.is_relative_to(CHECKOUT / "docs")]
EXAMPLES = tracked_files("examples/**/*.py")
#: Variables that are not settings: the secret of the receivers in examples/, the seed of tests/faults, and which tests may
#: not be skipped.
OTHER_VARIABLES = {
    "BELLWIRE_SECRET",
    "BELLWIRE_KEY",
    "BELLWIRE_URL",
    "BELLWIRE_FAULT_SEED",
    "BELLWIRE_TEST_MTAS",
    "BELLWIRE_TEST_LANGUAGES",
    "BELLWIRE_TEST_BROWSER",
}

#: Hosts of registries, in two parts so that this file names none.
REGISTRIES = [
    "py" + "pi.org",
    "python" + "hosted.org",
    "npm" + "js.org",
    "crates" + ".io",
    "docker" + ".io",
    "gh" + "cr.io",
]
ONE_MACHINE = re.compile(r"(?<![\w.$-])/(?:home|Users|root|work)/[a-z]")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(r"^```(\w*)[^\n]*\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(str(page.relative_to(CHECKOUT)), line, match[1], match[2]))
    return [block for block in found if block.language in languages]


def named(page: Path) -> str:
    return str(page.relative_to(CHECKOUT))


def commands(start: str) -> list[str]:
    """The lines of shell blocks and the spans of text that start with these words, each once; $VARIABLE as its name."""
    lines = [line for block in blocks("sh") for line in block.text.replace("\\\n", " ").splitlines()]
    spans = [span for page in PAGES for span in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", page.read_text())]
    found = [text.partition(" #")[0].strip().replace("$", "") for text in [*lines, *spans]]
    return sorted({text for text in found if text == start or text.startswith(start + " ")})


@pytest.mark.parametrize("line", [line for line in commands("python -m starter") if "docker" not in line])
def test_commands_of_the_starter_exist_with_their_options(line: str) -> None:
    arguments = with_seconds(shlex.split(line.partition(" > ")[0])[3:])
    if arguments == ["--version"]:
        return  # it prints and exits; another test looks at what it prints
    command: Any = get_command(app)
    context = command.make_context("starter", arguments or ["--help"]) if arguments else None
    while context is not None and hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        if not rest:
            break
        name, command, arguments = command.resolve_command(context, rest)
        # A span of text may name a command without the arguments that it needs.
        context = command.make_context(name, arguments, parent=context, resilient_parsing=not arguments)
        assert not context.args or hasattr(command, "resolve_command")


@pytest.mark.parametrize("line", commands("make"))
def test_make_targets_and_variables_exist(line: str) -> None:
    makefile = (CHECKOUT / "Makefile").read_text()
    for word in shlex.split(line)[1:]:
        variable, is_variable, _ = word.partition("=")
        assert f"$({variable})" in makefile or f"$(if $({variable})" in makefile if is_variable else True
        assert is_variable or re.search(rf"^{word}:.*## ", makefile, flags=re.MULTILINE), word


@pytest.mark.parametrize("line", commands("temporal"))
def test_commands_of_the_temporal_cli_exist_with_their_flags(line: str) -> None:
    words = shlex.split(line)
    verbs = words[1 : next((at for at, word in enumerate(words) if word.startswith("--")), len(words))]
    program = Path(sys.executable).parent / "temporal"
    shown = subprocess.run([program, *verbs, "--help"], capture_output=True, text=True, check=True).stdout
    assert f"temporal {' '.join(verbs)}" in shown
    # Those that all commands share.
    shown += subprocess.run([program, "options"], capture_output=True, text=True, check=True).stdout
    for flag in (word for word in words if word.startswith("--")):
        assert re.search(rf"{flag}\b", shown), flag


def test_options_of_the_worker_exist() -> None:
    shown = subprocess.run(
        [sys.executable, "worker.py", "--help"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    lines = commands("python worker.py")
    assert lines
    for flag in {word for line in lines for word in shlex.split(line) if word.startswith("--")}:
        assert flag in shown.stdout


@pytest.mark.parametrize("line", [line for line in commands("python") if line.startswith("python examples/")])
def test_scripts_that_are_named_exist(line: str) -> None:
    assert (CHECKOUT / line.split()[1]).is_file()


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_in_documents_parses_and_imports_what_exists(block: Block) -> None:
    tree = ast.parse(block.text)
    # A page that shows how to add a file may import it.
    added = set(re.findall(r'title="([\w/]+)\.py"', (CHECKOUT / block.page).read_text()))
    # An excerpt from an asynchronous function may stand alone; what starts its own loop is a whole program.
    is_program = "asyncio.run(" in block.text
    compile(tree, str(block), "exec", flags=0 if is_program else ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").replace(".", "/") not in added:
            module = importlib.import_module(node.module or "")
            assert [alias.name for alias in node.names if not _has(module, alias.name)] == []


def _has(module: Any, name: str) -> bool:
    """Whether `from module import name` works: a name, or a module of the package."""
    return hasattr(module, name) or importlib.util.find_spec(f"{module.__name__}.{name}") is not None


def test_shell_in_documents_parses() -> None:
    for block in blocks("sh"):
        subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
    assert blocks("sh")


def test_the_readme_shows_the_example_as_it_is() -> None:
    (shown,) = (
        block.text for block in blocks("python") if block.page == "README.md" and "async def main" in block.text
    )
    assert shown in (CHECKOUT / "examples" / "publish.py").read_text()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_short_and_need_bellwire_only(example: Path) -> None:
    text = example.read_text()
    assert len(text.splitlines()) < 60
    roots = {name.split(".")[0] for node in ast.walk(ast.parse(text)) for name in _imports(node)}
    assert roots <= {"bellwire", *sys.stdlib_module_names}


def _imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_have_targets(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.is_file(), target
        assert not anchor or anchor in _anchors(file), target


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_in_the_navigation_and_the_readme_links_to_the_site() -> None:
    listed = set(_pages_of(yaml.safe_load((CHECKOUT / "mkdocs.yml").read_text())["nav"]))
    # The hooks of the site make it from CHANGELOG.md.
    assert listed - {"changelog.md"} == {str(page.relative_to(CHECKOUT / "docs")) for page in DOCS}
    readme = (CHECKOUT / "README.md").read_text()
    for page in ("docs/index.md", "CHANGELOG.md", "CONTRIBUTING.md"):
        assert f"]({page})" in readme


def _pages_of(nav: Any) -> Iterator[str]:
    for entry in nav:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        yield from [value] if isinstance(value, str) else _pages_of(value)


def test_the_readme_is_short() -> None:
    assert len((CHECKOUT / "README.md").read_text().splitlines()) <= 130


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_names_in_documents_exist(page: Path) -> None:
    text = page.read_text()
    settings = {f"BELLWIRE_{name.upper()}" for name in Settings.model_fields}
    named = {name.partition("__")[0] for name in re.findall(r"\bBELLWIRE_[A-Z_]+\b", text)}
    assert named <= settings | OTHER_VARIABLES
    classes = {"BellwireEnvironment", "BellwireError", "BellwireService"}
    assert set(re.findall(r"\bBellwire[A-Z]\w+", text)) <= {key.name for key in SEARCH_ATTRIBUTES} | classes


def test_no_file_names_a_registry_or_a_path_of_one_machine() -> None:
    found = [
        f"{named(file)}: {match}"
        for file in tracked_files()
        for text in [file.read_text(errors="replace")]
        for match in [*(host for host in REGISTRIES if host in text), *ONE_MACHINE.findall(text)]
    ]
    assert found == []


def test_decisions_have_a_date_and_five_lines() -> None:
    _, *decisions = re.split(
        r"^## ", (CHECKOUT / "docs" / "explanation" / "decisions.md").read_text(), flags=re.MULTILINE
    )
    for decision in decisions:
        heading, *lines = [line for line in decision.splitlines() if line]
        assert re.search(r"\(\d{4}-\d\d-\d\d\)$", heading), heading
        assert len(lines) == 5, heading
