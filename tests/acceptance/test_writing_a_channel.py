"""The page "Writing a channel" is followed literally: in a copy of the checkout, its changes make two channels that deliver."""

import asyncio
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from starter.checkout import CHECKOUT

PAGE = CHECKOUT / "docs" / "how-to" / "writing-a-channel.md"
#: What the copy needs to run a worker and the tests of channels.
PRODUCT = ("bellwire", "workflows", "activities", "starter", "tests")
#: The section with the second channel, and which steps of the first one it repeats.
ACCOUNTS = "## A provider with an account"
REPEATED = ("targets/channel.py", "targets/specs.py", "chat/opening.py", "sandbox/markup.py")
_BLOCK = re.compile(r'^```(?P<language>\w+) title="(?P<file>[^"]+)"\n(?P<text>.*?)^```$', re.DOTALL | re.MULTILINE)
#: Where the page shows a file that is not part of the checkout.
EXAMPLES = {"mattermost.json"}


class PageWrong(AssertionError):
    """The page does not fit the checkout."""


def apply(page: str, root: Path) -> list[str]:
    """Make the changes of the page in the folder, and return the files. A diff's context and removed lines must match once."""
    changed = []
    for block in _BLOCK.finditer(page):
        if block["file"] in EXAMPLES:
            continue
        file = root / block["file"]
        if block["language"] == "diff":
            file.write_text(_patched(file.read_text(), block["text"].splitlines(), block["file"]))
        elif file.exists():
            raise PageWrong(f"{block['file']} exists already")
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block["text"])
        changed.append(block["file"])
    return changed


def repeated(page: str) -> str:
    """The steps that are the same for the second channel, with its name; what differs is said on the page."""
    steps = "".join(block[0] + "\n" for block in _BLOCK.finditer(page) if block["file"].endswith(REPEATED))
    for one, other in (("mattermost", "line"), ("MATTERMOST", "LINE"), ("Mattermost", "Line")):
        steps = steps.replace(one, other)
    steps, opened = re.subn(r"LineChannel\(parts\)", "LineChannel(parts, accounts.line)", steps)
    steps, escaped = re.subn(r'("line.text": ).*,', r"\1str,", steps)
    assert (opened, escaped) == (1, 1)
    return steps


def _patched(text: str, diff: list[str], name: str) -> str:
    """The text with the diff's `+` lines after the context line or the removed line above them, or before the first one."""
    lines, added = text.splitlines(), list[str]()
    #: Where the next added line goes; None above the first line that must match.
    position: int | None = None
    for change in diff:
        sign, line = change[0], change[1:]
        if sign == "+":
            if position is None:
                added.append(line)
            else:
                lines.insert(position, line)
                position += 1
        elif sign in " -":
            if lines.count(line) != 1:
                raise PageWrong(f"{name} has {lines.count(line)} lines {line!r}")
            position = lines.index(line)
            lines[position:position] = added
            position += len(added)
            added = []
            if sign == "-":
                del lines[position]
            else:
                position += 1
        else:
            raise PageWrong(f"{name}: {change!r} is not a line of a diff")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the product with the channels of the page."""
    root = tmp_path_factory.mktemp("checkout")
    for part in PRODUCT:
        shutil.copytree(CHECKOUT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "worker.py", root)
    shutil.copy(CHECKOUT / "pyproject.toml", root)
    shutil.copy(Path(__file__).with_name("chat_driver.py"), root)
    page, rest = PAGE.read_text().split(ACCOUNTS)
    assert "`LineChannel(parts, accounts.line)`" in rest
    assert '`"line.text": str`' in page
    changed = apply(page, root)
    assert sorted(changed) == sorted(set(changed)), "each file is changed in one place"
    assert len(changed) <= 6
    apply(repeated(page), root)
    apply(rest, root)
    return root


async def run(root: Path, *command: str) -> None:
    """Run a Python command in the copy."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *command), cwd=root, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, output.decode() + errors.decode()


@pytest.fixture(scope="module")
async def result(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What `chat_driver.py` sent and recorded."""
    folder = tmp_path_factory.mktemp("result")
    await run(copy, "chat_driver.py", str(folder))
    return json.loads((folder / "result.json").read_text())


def outcomes(result: Any, room: str) -> list[tuple[str, str, float | None, bool]]:
    return [
        (each["outcome"]["kind"], each["outcome"]["reason"], each["delay"], each["from_retry_after"])
        for each in result["attempts"][room]
    ]


async def test_channel_of_the_page_delivers(result: Any) -> None:
    assert outcomes(result, "open") == [("delivered", "Mattermost 201", None, False)]
    (post,) = result["posts"]["open"]
    assert post["text"].startswith("Order order 42 @\u200ball is paid\n"), "data pings nobody"
    assert result["counts"] == {"matched": 3, "delivered": 2, "rejected": 1, "exhausted": 0, "cancelled": 0}


async def test_channel_of_the_page_defers_by_retry_after_and_by_its_schedule(result: Any) -> None:
    assert outcomes(result, "busy") == [
        ("deferred", "Mattermost 500", 1200.0, True),
        ("deferred", "Mattermost 503", 300.0, False),
        ("delivered", "Mattermost 201", None, False),
    ]
    assert len({post["text"] for post in result["posts"]["busy"]}) == 1, "each attempt posts the same"


async def test_channel_of_the_page_rejects_and_disables(result: Any) -> None:
    assert outcomes(result, "gone") == [("rejected", "Mattermost 410", None, False)]
    assert result["states"] == {"open": "active", "busy": "active", "gone": "disabled"}


async def test_address_of_the_page_is_not_shown(result: Any) -> None:
    assert result["shown"] == {"channel": "mattermost", "url": "**********"}
    reasons = [each["outcome"]["reason"] for attempts in result["attempts"].values() for each in attempts]
    assert not any("127.0.0.1" in reason for reason in reasons)


async def test_code_of_the_page_passes_the_linter(copy: Path) -> None:
    files = {block["file"] for block in _BLOCK.finditer(PAGE.read_text())} - EXAMPLES
    for command in (("check",), ("format", "--check")):
        await run(copy, "-m", "ruff", *command, "--quiet", "--no-cache", *files)


@pytest.mark.slow
async def test_channels_of_the_page_promise_what_every_channel_does(copy: Path) -> None:
    files = [f"tests/{name}.py" for name in ("activities/test_channels", "registry/test_erasing_channels")]
    files += [f"tests/unit/test_{name}.py" for name in ("targets", "architecture")]
    chosen = "(line or mattermost or double or stub) and not postgresql and not import"
    await run(copy, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-k", chosen, *files)


@pytest.mark.parametrize(
    ("right", "wrong", "problem"),
    [
        ('     EMAIL = "email"', '     EMAIL = "mail"', "bellwire/targets/channel.py has 0 lines"),
        (
            'title="bellwire/targets/chat/mattermost.py"',
            'title="bellwire/targets/sms.py"',
            "bellwire/targets/sms.py exists already",
        ),
    ],
)
def test_page_that_does_not_fit_the_checkout_is_found(tmp_path: Path, right: str, wrong: str, problem: str) -> None:
    shutil.copytree(CHECKOUT / "bellwire", tmp_path / "bellwire", ignore=shutil.ignore_patterns("__pycache__"))
    page = PAGE.read_text()
    assert page.count(right) == 1
    with pytest.raises(PageWrong, match=problem):
        apply(page.replace(right, wrong), tmp_path)
