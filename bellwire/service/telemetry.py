"""Telemetry: structured logs for people or collectors, and the Prometheus page of one process.

Log events are facts in the past tense; `delivery.attempted` is the wide line, one per attempt. Metrics of Temporal's SDK
(`temporal_*`) and ours (`bellwire_attempts_total`, `bellwire_attempt_duration_seconds`, by channel and outcome) share one page.
"""

import atexit
import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import orjson
import structlog
from temporalio.runtime import LoggingConfig, PrometheusConfig, Runtime, TelemetryConfig, TelemetryFilter

from bellwire.service.settings import LogFormat

#: Seconds that lines of the log are held; killed, a process takes so much of its log with it.
HELD_SECONDS = 0.05


class _Stderr:
    """One line per fact, past the standard library's loggers, which would take three times as long for each attempt.

    A thread writes what has come within HELD_SECONDS at one go: a line of its own for each attempt would have the event loop
    wait for the interpreter's lock each time. That lines cannot be written (a full disk, a closed pipe) stops no delivery.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._some, self._writing = threading.Event(), threading.Lock()
        threading.Thread(target=self._write_on, name="log", daemon=True).start()
        atexit.register(self._write)

    def msg(self, line: str) -> None:
        self._lines.append(line)
        self._some.set()

    debug = info = warning = error = critical = msg

    def _write_on(self) -> None:
        while self._some.wait():
            time.sleep(HELD_SECONDS)
            self._some.clear()
            self._write()

    def _write(self) -> None:
        with self._writing:
            number = len(self._lines)  # more may come meanwhile
            text = "".join(f"{line}\n" for line in self._lines[:number])
            del self._lines[:number]
            with suppress(OSError, ValueError):
                sys.stderr.write(text)
                sys.stderr.flush()


def configure_logs(log_format: LogFormat, level: str) -> None:
    """Write one line per fact to stderr; lines of the standard library's loggers take the same form."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer(_json)
        if log_format is LogFormat.JSON
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    lines = _Stderr()
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, renderer],
        logger_factory=lambda *_: lines,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    # Each failed try of an activity is a warning there already.
    if logging.getLevelNamesMapping()[level] < logging.INFO:
        # At DEBUG it would show inputs and results, decrypted.
        logging.getLogger("temporalio").setLevel(logging.INFO)
    logging.getLogger("twilio").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _json(fact: dict[str, Any], default: Callable[[Any], Any]) -> str:
    """One line of ASCII: some readers take other characters of Unicode for the end of a line."""
    with suppress(TypeError):  # halves of surrogate pairs, and integers beyond 64 bits
        line = orjson.dumps(fact, default=default)
        if line.isascii():
            return line.decode()
    return json.dumps(fact, default=default)


def runtime(metrics_address: str | None) -> Runtime:
    """The Temporal runtime of this process; with an address (host:port), it serves Prometheus metrics at /metrics."""
    metrics = (
        PrometheusConfig(
            bind_address=metrics_address, counters_total_suffix=True, unit_suffix=True, durations_as_seconds=True
        )
        if metrics_address
        else None
    )
    logs = LoggingConfig(filter=TelemetryFilter(core_level="WARN", other_level="ERROR"))
    return Runtime(
        telemetry=TelemetryConfig(metrics=metrics, logging=logs), worker_heartbeat_interval=timedelta(seconds=60)
    )
