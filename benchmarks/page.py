"""Writes the tables and plots of docs/performance.md from build/bench.json: `python -m benchmarks.page`.

The tables are between two marks of the page; the plots are docs/performance-throughput.svg and docs/performance-memory.svg.
"""

import argparse
import json
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import plots
from benchmarks.figures import CRITERIA, SERVER, SHARE, WORKER, figure, spread
from starter.checkout import CHECKOUT

PAGE = CHECKOUT / "docs" / "performance.md"
#: Deliveries, or events, per second for which the last rows give the number of busy processors.
PLANNED = 10_000
PLOTS = {"throughput": plots.throughput, "memory": plots.memory}

_MARKS = re.compile(r"(<!-- measured -->\n).*?(<!-- end of measured -->)", flags=re.DOTALL)


def measured(found: Sequence[Mapping[str, Any]]) -> str:
    """The tables in Markdown: all figures, then the CPU time by part, of benchmarks as in build/bench.json."""
    return "\n".join([*_machines(found), "", *_figures(found), *_shares(found), ""])


def with_measured(page: str, found: Sequence[Mapping[str, Any]]) -> str:
    """The page with these tables between its two marks. Raises ValueError without marks."""
    if not _MARKS.search(page):
        raise ValueError("the page has no <!-- measured --> and <!-- end of measured -->")
    return _MARKS.sub(lambda marks: f"{marks[1]}{measured(found)}{marks[2]}", page)


def _machines(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """A paragraph for each machine, or state of a machine, with the benchmarks measured on it."""
    names: dict[str, list[str]] = {}
    for one in found:
        about = ", ".join(f"{key} {value}" for key, value in one["measured_on"].items())
        names.setdefault(about, []).append(f"`{one['name']}`")
    # Blank lines between, none around.
    return "\n\n".join(f"{', '.join(each)}: {about}." for about, each in names.items()).split("\n")


def _figures(found: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = ["| benchmark | quantity | median | min | max | must |", "|---|---|---|---|---|---|"]
    for one in found:
        criterion = CRITERIA[one["name"]]
        reached = "yes" if criterion.reached(one["ratio"], criterion.must) else "no"
        bound = f"{'≥' if criterion.higher else '≤'} {criterion.must:,g}: {reached}"
        rows.append(f"| **{criterion.name}** | **ratio** | **{figure(one['ratio'])}** | | | {bound} |")
        for quantity, values in one["raw"].items():
            if not SHARE.fullmatch(quantity):
                rows.append(f"| | {quantity} | {' | '.join(figure(value) for value in spread(values))} | |")
        rows += [f"| | {note} | | | | |" for note in one["notes"]]
    return rows


def _shares(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Medians of CPU time by part: a row for each part, a column for each benchmark that measured them."""
    columns: dict[str, dict[str, float]] = {}
    for one in found:
        for quantity, values in one["raw"].items():
            if match := SHARE.fullmatch(quantity):
                column = columns.setdefault(f"`{one['name']}`, per {match['unit']}", {})
                column[match["part"]] = statistics.median(values)
    if not columns:
        return []
    parts = dict.fromkeys(part for column in columns.values() for part in column)
    rows = [[part, *(_cell(column, part) for column in columns.values())] for part in parts]
    together = ["total", *(f"**{figure(sum(column.values()))}**" for column in columns.values())]
    table = [["CPU ms", *columns], ["---"] * (len(columns) + 1), *rows, together]
    for part in (WORKER, SERVER):
        # A millisecond a second is a thousandth of a processor.
        busy = [
            sum(ms for name, ms in column.items() if name.startswith(part)) * PLANNED / 1000
            for column in columns.values()
        ]
        table.append([f"processors for the {part} at {PLANNED:,} a second", *map(figure, busy)])
    return ["", *(f"| {' | '.join(row)} |" for row in table)]


def _cell(column: Mapping[str, float], part: str) -> str:
    return figure(column[part]) if part in column else ""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--json", type=Path, default=CHECKOUT / "build" / "bench.json", help="file with the figures")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page; the plots go beside it")
    options = parser.parse_args(arguments)
    found = json.loads(options.json.read_text())["benchmarks"]
    options.page.write_text(with_measured(options.page.read_text(), found))
    for one in found:
        if one["name"] == "scale":
            for name, plot in PLOTS.items():
                options.page.with_name(f"{options.page.stem}-{name}.svg").write_text(plot(one["raw"]))


if __name__ == "__main__":
    main()
