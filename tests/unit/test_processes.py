"""Supervised processes, and the options of a worker with several; tests/acceptance runs the worker itself."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

import worker
from bellwire.service.settings import Settings, SettingsInvalid
from bellwire.service.supervisor import supervise

#: Creates a file once it runs, and stops on SIGTERM.
STOPS = "import pathlib, signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); {ready}; signal.pause()"
IGNORES = "import pathlib, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {ready}; signal.pause()"
ENDS = "{ready}; raise SystemExit(3)"


async def ended(folder: Path, *programs: str, stopped: bool = True, grace: float = 20) -> int:
    """The exit status of the supervisor of these programs, which is stopped once all of them run."""
    ready = [folder / str(nth) for nth in range(len(programs))]
    commands = [
        (sys.executable, "-c", program.format(ready=f"__import__('pathlib').Path({str(path)!r}).touch()"))
        for program, path in zip(programs, ready, strict=True)
    ]
    stop = asyncio.Event()
    running = asyncio.create_task(supervise(commands, stop=stop, grace=grace))
    async with asyncio.timeout(30):
        while not running.done() and not all(path.exists() for path in ready):
            await asyncio.sleep(0.01)
        if stopped:
            stop.set()
        return await running


async def test_processes_that_stop_in_time_end_with_status_0(tmp_path: Path) -> None:
    with capture_logs() as logs:
        assert await ended(tmp_path, STOPS, STOPS) == 0
    assert [line["event"] for line in logs] == ["processes.started", "processes.stopped"]


async def test_a_process_that_ends_by_itself_stops_the_others_and_is_named(tmp_path: Path) -> None:
    with capture_logs() as logs:
        assert await ended(tmp_path, STOPS, ENDS, stopped=False) == 1
    (line,) = [line for line in logs if line["event"] == "process.ended"]
    assert (line["process"], line["status"], line["log_level"]) == (1, "3", "error")


async def test_a_process_that_does_not_stop_in_time_is_killed_and_is_named(tmp_path: Path) -> None:
    with capture_logs() as logs:
        assert await ended(tmp_path, STOPS, IGNORES, grace=0.5) == 1
    (line,) = [line for line in logs if line["event"] == "process.killed"]
    assert (line["process"], line["after_seconds"]) == (1, 0.5)


def test_each_process_listens_on_the_next_ports() -> None:
    settings = Settings(metrics_address="0.0.0.0:9090", health_address="127.0.0.1:8080")
    of_third = worker.settings_of(2, settings, number=3)
    assert (of_third.metrics_address, of_third.health_address) == ("0.0.0.0:9092", "127.0.0.1:8082")
    assert worker.settings_of(0, settings, number=3) == settings
    assert worker.settings_of(1, Settings(), number=2) == Settings()


@pytest.mark.parametrize(
    ("metrics", "health"),
    [("127.0.0.1:65534", None), ("127.0.0.1:8080", "127.0.0.1:8081")],
    ids=["past the end", "meet"],
)
def test_ports_that_do_not_suffice_are_refused_by_the_settings_name(metrics: str, health: str | None) -> None:
    settings = Settings(metrics_address=metrics, health_address=health)
    with pytest.raises(SettingsInvalid, match="METRICS_ADDRESS" if health is None else "HEALTH_ADDRESS"):
        worker.settings_of(0, settings, number=3)


@pytest.mark.parametrize("number", ["0", "-1", "65", "many", "", "\u0663", "9" * 5000])
def test_the_number_of_processes_has_bounds(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        worker.main([f"--processes={number}"])
    assert "must be 1 to 64" in capsys.readouterr().err


def test_process_may_open_as_many_files_as_the_system_lets_it() -> None:
    code = """
import asyncio, resource
from activities.webhook.endpoint import request_limit
from bellwire.service.processes import tune_process
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 4000))
print(request_limit())
async def tune():
    tune_process()
asyncio.run(tune())
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], request_limit())
"""
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.split() == ["64", "4000", "1000"]
