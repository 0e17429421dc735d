"""Telemetry: structured logs for people or collectors, and the Prometheus page of one process.

Log events are facts in the past tense; `delivery.attempted` is the wide line, one per attempt. Metrics of Temporal's SDK
(`temporal_*`) and ours (`bellwire_attempts_total`, `bellwire_attempt_duration_seconds`, by channel and outcome) share one page.
"""

import logging
import sys
from datetime import timedelta
from typing import Any

import structlog
from temporalio.runtime import LoggingConfig, PrometheusConfig, Runtime, TelemetryConfig, TelemetryFilter

from bellwire.settings import LogFormat


def configure_logs(log_format: LogFormat, level: str) -> None:
    """Write one line per fact to stderr; lines of the standard library's loggers take the same form."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if log_format is LogFormat.JSON
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
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
    logging.getLogger("aiosqlite").setLevel(logging.WARNING)
    logging.getLogger("twilio").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)


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
