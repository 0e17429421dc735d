"""The benchmarks' figures: names, bounds, table and file. What they measure is not a test's business."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.__main__ import BENCHMARKS
from benchmarks.figures import CRITERIA, Result, machine, median_ratio, quantile, save, table
from starter.processes import CHECKOUT


def result(name: str, ratio: float) -> Result:
    return Result(criterion=CRITERIA[name], ratio=ratio, raw={"things/s": [3.0, 1.0, 2.0]}, remarks=["on a good day"])


def test_every_criterion_has_a_benchmark_in_the_same_order() -> None:
    assert list(BENCHMARKS) == list(CRITERIA)
    assert all(name == criterion.name for name, criterion in CRITERIA.items())


@pytest.mark.parametrize(
    ("name", "must", "aim"),
    [
        ("fanout", 0.45, 0.8),
        ("bulk", 10, 20),
        ("single", 0.5, 0.9),
        ("latency", 1.5, 1.1),
        ("storm", 2.0, 1.2),
        ("scale", 1.3, 1.1),
        ("history", 9_999, 1_000),
        ("slow", 2.0, 1.2),
    ],
)
def test_bounds_are_as_agreed_and_the_aim_is_the_harder_one(name: str, must: float, aim: float) -> None:
    criterion = CRITERIA[name]
    assert (criterion.must, criterion.aim) == (must, aim)
    assert criterion.reached(aim, must)
    assert not criterion.reached(must, aim)


def test_a_ratio_is_the_median_over_neighbours_so_that_one_bad_moment_does_not_count() -> None:
    assert median_ratio([50, 5, 60], [100, 100, 100]) == 0.5


@pytest.mark.parametrize(("part", "value"), [(0.0, 1), (0.5, 51), (0.99, 100), (1.0, 100)])
def test_a_quantile_is_one_of_the_values(part: float, value: float) -> None:
    assert quantile([float(number) for number in range(100, 0, -1)], part) == value


def test_the_table_shows_ratio_bounds_and_the_spread_of_what_was_measured() -> None:
    output = io.StringIO()
    Console(file=output, width=140).print(table([result("fanout", 0.5), result("storm", 1.5)], {"python": "3.11"}))
    lines = output.getvalue().splitlines()
    assert any("fanout" in line and "0.5" in line and "≥ 0.45" in line and "≥ 0.8" in line for line in lines)
    assert any("storm" in line and "1.5" in line and "≤ 2" in line for line in lines)
    assert sum("things/s" in line and "2" in line and "1" in line and "3" in line for line in lines) == 2
    assert any("python 3.11" in line for line in lines)


def test_the_file_holds_name_ratio_bounds_and_raw_figures(tmp_path: Path) -> None:
    path = tmp_path / "build" / "bench.json"
    save([result("storm", 2.5), result("fanout", 0.5)], machine(), path)
    fanout, storm = json.loads(path.read_text())["benchmarks"]
    assert {name: fanout[name] for name in ("name", "ratio", "must", "aim", "raw", "reaches_must")} == {
        "name": "fanout",
        "ratio": 0.5,
        "must": 0.45,
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


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_every_benchmark_runs_in_a_tiny_size(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    command = [sys.executable, "-m", "benchmarks", "--tiny", "--json", str(path)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(path.read_text())["benchmarks"]
    assert [item["name"] for item in found] == list(CRITERIA)
    assert all(values and min(values) > 0 for item in found for values in item["raw"].values())
