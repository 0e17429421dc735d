"""Packaging: the contents of the wheel, and pinned dependencies."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

CHECKOUT = Path(__file__).parents[2]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the installed backend, without network."""
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=CHECKOUT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_contains_only_the_package_bellwire(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = {name for name in names if not name.startswith(f"bellwire-{PROJECT['version']}.dist-info/")}
    sources = {str(file.relative_to(CHECKOUT)) for file in (CHECKOUT / "bellwire").rglob("*") if _belongs(file)}
    bundled = {f"bellwire/testing/{file.relative_to(CHECKOUT)}" for file in (CHECKOUT / "workflows").rglob("*.py")}
    assert package == sources | bundled
    assert "bellwire/registry/migrations/env.py" in package
    assert any(name.startswith("bellwire/registry/migrations/versions/") for name in package)


def test_the_workflows_in_the_wheel_import_each_other_by_their_name_there(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        texts = [
            archive.read(name).decode() for name in archive.namelist() if name.startswith("bellwire/testing/workf")
        ]
    assert len(texts) >= 10
    imports = [node for text in texts for node in ast.walk(ast.parse(text))]
    named = {node.module for node in imports if isinstance(node, ast.ImportFrom)}
    named |= {each.name for node in imports if isinstance(node, ast.Import) for each in node.names}
    assert not {name for name in named if name and name.split(".")[0] == "workflows"}
    assert "bellwire.testing.workflows.rounds.run" in named


def _belongs(file: Path) -> bool:
    return file.is_file() and "__pycache__" not in file.parts


def test_the_wheel_requires_pydantic_and_temporalio_only(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    needed = [Requirement(line) for line in metadata.get_all("Requires-Dist") or ()]
    assert {each.name for each in needed if each.marker is None} == {"pydantic", "temporalio"}
    assert all("extra ==" in str(each.marker) for each in needed if each.marker is not None)


def test_every_dependency_has_one_pinned_version_that_is_installed() -> None:
    lines = [line for line in (CHECKOUT / "constraints.txt").read_text().splitlines() if line]
    pinned = dict(line.split("==") for line in lines)
    assert len(pinned) == len(lines)
    (installed,) = re.findall(r"-e '\.\[([\w,]+)\]'\n\t@touch", (CHECKOUT / "Makefile").read_text())
    extras = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    for extra, texts in extras.items():
        for text in texts:
            needed = Requirement(text)
            assert needed.specifier.contains(pinned[needed.name]), text
            # Further extras are installed by the targets that need them.
            if extra in {"", *installed.split(",")}:
                assert version(needed.name) == pinned[needed.name]
