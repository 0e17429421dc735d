"""The benchmarks' figures: names, bounds, table and file. The measured values are not tested."""

import io
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire import Subscription
from bellwire.registry import Registry
from bellwire.registry.db import tables
from bellwire.registry.db.engine import Database
from bellwire.registry.subscriptions import by_ids
from benchmarks import meters, plots
from benchmarks.__main__ import BENCHMARKS
from benchmarks.figures import CRITERIA, Result, machine, median_ratio, quantile, save, table
from benchmarks.page import PAGE, main, measured, with_measured
from benchmarks.rig import copy_subscription, subscription_id
from starter.checkout import CHECKOUT


def result(name: str, ratio: float) -> Result:
    return Result(
        criterion=CRITERIA[name], ratio=ratio, raw={"things/s": [3.0, 1.0, 2.0]}, notes=["on an idle machine"]
    )


def test_every_criterion_has_a_benchmark_in_the_same_order() -> None:
    assert list(BENCHMARKS) == list(CRITERIA)
    assert all(name == criterion.name for name, criterion in CRITERIA.items())


@pytest.mark.parametrize(
    ("name", "must", "aim"),
    [
        ("fanout", 0.6, 0.8),
        ("bulk", 10, 20),
        ("single", 0.62, 0.9),
        ("latency", 1.15, 1.0),
        ("storm", 2.0, 1.2),
        ("scale", 1.3, 1.1),
        ("history", 9_999, 1_000),
        ("slow", 2.0, 1.2),
        ("fair", 3.0, 1.5),
        ("tenants", 2.0, 1.2),
        ("processes", 1.0, 1.5),
        ("concurrent", 6, 12),
        ("crowd", 0.7, 0.9),
        ("gateway", 0.5, 0.8),
        ("gateway-latency", 1.5, 1.2),
        ("sparse", 5, 2),
        ("outbox", 10, 15),
        ("filters", 2.5, 1.5),
    ],
)
def test_the_aim_is_harder_than_the_bound(name: str, must: float, aim: float) -> None:
    criterion = CRITERIA[name]
    assert (criterion.must, criterion.aim) == (must, aim)
    assert criterion.reached(aim, must)
    assert not criterion.reached(must, aim)


def test_a_ratio_is_the_median_over_neighbours_so_that_outliers_do_not_count() -> None:
    assert median_ratio([50, 5, 60], [100, 100, 100]) == 0.5


@pytest.mark.parametrize(("part", "value"), [(0.0, 1), (0.5, 51), (0.99, 100), (1.0, 100)])
def test_a_quantile_is_one_of_the_values(part: float, value: float) -> None:
    assert quantile([float(number) for number in range(100, 0, -1)], part) == value


def test_the_table_shows_ratio_bounds_and_the_spread_of_what_was_measured() -> None:
    output = io.StringIO()
    Console(file=output, width=140).print(table([result("fanout", 0.5), result("storm", 1.5)], {"python": "3.11"}))
    lines = output.getvalue().splitlines()
    assert any("fanout" in line and "0.5" in line and "≥ 0.6" in line and "≥ 0.8" in line for line in lines)
    assert any("storm" in line and "1.5" in line and "≤ 2" in line for line in lines)
    assert sum("things/s" in line and "2" in line and "1" in line and "3" in line for line in lines) == 2
    assert any("python 3.11" in line for line in lines)


def test_the_file_holds_name_ratio_bounds_and_raw_figures(tmp_path: Path) -> None:
    path = tmp_path / "build" / "bench.json"
    save([result("storm", 2.5), result("fanout", 0.7)], machine(), path)
    fanout, storm = json.loads(path.read_text())["benchmarks"]
    assert {name: fanout[name] for name in ("name", "ratio", "must", "aim", "raw", "reaches_must")} == {
        "name": "fanout",
        "ratio": 0.7,
        "must": 0.6,
        "aim": 0.8,
        "raw": {"things/s": [3.0, 1.0, 2.0]},
        "reaches_must": True,
    }
    assert (storm["name"], storm["reaches_must"]) == ("storm", False)
    assert {"processors", "python", "temporalio"} <= fanout["measured_on"].keys()


