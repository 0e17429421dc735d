"""docs/tutorial.md, followed to the letter: every command is run, in its terminal, and prints what the page shows."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from starter.local.processes import free_port

CHECKOUT = Path(__file__).parents[2]
PAGE = (CHECKOUT / "docs" / "tutorial.md").read_text()
#: Blocks of commands and of output with the number of their terminal, and where Ctrl-C is pressed; in the page's order.
STEPS = re.compile(
    r'^```(?P<kind>sh|text)(?: title="Terminals? (?P<terminal>\d)[^"]*")?\n(?P<text>.*?)^```$'
    r"|Press Ctrl-C in terminal (?P<stopped>\d)",
    flags=re.MULTILINE | re.DOTALL,
)
#: The port of the receiver on the page. The test takes a free one.
PORT = "8000"
SECONDS = 120


@dataclass
class Terminal:
    """One shell with its variables, what it printed, and the program in its foreground."""

    output: Path
    variables: dict[str, str]
    foreground: subprocess.Popen[bytes] | None = field(default=None)

    def run(self, script: str) -> str:
        """Run commands to their end; what they print. Variables that they export stay."""
        marked = f"{script}\nprintf '\\0' && env -0"
        done = subprocess.run(
            ["bash", "-euc", marked], env=self.variables, cwd=CHECKOUT, capture_output=True, timeout=SECONDS, check=True
        )
        printed, _, variables = done.stdout.decode().partition("\0")
        self.variables = dict(pair.partition("=")[::2] for pair in variables.split("\0") if "=" in pair)
        with self.output.open("a") as file:
            file.write(printed)
        return printed

    def start(self, command: list[str]) -> None:
        """Start a program that stays in the foreground."""
        with self.output.open("ab") as file:
            self.foreground = subprocess.Popen(
                command, env=self.variables, cwd=CHECKOUT, stdout=file, stderr=subprocess.STDOUT
            )

    def press_ctrl_c(self) -> None:
        assert self.foreground is not None
        self.foreground.send_signal(signal.SIGINT)
        self.foreground.wait(SECONDS)
        self.foreground = None

    def close(self) -> None:
        if self.foreground is not None:
            self.press_ctrl_c()


class Reader:
    """Follows the page in three terminals."""

    def __init__(self, folder: Path) -> None:
        self.port, self.folder = str(free_port()), folder
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("BELLWIRE_", "TEMPORAL_"))}
        self.terminals = {
            number: Terminal(folder / f"terminal-{number}", {**clean, "PATH": path, "COLUMNS": "80"})
            for number in ("1", "2", "3")
        }
        self.last = ("3", "")
        self.secret = ""

    def follow(self, step: re.Match[str]) -> None:
        if step["stopped"]:
            self.terminals[step["stopped"]].press_ctrl_c()
        elif step["kind"] == "text":
            self.expect(step["terminal"], step["text"].replace(PORT, self.port))
        else:
            for line in step["text"].replace("\\\n", "").splitlines():
                self.type(self.terminals[step["terminal"]], line.replace(PORT, self.port), step["terminal"])

    def type(self, terminal: Terminal, line: str, number: str) -> None:
        self.last = (number, line)
        if line == "make dev":
            self.start_stack(terminal)
        elif line == "source .venv/bin/activate":
            assert "pyvenv.cfg" in {file.name for file in Path(sys.executable).parents[1].iterdir()}
        elif "receive_webhook.py" in line:
            terminal.start(shlex.split(line))
        else:
            printed = terminal.run(line.replace("whsec_…", self.secret))
            if found := re.search(r"whsec_[\w+/=]+", printed):
                self.secret = found[0]

    def start_stack(self, terminal: Terminal) -> None:
        """`make dev`, on free ports and in a folder of its own; then the `export` lines are pasted."""
        assert "\n\t$(BIN)/python -m starter dev\n" in (CHECKOUT / "Makefile").read_text()
        options = ["--free-ports", "--folder", str(self.folder / "stack"), "--json"]
        terminal.start([sys.executable, "-m", "starter", "dev", *options])
        for _ in _attempts("the stack did not start"):
            printed = terminal.output.read_text()
            if "}\n}" in printed:
                break
        ready = json.loads(printed[printed.index("{") : printed.index("}\n}") + 3])
        for other in ("2", "3"):
            self.terminals[other].variables.update(ready["variables"])

    def expect(self, number: str | None, text: str) -> None:
        """Each line of the text is printed: by the terminal so named, or by the last command, which is run until it does."""
        terminal = self.terminals[number or self.last[0]]
        for line in text.splitlines():
            for _ in _attempts(f"the page shows {line!r} after {self.last[1]!r}; see {terminal.output}"):
                if terminal.foreground is None and number is None:
                    printed = terminal.run(self.last[1])
                else:
                    printed = terminal.output.read_text()
                if _pattern(line).search(printed):
                    break


def _attempts(failure: str) -> Iterator[None]:
    """Yields until the loop is left. Fails after SECONDS."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        yield
        time.sleep(0.2)
    pytest.fail(failure)


def _pattern(line: str) -> re.Pattern[str]:
    """A line of output; dates, times and milliseconds may differ, and `…` stands for anything."""
    line = re.sub(r"\d{4}-\d\d-\d\d|\d\d:\d\d:\d\dZ?|\d+(?= ms)", "…", line)
    words = [word for word in re.split(r"[\s│]+", line) if word]
    return re.compile(r"[\s│]+".join(r"\S+" if word == "…" else re.escape(word) for word in words))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_tutorial_works_as_it_is_written(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    with ExitStack() as stack:
        for terminal in reader.terminals.values():
            stack.callback(terminal.close)
        for step in STEPS.finditer(PAGE):
            reader.follow(step)
    received = reader.terminals["2"].output.read_text().splitlines()
    assert [line.split()[1] for line in received if line.startswith("order.paid")] == ["order-42-paid", "order-43-paid"]


def test_every_block_of_the_tutorial_is_in_a_terminal() -> None:
    assert len(re.findall(r"^```(?:sh|text)", PAGE, flags=re.MULTILINE)) == len(
        [step for step in STEPS.finditer(PAGE) if step["kind"]]
    )
    assert all(step["terminal"] for step in STEPS.finditer(PAGE) if step["kind"] == "sh")
