"""Meters: CPU and memory of processes, as Linux tells them in /proc (proc(5))."""

import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Cost:
    """What a stretch of work took, in seconds."""

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


def forget_peak_memory(pid: int) -> None:
    """Let the peak of the process's memory begin at what it has now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_memory(pid: int) -> float:
    """The most resident memory that the process has had, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return statistics.fmean(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on: the second, a name in brackets, may hold spaces."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
