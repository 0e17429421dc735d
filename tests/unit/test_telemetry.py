"""Logs: one line per fact, in one form for all, and never in the way of a delivery."""

import errno
import io
import json
import logging
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from bellwire.service.settings import LogFormat
from bellwire.service.telemetry import configure_logs


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Loggers of other tests write as they did."""
    config, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.configure(**config)
    root.handlers[:] = handlers
    root.setLevel(level)


def written(capsys: pytest.CaptureFixture[str], last: str) -> list[str]:
    """The lines of the log up to the fact `last`, as soon as it is there."""
    text, ends_at = "", time.monotonic() + 10
    while last not in text:
        assert time.monotonic() < ends_at, text
        time.sleep(0.005)
        text += capsys.readouterr().err
    return text.splitlines()


def told(capsys: pytest.CaptureFixture[str], last: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written(capsys, last)]


def test_each_fact_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogFormat.JSON, "INFO")
    log = structlog.get_logger("bellwire")
    log.info("delivery.attempted", delivery="dlv_1", reason='said:\n"no"', duration_ms=7, provider_id=None)
    log.warning("worker.stopping")
    first, second = told(capsys, "worker.stopping")
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


@pytest.mark.parametrize("said", ["half a pair \ud800", 2**70, "\u2028 \x00", {"of": {1: "a"}}])
def test_whatever_a_stranger_says_is_written(capsys: pytest.CaptureFixture[str], said: Any) -> None:
    configure_logs(LogFormat.JSON, "INFO")
    structlog.get_logger("bellwire").info("delivery.attempted", answer=said)
    (line,) = told(capsys, "delivery.attempted")
    assert line["answer"] == json.loads(json.dumps(said))


@pytest.mark.parametrize("log", [structlog.get_logger("ours"), logging.getLogger("theirs")])
def test_what_is_bound_to_the_process_is_on_every_line(capsys: pytest.CaptureFixture[str], log: Any) -> None:
    configure_logs(LogFormat.JSON, "INFO")
    with structlog.contextvars.bound_contextvars(process=2):
        log.info("worker.started")
    (line,) = told(capsys, "worker.started")
    assert line["process"] == 2


@pytest.mark.parametrize(
    ("level", "facts"),
    [
        ("DEBUG", ["at.debug", "at.info", "at.warning", "at.error"]),
        ("INFO", ["at.info", "at.warning", "at.error"]),
        ("WARNING", ["at.warning", "at.error"]),
        ("ERROR", ["at.error"]),
    ],
)
def test_the_level_holds_for_our_loggers_and_for_those_of_libraries(
    capsys: pytest.CaptureFixture[str], level: str, facts: list[str]
) -> None:
    configure_logs(LogFormat.JSON, level)
    for log in (structlog.get_logger("ours"), logging.getLogger("theirs")):
        for name in ("debug", "info", "warning", "error"):
            getattr(log, name)(f"at.{name}")
        assert [line["event"] for line in told(capsys, "at.error")] == facts


def test_a_logger_of_the_standard_library_takes_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogFormat.JSON, "INFO")
    structlog.get_logger().info("of.ours")
    (ours,) = told(capsys, "of.ours")
    logging.getLogger("temporalio").info("of.theirs")
    (theirs,) = told(capsys, "of.theirs")
    assert ours.keys() == theirs.keys() == {"event", "level", "timestamp"}
    assert (theirs["event"], theirs["level"]) == ("of.theirs", "info")


def test_an_exception_is_on_the_line_of_its_fact(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogFormat.JSON, "INFO")
    for log in (structlog.get_logger("ours"), logging.getLogger("theirs")):
        try:
            int("seven")
        except ValueError:
            log.exception("activity.failed")
        (line,) = told(capsys, "activity.failed")
        assert line["exception"].endswith("ValueError: invalid literal for int() with base 10: 'seven'")
        assert line["level"] == "error"


@pytest.mark.parametrize("log", [structlog.get_logger("ours"), logging.getLogger("theirs")])
def test_people_get_a_line_that_they_can_read(capsys: pytest.CaptureFixture[str], log: Any) -> None:
    configure_logs(LogFormat.CONSOLE, "INFO")
    log.warning("worker.stopping")
    (line,) = written(capsys, "worker.stopping")
    assert "warning" in line
    assert not line.startswith("{")


class Unwritable(io.StringIO):
    """Standard error on a full disk, or of a process that nobody listens to any more."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error, self.tried = error, 0

    def write(self, _: str) -> int:
        self.tried += 1
        raise self.error


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), BrokenPipeError(), ValueError("I/O operation on closed file")]
)
def test_a_standard_error_that_cannot_be_written_stops_nobody_and_is_tried_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    configure_logs(LogFormat.JSON, "INFO")
    log, unwritable = structlog.get_logger("bellwire"), Unwritable(error)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", unwritable)
        ends_at = time.monotonic() + 10
        log.info("delivery.attempted")
        while not unwritable.tried:
            assert time.monotonic() < ends_at
            time.sleep(0.005)
    log.info("worker.stopping")
    assert [line["event"] for line in told(capsys, "worker.stopping")][-1] == "worker.stopping"


def test_a_full_disk_does_not_stop_whoever_uses_the_loggers_of_the_standard_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unwritable = Unwritable(OSError(errno.ENOSPC, "full"))
    monkeypatch.setattr(sys, "stderr", unwritable)
    configure_logs(LogFormat.JSON, "INFO")
    logging.getLogger("theirs").warning("retried")
    assert unwritable.tried
