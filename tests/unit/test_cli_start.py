"""How the command line starts: what it imports, its version, its summaries, and warnings about misspelt settings."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from bellwire.service.settings import Settings
from bellwire.service.variables import misspelt_variables
from starter.cli.commands import COMMANDS
from starter.cli.main import app, main

CHECKOUT = Path(__file__).parents[2]
#: What takes most of the time of importing the commands.
HEAVY = ("temporalio", "sqlalchemy", "alembic", "pydantic", "aiohttp", "structlog", "rich", "bellwire", "asyncio")


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_the_overview_and_the_version_import_nothing_heavy(option: str) -> None:
    code = f"""
import sys
from starter.cli.main import main
assert main([{option!r}]) == 0
print("imported:", *(name for name in {HEAVY} if name in sys.modules))
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1].split() == ["imported:"]


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"bellwire {version('bellwire')}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_summary_is_the_first_sentence_of_the_command(name: str) -> None:
    root: Any = get_command(app)
    assert root.commands[name].get_short_help_str(1000) == COMMANDS[name].summary


@pytest.mark.parametrize("group", [[], ["events"], ["deliveries"], ["keys"], ["templates"]])
def test_a_group_without_a_command_prints_its_help(group: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(group) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "error:" not in err
    assert err.startswith(" ".join(["Usage: python -m starter", *group]))
    assert "\n\nCommands:\n  " in err


def test_misspelt_settings_are_named_with_the_nearest_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {
        "BELLWIRE_REGISTY_URL": "postgresql://user:secret@db/x",
        "BELLWIRE_SMTP_HOST": "mail",
        "BELLWIRE_SMS_SECRETS__ACME": "x",
        "BELLWIRE_QQQ": "1",
        "bellwire_smtp_port": "25",
        "PATH": "/bin",
    }
    assert misspelt_variables(given, Settings.model_fields) == [
        "BELLWIRE_QQQ is not a setting and has no effect; the settings are listed in docs/reference/settings.md",
        "BELLWIRE_REGISTY_URL is not a setting and has no effect; did you mean BELLWIRE_REGISTRY_URL?",
    ]
    monkeypatch.setenv("BELLWIRE_REGISTY_URL", "postgresql://user:secret@db/x")
    assert main(["templates", "list"]) == 0
    err = capsys.readouterr().err
    assert err.startswith("warning: BELLWIRE_REGISTY_URL is not a setting")
    assert "secret" not in err
