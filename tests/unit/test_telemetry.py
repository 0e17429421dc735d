"""Logs: one line per event, in one format, and failed writes never stop a delivery."""

import asyncio
import errno
import io
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from temporalio.testing import WorkflowEnvironment

from bellwire.service.settings import LogFormat
from bellwire.service.telemetry import configure_logs

CHECKOUT = Path(__file__).parents[2]
#: Without the variable that chooses what the SDK's core logs.
ENVIRONMENT = {**os.environ, "RUST_LOG": ""}


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Restore the loggers for other tests."""
    config, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.configure(**config)
    root.handlers[:] = handlers
    root.setLevel(level)


def written(capsys: pytest.CaptureFixture[str], last: str) -> list[str]:
    """Wait for the event `last`, and return the lines of the log up to it."""
    text, ends_at = "", time.monotonic() + 60
    while last not in text:
        assert time.monotonic() < ends_at, text
        time.sleep(0.005)
        text += capsys.readouterr().err
    return text.splitlines()


def events(capsys: pytest.CaptureFixture[str], last: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written(capsys, last)]


def test_each_event_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogFormat.JSON, "INFO")
    log = structlog.get_logger("bellwire")
    log.info("delivery.attempted", delivery="dlv_1", reason='said:\n"no"', duration_ms=7, provider_id=None)
    log.warning("worker.stopping")
    first, second = events(capsys, "worker.stopping")
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "event": "delivery.attempted",
        "level": "info",
        "delivery": "dlv_1",
        "reason": 'said:\n"no"',
        "duration_ms": 7,
        "provider_id": None,
    }
    assert (second["event"], second["level"]) == ("worker.stopping", "warning")


@pytest.mark.parametrize("value", ["lone surrogate \ud800", 2**70, "\u2028 \x00", {"of": {1: "a"}}])
def test_untrusted_values_are_written(capsys: pytest.CaptureFixture[str], value: Any) -> None:
    configure_logs(LogFormat.JSON, "INFO")
    structlog.get_logger("bellwire").info("delivery.attempted", response=value)
    (line,) = events(capsys, "delivery.attempted")
    assert line["response"] == json.loads(json.dumps(value))


@pytest.mark.parametrize("log", [structlog.get_logger("bellwire"), logging.getLogger("library")])
def test_values_bound_to_the_process_are_on_every_line(capsys: pytest.CaptureFixture[str], log: Any) -> None:
    configure_logs(LogFormat.JSON, "INFO")
    with structlog.contextvars.bound_contextvars(process=2):
        log.info("worker.started")
    (line,) = events(capsys, "worker.started")
    assert line["process"] == 2


@pytest.mark.parametrize(
    ("level", "names"),
    [
        ("DEBUG", ["at.debug", "at.info", "at.warning", "at.error"]),
        ("INFO", ["at.info", "at.warning", "at.error"]),
        ("WARNING", ["at.warning", "at.error"]),
        ("ERROR", ["at.error"]),
    ],
)
def test_the_level_applies_to_all_loggers(capsys: pytest.CaptureFixture[str], level: str, names: list[str]) -> None:
    configure_logs(LogFormat.JSON, level)
    for log in (structlog.get_logger("bellwire"), logging.getLogger("library")):
        for name in ("debug", "info", "warning", "error"):
            getattr(log, name)(f"at.{name}")
        assert [line["event"] for line in events(capsys, "at.error")] == names


def test_loggers_of_the_standard_library_have_the_same_format(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogFormat.JSON, "INFO")
    structlog.get_logger().info("from.structlog")
    (own,) = events(capsys, "from.structlog")
    logging.getLogger("temporalio").info("from.logging")
    (other,) = events(capsys, "from.logging")
    assert own.keys() == other.keys() == {"event", "level", "timestamp"}
    assert (other["event"], other["level"]) == ("from.logging", "info")


def test_an_exception_is_on_the_line_of_its_event(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogFormat.JSON, "INFO")
    for log in (structlog.get_logger("bellwire"), logging.getLogger("library")):
        try:
            int("seven")
        except ValueError:
            log.exception("activity.failed")
        (line,) = events(capsys, "activity.failed")
        assert line["exception"].endswith("ValueError: invalid literal for int() with base 10: 'seven'")
        assert line["level"] == "error"


@pytest.mark.parametrize("log", [structlog.get_logger("bellwire"), logging.getLogger("library")])
def test_the_console_format_is_readable(capsys: pytest.CaptureFixture[str], log: Any) -> None:
    configure_logs(LogFormat.CONSOLE, "INFO")
    log.warning("worker.stopping")
    (line,) = written(capsys, "worker.stopping")
    assert "warning" in line
    assert not line.startswith("{")


class Unwritable(io.StringIO):
    """Standard error on a full disk or a closed pipe."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error, self.tried = error, 0

    def write(self, _: str) -> int:
        self.tried += 1
        raise self.error


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), BrokenPipeError(), ValueError("I/O operation on closed file")]
)
def test_a_failed_write_does_not_raise_and_writing_continues(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    configure_logs(LogFormat.JSON, "INFO")
    log, unwritable = structlog.get_logger("bellwire"), Unwritable(error)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", unwritable)
        ends_at = time.monotonic() + 60
        log.info("delivery.attempted")
        while not unwritable.tried:
            assert time.monotonic() < ends_at
            time.sleep(0.005)
    log.info("worker.stopping")
    assert [line["event"] for line in events(capsys, "worker.stopping")][-1] == "worker.stopping"


def test_a_full_disk_does_not_raise_in_the_standard_librarys_loggers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unwritable = Unwritable(OSError(errno.ENOSPC, "full"))
    monkeypatch.setattr(sys, "stderr", unwritable)
    configure_logs(LogFormat.JSON, "INFO")
    logging.getLogger("library").warning("retried")
    assert unwritable.tried


def json_logger(code: str) -> list[str]:
    """The command of a program that logs JSON."""
    start = """
import asyncio, logging, sys, threading, warnings
from bellwire.service.settings import LogFormat
from bellwire.service.telemetry import configure_logs, runtime
configure_logs(LogFormat.JSON, "INFO")
"""
    return [sys.executable, "-c", start + code]


def run_json(code: str) -> list[dict[str, Any]]:
    """The lines on stderr of a program that logs JSON; each must be JSON."""
    ran = subprocess.run(json_logger(code), capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert ran.stdout == ""
    return [json.loads(line) for line in ran.stderr.splitlines()]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise RuntimeError('no\\nhope')", ["process.failed", "RuntimeError: no"]),
        ("warnings.warn('old\\nthing')", ["UserWarning", "old"]),
        ("t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()", ["thread.failed", "ZeroDivisionError"]),
        ("class A:\n  def __del__(self): 1 / 0\nA()", ["cleanup.failed", "ZeroDivisionError"]),
        (
            """
async def main():
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)

asyncio.run(main())
""",
            ["Exception in callback", "ZeroDivisionError"],
        ),
        ("logging.getLogger('uvicorn.error').error('port\\nbusy')", ["port"]),
    ],
)
def test_what_python_prints_is_json_too(code: str, said: list[str]) -> None:
    (line,) = run_json(code)
    assert all(words in json.dumps(line) for words in said)
    assert {"event", "level", "timestamp"} <= line.keys()