def test_running_one_benchmark_again_replaces_its_figures_and_keeps_the_others(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    save([result("fanout", 0.5), result("bulk", 10)], {}, path)
    save([result("fanout", 0.7)], {}, path)
    assert [(item["name"], item["ratio"]) for item in json.loads(path.read_text())["benchmarks"]] == [
        ("fanout", 0.7),
        ("bulk", 10),
    ]


def test_the_page_shows_the_current_bounds() -> None:
    rows = re.findall(
        r"^\| `([\w-]+)` \|.*\| ([≥≤]) ([\d.,]+) \| ([≥≤]) ([\d.,]+) \|$", PAGE.read_text(), flags=re.MULTILINE
    )
    assert {name: (must, aim) for name, _, must, _, aim in rows} == {
        name: (f"{criterion.must:,g}", f"{criterion.aim:,g}") for name, criterion in CRITERIA.items()
    }
    assert all({one, other} == {"≥" if CRITERIA[name].higher else "≤"} for name, one, _, other, _ in rows)


def found(*names: str, raw: dict[str, list[float]] | None = None) -> list[dict[str, Any]]:
    """Benchmarks as in the file."""
    results = [result(name, 0.5).as_json() | {"measured_on": {"processors": 2}} for name in names]
    return [one | {"raw": raw} for one in results] if raw else results


def test_the_tables_of_the_page_show_figures_bounds_and_machine() -> None:
    shown = measured(found("fanout", "storm"))
    assert "`fanout`, `storm`: processors 2." in shown
    assert "| **fanout** | **ratio** | **0.5** | | | ≥ 0.6: no |" in shown
    assert "| **storm** | **ratio** | **0.5** | | | ≤ 2: yes |" in shown
    assert "| | things/s | 2 | 1 | 3 | |" in shown
    assert "| | on an idle machine | | | | |" in shown
    assert "CPU ms" not in shown


def test_cpu_time_by_part_has_its_own_table_with_sums() -> None:
    parts = {
        "receiver": [1.0, 5.0, 3.0],
        "worker, main thread": [4.0],
        "worker, others": [1.0],
        "Temporal server": [0.5],
    }
    raw = {f"CPU ms per event: {part}": values for part, values in parts.items()}
    shown = measured(found("bulk", raw=raw))
    assert "| CPU ms | `bulk`, per event |" in shown
    assert "| receiver | 3 |" in shown
    assert "| worker, main thread | 4 |" in shown
    assert "| total | **8.5** |" in shown
    assert "| processors for the worker at 10,000 a second | 50 |" in shown
    assert "| processors for the Temporal server at 10,000 a second | 5 |" in shown
    assert "CPU ms per event" not in shown


def test_the_page_keeps_its_text_outside_the_marks() -> None:
    page = "before\n<!-- measured -->\nold\n<!-- end of measured -->\nafter\n"
    written = with_measured(page, found("fanout"))
    assert written.startswith("before\n<!-- measured -->\n`fanout`")
    assert written.endswith("<!-- end of measured -->\nafter\n")
    assert "old" not in written
    assert with_measured(written, found("fanout")) == written
    with pytest.raises(ValueError, match="measured"):
        with_measured("no marks", [])
    assert with_measured(PAGE.read_text(), found("fanout")) != PAGE.read_text()


def scaled() -> dict[str, list[float]]:
    quantities = ("deliveries/s", "peak memory, MB", "peak memory of the Temporal server, MB")
    return {f"{scale:,}: {quantity}": [scale / 10, scale / 20] for scale in (1_000, 100_000) for quantity in quantities}


def test_the_command_writes_the_page_and_its_plots(tmp_path: Path) -> None:
    page, figures = tmp_path / "some.md", tmp_path / "bench.json"
    page.write_text("<!-- measured -->\n<!-- end of measured -->\n")
    figures.write_text(json.dumps({"benchmarks": found("scale", raw=scaled())}))
    main(["--json", str(figures), "--page", str(page)])
    assert "**scale**" in page.read_text()
    for plot, label in (("throughput", "deliveries/s"), ("memory", "Temporal dev server")):
        drawn = (tmp_path / f"some-{plot}.svg").read_text()
        elements = ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")
        texts = {"".join(element.itertext()).strip() for element in elements}
        assert {label, "1,000", "100,000", "subscribers of one event"} <= texts


@pytest.mark.parametrize("plot", [plots.throughput, plots.memory])
def test_a_plot_is_the_same_each_time_and_has_no_background(plot: Callable[[dict[str, list[float]]], str]) -> None:
    assert plot(scaled()) == plot(scaled())
    assert plot(scaled()) != plot({name: [value * 2 for value in values] + [1.0] for name, values in scaled().items()})
    assert "<dc:date>" not in plot(scaled())
    assert "#ffffff" not in plot(scaled())


async def _patterns(connection: AsyncConnection) -> list[str]:
    return list((await connection.execute(select(tables.subscription_types.c.pattern))).scalars())


async def test_copies_of_a_subscription_differ_only_by_id_and_url(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    registry = await Registry.open(url)
    database = Database.at(url, pool=1)
    try:
        await registry.migrate()
        names = [subscription_id("acme", "many", index) for index in range(5)]
        original = Subscription.model_validate(
            {
                "id": names[0],
                "tenant": "acme",
                "types": ["order.*", "bill.*"],
                "target": {"channel": "webhook", "url": "https://example.com/0"},
                "retry_schedule": [1.0],
            }
        )
        await registry.subscriptions.create(original)
        await database.write(
            copy_subscription, names[0], {name: f"https://example.com/{name[-1]}" for name in names[1:]}
        )
        stored = {name: copied for name, (copied, *_) in (await database.read(by_ids, names)).items()}
        patterns = Counter(await database.read(_patterns))
    finally:
        await database.close()
        await registry.close()
    for index, name in enumerate(names):
        target = original.target.model_copy(update={"url": f"https://example.com/{index}"})
        assert stored[name] == original.model_copy(update={"id": name, "target": target})
    assert patterns == {"order.*": 5, "bill.*": 5}


def spin(seconds: float) -> None:
    """Use CPU time of this thread."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_cpu_time_is_measured_by_process_and_by_name_of_thread(tmp_path: Path) -> None:
    naming = Path(meters.__file__).parent / "naming"
    command = """
import asyncio, subprocess, sys, threading
from concurrent.futures import ThreadPoolExecutor
from bellwire.registry.db.engine import Database
from tests.unit.test_benchmarks import spin
idle = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]
child = subprocess.Popen(idle, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
input()
pool = ThreadPoolExecutor(1, "temporal_workflow_")
pool.submit(spin, 0.3).result()
async def work(connection):
    spin(0.25)
database = Database.at(f"sqlite:///{sys.argv[1]}", pool=1)
asyncio.run(database.read(work))
spin(0.1)
ended = threading.Thread(target=spin, args=(0.2,))
ended.start()
ended.join()
print("spun", flush=True)
input()
child.communicate()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", command, str(tmp_path / "registry.db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(naming)},
    )
    assert process.stdin
    assert process.stdout
    with process:
        child = int(process.stdout.readline())
        assert meters.family(process.pid) == (process.pid, child)
        parts = {"worker": [process.pid], "child": [child]}
        with meters.cost_by_part(parts, of_threads="worker") as spent:
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "spun\n"
        process.stdin.write("\n")
    assert spent.pop("worker, main thread") == pytest.approx(0.1, abs=0.05)
    assert spent.pop("worker, workflow threads") == pytest.approx(0.3, abs=0.05)
    assert spent.pop("worker, registry threads") == pytest.approx(0.25, abs=0.05)
    assert spent.pop("worker, other threads") == pytest.approx(0.2, abs=0.05)
    assert set(spent) == {"child", "worker, Temporal core threads"}
    assert max(spent.values()) < 0.05


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_the_sum_of_all_processes_since_the_reset() -> None:
    # A child's memory: what this process freed before might be given to it again, and would not count.
    program = """\
import sys
before = bytearray(b"x") * (64 << 20)
del before
print("freed", flush=True)
sys.stdin.readline()
during = bytearray(b"x") * (32 << 20)
print("taken", flush=True)
sys.stdin.readline()
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "freed\n"
        assert meters.peak_memory([child.pid]) > 64
        meters.forget_peak_memory([child.pid])
        at_rest = meters.peak_memory([child.pid])
        assert at_rest < 60
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "taken\n"
        peak = meters.peak_memory([child.pid])
        assert 25 < peak - at_rest < 50
        assert meters.peak_memory([child.pid, child.pid]) == pytest.approx(2 * peak, rel=0.01)
        child.stdin.write("\n")


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", CRITERIA)
def test_every_benchmark_runs_in_a_tiny_size(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    command = [sys.executable, "-m", "benchmarks", name, "--tiny", "--json", str(path)]
    with subprocess.Popen(command, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True) as process:
        try:
            _, errors = process.communicate(timeout=220)
        finally:
            process.terminate()  # not killed, so that it stops its processes
    assert process.returncode == 0, errors
    (item,) = json.loads(path.read_text())["benchmarks"]
    assert item["name"] == name
    for quantity, values in item["raw"].items():
        assert values
        # The kernel counts CPU time in hundredths of a second; some parts use less.
        assert min(values) >= 0 if "CPU" in quantity else min(values) > 0, quantity
    assert f"| **{name}** | **ratio** |" in measured([item])
