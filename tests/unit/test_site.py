"""The documentation site: what is wrong with a page fails `make docs`."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
#: What the site is made from.
SOURCES = ("docs", "bellwire", "examples", "mkdocs.yml", "CHANGELOG.md", "CONTRIBUTING.md", "README.md")


@pytest.mark.slow
def test_warnings_fail_the_build(tmp_path: Path) -> None:
    for name in SOURCES:
        source = CHECKOUT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        else:
            shutil.copy(source, tmp_path)
    (tmp_path / "docs" / "forgotten.md").write_text("# A page that is not in the navigation\n")
    with (tmp_path / "docs" / "index.md").open("a") as page:
        page.write(
            "\n[no page](nowhere.md) [no heading](tutorial.md#nowhere) ![elsewhere](https://example.com/x.png)\n"
        )

    built = make_docs(tmp_path)

    assert built.returncode == 1
    warnings = [line for line in built.stderr.splitlines() if line.startswith("WARNING")]
    assert "  - forgotten.md" in built.stderr
    for expected in ("'nowhere.md'", "'#nowhere'", "index.html loads https://example.com/x.png"):
        assert [line for line in warnings if expected in line], expected


def make_docs(checkout: Path) -> subprocess.CompletedProcess[str]:
    """What `make docs` runs, in another checkout."""
    found = re.search(
        r"^docs:.*\n\t(?:\w+=\S+ )*\$\(BIN\)/python (-m mkdocs .*)$", (CHECKOUT / "Makefile").read_text(), re.MULTILINE
    )
    assert found
    command = [sys.executable, *shlex.split(found[1])]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "NO_COLOR": "1"}
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
