"""The pages of log events and of metrics."""

from docs.generator import log_events, meanings, metrics
from docs.generator.markdown import code, codes, document, table


def log_events_page() -> str:
    """The text of docs/reference/log-events.md."""
    lines = log_events.collect()
    described = meanings.of("log_events", {line.event for line in lines})
    entries = [
        _entry(event, [line for line in lines if line.event == event], described[event]) for event in sorted(described)
    ]
    return document(
        "Log events",
        "The worker and the gateway write one line per event to stderr, as text or, with `BELLWIRE_LOG_FORMAT=json`, as JSON."
        " Every line has `event`, `level` and `timestamp` (UTC); with `--processes`, also `process`. No line holds an address,"
        " a secret or the data of an event. `BELLWIRE_LOG_LEVEL` sets the lowest level.",
        *entries,
        "## Temporal's SDK",
        "Temporal's SDK logs through the logger `temporalio`, in the same format: each failed try of an activity is a warning.",
    )


def _entry(event: str, lines: list[log_events.Line], meaning: str) -> str:
    levels = [level.upper() for level in log_events.LEVELS if any(line.level == level for line in lines)]
    fields = dict.fromkeys(field for line in lines for field in line.fields)
    files = dict.fromkeys(line.file for line in lines)
    return "\n\n".join(
        (f"## {event}", f"**{' or '.join(levels)}** · {meaning}", f"Fields: {codes(fields)}. Logged in {codes(files)}.")
    )


def metrics_page() -> str:
    """The text of docs/reference/metrics.md."""
    rows = [
        (code(each.name), f"{each.meaning}<br>*{each.kind}; by* {codes(each.labels)}") for each in metrics.collect()
    ]
    watched = meanings.table("sdk_metrics")
    return document(
        "Metrics",
        "A worker with `BELLWIRE_METRICS_ADDRESS` serves Prometheus metrics at `/metrics` on that address, and the gateway at"
        " `/metrics` on its own port, to other machines with an `admin` key: Bellwire's own, with"
        " the prefix `bellwire_`, and those of Temporal's SDK, with the prefix `temporal_`.",
        "## Bellwire",
        table(("metric", "meaning, *type; by* labels"), rows),
        "A histogram has the series `_bucket`, `_sum` and `_count`; durations are in seconds.",
        "## Temporal's SDK",
        "[Temporal's documentation](https://docs.temporal.io/references/sdk-metrics) lists all of them. Counters end in"
        " `_total` here, and durations in `_seconds`. These are worth an alert:",
        table(("metric", "alert when"), ((code(name), text) for name, text in watched.items())),
    )
