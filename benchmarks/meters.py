"""Meters: CPU time and memory of processes, read from Linux's /proc (proc(5))."""

import os
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

#: Kinds of a worker's threads by the start of their names. `benchmarks/naming` names Python's threads; the kernel keeps 15
#: bytes.
THREADS = {
    "registry_": "registry threads",
    "temporal_workfl": "workflow threads",
    "temporal-": "Temporal core threads",
    "tokio-": "Temporal core threads",
    "workflow-proces": "Temporal core threads",
}
MAIN_THREAD, OTHER_THREADS = "main thread", "other threads"

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Cost:
    """The cost of a piece of work, in seconds."""

    wall: float = 0.0
    cpu: float = 0.0


@contextmanager
def cost(pids: Sequence[int]) -> Iterator[Cost]:
    """Measure the body: wall time, and the CPU time of these processes together."""
    spent, wall, cpu = Cost(), time.perf_counter(), cpu_seconds(pids)
    yield spent
    spent.wall, spent.cpu = time.perf_counter() - wall, cpu_seconds(pids) - cpu


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of the processes so far."""
    return sum(sum(map(int, _stat(pid)[11:13])) for pid in pids) / _TICKS


def family(pid: int) -> tuple[int, ...]:
    """The process and its descendants."""
    found = [pid]
    for each in found:
        for task in Path(f"/proc/{each}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return tuple(found)


@contextmanager
def cost_by_part(parts: Mapping[str, Sequence[int]], *, of_threads: str) -> Iterator[dict[str, float]]:
    """Measure the body: CPU seconds of the processes of each part, those of the part `of_threads` by kind of thread."""

    def now() -> dict[str, float]:
        seconds = defaultdict(float, {part: cpu_seconds(pids) for part, pids in parts.items() if part != of_threads})
        for pid in parts[of_threads]:
            for kind, spent in _seconds_by_thread(pid).items():
                seconds[f"{of_threads}, {kind}"] += spent
        return seconds

    spent, before = dict[str, float](), now()
    yield spent
    after = now()
    # A thread that has ended was counted in its kind before, and counts among the others now.
    spent.update({part: max(0.0, after[part] - before[part]) for part in after})


def forget_peak_memory(pids: Sequence[int]) -> None:
    """Reset the peak memory of each process to its current memory."""
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_memory(pids: Sequence[int]) -> float:
    """The sum of the processes' peak resident memory, in MB."""
    return sum(_peak_kilobytes(pid) for pid in pids) / 1024


def _peak_kilobytes(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return statistics.fmean(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def _seconds_by_thread(pid: int) -> dict[str, float]:
    seconds = dict.fromkeys((MAIN_THREAD, *THREADS.values(), OTHER_THREADS), 0.0)
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
            seconds[_kind(pid, task)] += sum(map(int, _stat(pid, int(task.name))[11:13])) / _TICKS
    # The time of threads that have ended.
    seconds[OTHER_THREADS] += max(0.0, cpu_seconds([pid]) - sum(seconds.values()))
    return seconds


def _kind(pid: int, task: Path) -> str:
    if task.name == str(pid):
        return MAIN_THREAD
    name = (task / "comm").read_text()
    return next((kind for beginning, kind in THREADS.items() if name.startswith(beginning)), OTHER_THREADS)


def _stat(pid: int, thread: int | None = None) -> list[str]:
    """The fields of /proc/PID/stat, or a thread's, from the third on: the second, a name in brackets, may hold spaces."""
    task = "" if thread is None else f"task/{thread}/"
    return Path(f"/proc/{pid}/{task}stat").read_text().rpartition(")")[2].split()
