"""Telemetry: structured logs, and the Prometheus metrics of one process.

Log events are named in the past tense. `delivery.attempted` is the wide line, one per attempt. One endpoint serves the metrics
of Temporal's SDK (`temporal_*`) and of Bellwire (`bellwire_*`).
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
from types import TracebackType
from typing import Any

import orjson
import structlog
from temporalio.runtime import (
    LogForwardingConfig,
    LoggingConfig,
    PrometheusConfig,
    Runtime,
    TelemetryConfig,
    TelemetryFilter,
)

from bellwire.service.settings import LogFormat, SettingsInvalid

#: Seconds for which log lines are buffered. A killed process loses this much of its log.
BUFFER_SECONDS = 0.05
#: Bellwire's histograms, and the upper bounds of their buckets, in seconds.
HISTOGRAMS = (
    "bellwire_attempt_duration_seconds",
    "bellwire_publish_to_first_attempt_seconds",
    "bellwire_http_request_duration_seconds",
)
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0)

log = structlog.get_logger("bellwire")


class _Stderr:
    """Writes log lines to stderr, bypassing the standard library's loggers, which take three times as long.

    A thread writes the lines of BUFFER_SECONDS together: writing each line would make the event loop wait for the
    interpreter's lock each time. Failed writes (a full disk, a closed pipe) do not stop deliveries.
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
            time.sleep(BUFFER_SECONDS)
            self._some.clear()
            self._write()

    def _write(self) -> None:
        with self._writing:
            number = len(self._lines)  # more may be added meanwhile
            text = "".join(f"{line}\n" for line in self._lines[:number])
            del self._lines[:number]
            with suppress(OSError, ValueError):
                sys.stderr.write(text)
                sys.stderr.flush()


def configure_logs(log_format: LogFormat, level: str) -> None:
    """Write one line per log event to stderr, in the same format for the standard library's loggers."""
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
    if log_format is LogFormat.JSON:
        _log_what_python_prints()
    if logging.getLevelNamesMapping()[level] < logging.INFO:
        # At DEBUG it would log decrypted inputs and results.
        logging.getLogger("temporalio").setLevel(logging.INFO)
    # It logs every header of requests to Apple: device tokens and authorizations.
    logging.getLogger("hpack").setLevel(logging.WARNING)
    logging.getLogger("twilio").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _log_what_python_prints() -> None:
    """Log warnings and uncaught exceptions, which Python writes to stderr as text of several lines."""
    logging.captureWarnings(capture=True)

    def process_failed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            log.critical("process.failed", exc_info=(kind, error, trace))

    def thread_failed(failed: threading.ExceptHookArgs) -> None:
        name = failed.thread.name if failed.thread else None
        log.error("thread.failed", thread=name, exc_info=(failed.exc_type, failed.exc_value, failed.exc_traceback))

    def cleanup_failed(failed: "sys.UnraisableHookArgs") -> None:
        log.error("cleanup.failed", exc_info=(failed.exc_type, failed.exc_value, failed.exc_traceback))

    sys.excepthook, threading.excepthook, sys.unraisablehook = process_failed, thread_failed, cleanup_failed


def _json(line: dict[str, Any], default: Callable[[Any], Any]) -> str:
    """Return one line of ASCII: some readers treat other Unicode characters as line ends."""
    with suppress(TypeError):  # lone surrogates, and integers beyond 64 bits
        text = orjson.dumps(line, default=default)
        if text.isascii():
            return text.decode()
    return json.dumps(line, default=default)


def runtime(metrics_address: str | None) -> Runtime:
    """Return the Temporal runtime of this process. With an address (host:port), it serves Prometheus metrics at /metrics.

    Raises SettingsInvalid if it cannot listen there.
    """
    metrics = (
        PrometheusConfig(
            bind_address=metrics_address,
            counters_total_suffix=True,
            unit_suffix=True,
            durations_as_seconds=True,
            histogram_bucket_overrides=dict.fromkeys(HISTOGRAMS, BUCKETS),
        )
        if metrics_address
        else None
    )
    logs = LoggingConfig(
        filter=TelemetryFilter(core_level="WARN", other_level="ERROR"),
        # Otherwise the SDK's core writes lines of its own format to the console.
        forwarding=LogForwardingConfig(logger=logging.getLogger("temporalio.core")),
    )
    try:
        return Runtime(
            telemetry=TelemetryConfig(metrics=metrics, logging=logs), worker_heartbeat_interval=timedelta(seconds=60)
        )
    except ValueError as error:
        reason = str(error).rpartition("exporter: ")[2]
        raise SettingsInvalid(f"BELLWIRE_METRICS_ADDRESS: cannot listen on {metrics_address}: {reason}") from error
