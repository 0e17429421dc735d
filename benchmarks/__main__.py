"""The command line: runs the named benchmarks, or all, prints a table and writes build/bench.json."""

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks import fairness, filtering, growth, outbox, publishing, tenants, throughput, waiting
from benchmarks.figures import CRITERIA, Result, machine, save, table
from benchmarks.sizes import Sizes
from starter.checkout import CHECKOUT
from starter.local.processes import interruptible

BENCHMARKS: Mapping[str, Callable[[Sizes], Awaitable[Result]]] = {
    "fanout": throughput.fanout,
    "bulk": throughput.bulk,
    "single": throughput.single,
    "latency": waiting.latency,
    "storm": growth.storm,
    "scale": growth.scale,
    "history": growth.history,
    "slow": waiting.slow,
    "fair": fairness.fair,
    "tenants": tenants.tenants,
    "processes": throughput.processes,
    "concurrent": publishing.concurrent,
    "crowd": publishing.crowd,
    "gateway": publishing.gateway,
    "gateway-latency": publishing.gateway_latency,
    "sparse": publishing.sparse,
    "outbox": outbox.outbox,
    "filters": filtering.filters,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: with --check 1 if a ratio misses its bound, 130 after a signal, otherwise 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(CRITERIA)}; all if omitted")
    parser.add_argument(
        "--huge", action="store_true", help="scale and history of an event of 1,000,000 subscribers too"
    )
    parser.add_argument("--tiny", action="store_true", help="test that they run; the figures mean nothing")
    parser.add_argument("--check", action="store_true", help="fail if a ratio misses its bound")
    parser.add_argument("--json", type=Path, default=CHECKOUT / "build" / "bench.json", help="file for the figures")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(CRITERIA):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; benchmarks are {', '.join(CRITERIA)}")
    sizes = Sizes.tiny() if options.tiny else Sizes()
    sizes = sizes.huge() if options.huge else sizes

    about, results, notes = machine(), list[Result](), Console(stderr=True)
    for name in options.names or BENCHMARKS:
        began = time.perf_counter()
        result = asyncio.run(_one(name, sizes))
        if result is None:
            return 130
        results.append(result)
        notes.print(f"{name}: {results[-1].ratio:,.3g} ({time.perf_counter() - began:.0f} s)")
        save(results, about, options.json)
    # A log or a pipe has no width.
    shown = Console()
    shown.print(table(results, about), width=max(shown.width, 120))
    missed = [one for one in results if not one.criterion.reached(one.ratio, one.criterion.must)]
    return 1 if missed and options.check else 0


async def _one(name: str, sizes: Sizes) -> Result | None:
    """The result; None if a signal ended the benchmark, once its processes are stopped."""
    result = None
    async with interruptible():
        result = await BENCHMARKS[name](sizes)
    return result  # noqa: RET504 - None if a signal ended the block


if __name__ == "__main__":
    sys.exit(main())