async def test_the_lines_of_the_sdk_core_are_json_too(time_skipping: WorkflowEnvironment) -> None:
    """The SDK's core warns of the test server, which lacks a capability."""
    code = f"""
from temporalio import activity
from temporalio.client import Client
from temporalio.worker import Worker

@activity.defn
async def nothing() -> None: ...

async def main():
    client = await Client.connect({time_skipping.client.service_client.config.target_host!r}, runtime=runtime(None))
    await Worker(client, task_queue="any", activities=[nothing]).run()

asyncio.run(main())
"""
    program = await asyncio.create_subprocess_exec(*json_logger(code), stderr=subprocess.PIPE, env=ENVIRONMENT)
    assert program.stderr
    try:
        async with asyncio.timeout(60):
            while "sdk_core" not in (line := json.loads(await program.stderr.readline()))["event"]:
                pass
    finally:
        program.kill()
        await program.wait()
    assert line["level"] == "warning"


@pytest.mark.parametrize("variable", ["BELLWIRE_REGISTRY_URL", "BELLWIRE_LOG_LEVEL"])
def test_a_worker_that_cannot_start_says_so_in_json(variable: str) -> None:
    environment = {**os.environ, "BELLWIRE_LOG_FORMAT": "json", variable: "nonsense"}
    command = [sys.executable, "worker.py"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=CHECKOUT)
    (line,) = [json.loads(text) for text in ran.stderr.splitlines()]
    assert (ran.returncode, line["event"]) == (1, "worker.failed")
    assert variable in line["error"]
