"""Plots of the figures of `scale`, as SVG for light and dark pages. The same figures make the same file."""

import io
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from benchmarks.figures import DELIVERIES, MEMORY, SERVER_MEMORY

#: No background; grey and two mid-tones are readable on white and on black.
_INK, _LINES = "#7d8590", ("#2f81f7", "#db6d28")
_STYLE: Any = {
    "svg.hashsalt": "bellwire",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}

_BY_SCALE = re.compile(r"([\d,]+): (.+)")


def throughput(raw: Mapping[str, Sequence[float]]) -> str:
    """Deliveries a second against the subscribers of one event, as SVG: medians, with minimum and maximum."""
    return _plot(raw, {DELIVERIES: "deliveries/s"}, "deliveries/s")


def memory(raw: Mapping[str, Sequence[float]]) -> str:
    """Peak memory of the worker and of Temporal's dev server against the subscribers of one event, as SVG."""
    return _plot(raw, {MEMORY: "worker", SERVER_MEMORY: "Temporal dev server"}, "peak memory, MB")


def _plot(raw: Mapping[str, Sequence[float]], quantities: Mapping[str, str], label: str) -> str:
    with rc_context(_STYLE):
        figure = Figure(figsize=(7, 3.5), layout="constrained")
        axes = figure.subplots()
        for (quantity, name), colour in zip(quantities.items(), _LINES, strict=False):
            points = _points(raw, quantity)
            middle = [statistics.median(values) for values in points.values()]
            below = [median - min(values) for median, values in zip(middle, points.values(), strict=True)]
            above = [max(values) - median for median, values in zip(middle, points.values(), strict=True)]
            axes.errorbar(list(points), middle, yerr=(below, above), color=colour, marker="o", capsize=4, label=name)
        axes.set_xscale("log")
        axes.set_xticks(list(points), minor=False)
        axes.minorticks_off()
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("subscribers of one event")
        axes.set_ylabel(label)
        axes.grid(axis="y", color=_INK, alpha=0.25)
        if len(quantities) > 1:
            axes.legend(frameon=False)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    # The backend ends some lines with a space.
    return "\n".join(line.rstrip() for line in drawn.getvalue().splitlines()) + "\n"


def _points(raw: Mapping[str, Sequence[float]], quantity: str) -> dict[int, Sequence[float]]:
    """The values of a quantity by the number of subscribers, ascending."""
    found = {name: match for name in raw if (match := _BY_SCALE.fullmatch(name)) and match[2] == quantity}
    return dict(sorted((int(match[1].replace(",", "")), raw[name]) for name, match in found.items()))
