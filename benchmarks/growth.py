"""Growth of cost, memory and history when receivers refuse and fan-outs grow."""

from dataclasses import dataclass
from itertools import pairwise

from temporalio.service import RPCError, RPCStatusCode

from bellwire import Receipt
from benchmarks.figures import CRITERIA, DELIVERIES, MEMORY, SERVER_MEMORY, TIME, Result, median_ratio
from benchmarks.meters import Cost, cost, forget_peak_memory, peak_memory
from benchmarks.rig import Rig, running_rig
from benchmarks.sink import REFUSALS
from benchmarks.sizes import Sizes

#: Seconds until a refused delivery is retried: short, since work is measured and not waiting.
RETRY_SCHEDULE = (0.1,) * REFUSALS


async def storm(sizes: Sizes) -> Result:
    """The wall and CPU time of an attempt when every delivery is refused twice, against none refused; the worse ratio."""
    raw: dict[str, list[float]] = {}
    attempts = {"accepted": sizes.storm, "refused": sizes.storm * (REFUSALS + 1)}
    async with running_rig() as rig:
        kinds = {
            "accepted": await rig.subscribe("calm", sizes.storm, schedule=RETRY_SCHEDULE),
            "refused": await rig.subscribe("storm", sizes.storm, treatment=lambda _: "refuse", schedule=RETRY_SCHEDULE),
        }
        await rig.fan_out(kinds["accepted"])
        for _ in range(max(1, sizes.repeats // 2)):
            for label, kind in kinds.items():
                spent = await _cost_of(rig, kind)
                raw.setdefault(f"{label}: wall ms per attempt", []).append(spent.wall / attempts[label] * 1000)
                raw.setdefault(f"{label}: CPU ms per attempt", []).append(spent.cpu / attempts[label] * 1000)
    by_wall = median_ratio(raw["refused: wall ms per attempt"], raw["accepted: wall ms per attempt"])
    by_cpu = median_ratio(raw["refused: CPU ms per attempt"], raw["accepted: CPU ms per attempt"])
    return Result(
        criterion=CRITERIA["storm"],
        ratio=max(by_wall, by_cpu),
        raw=raw,
        notes=[f"{sizes.storm:,} deliveries; by wall {by_wall:.3g}, by CPU {by_cpu:.3g} (all processes)"],
    )


async def _cost_of(rig: Rig, kind: str) -> Cost:
    with cost(rig.pids) as spent:
        await rig.fan_out(kind)
    return spent


async def scale(sizes: Sizes) -> Result:
    """The time per delivery and the worker's peak memory for growing numbers of subscribers of one event.

    The ratio is the worst of each number of subscribers to the one before, from the second on: with the first, the worker's
    memory does not grow.
    """
    raw: dict[str, list[float]] = {}
    async with running_rig() as rig:
        kinds = {scale: await rig.subscribe(f"scale-{scale}", scale) for scale in sizes.scales}
        for _ in range(3):
            await rig.fan_out(kinds[sizes.scales[0]])
        for turn in range(max(1, sizes.repeats // 2)):
            # Ascending, since a process seldom returns memory; so only the first turn measures the peaks.
            for scale, kind in kinds.items():
                forget_peak_memory([*rig.worker_pids, *rig.server_pids])
                _, seconds = await rig.fan_out(kind)
                raw.setdefault(f"{scale:,}: {DELIVERIES}", []).append(scale / seconds)
                raw.setdefault(f"{scale:,}: {TIME}", []).append(seconds / scale * 1000)
                if turn == 0:
                    raw[f"{scale:,}: {MEMORY}"] = [peak_memory(rig.worker_pids)]
                    raw[f"{scale:,}: {SERVER_MEMORY}"] = [peak_memory(rig.server_pids)]
    compared, worst = [], 0.0
    for before, after in pairwise(f"{scale:,}" for scale in sizes.scales[1:]):
        by_time = median_ratio(raw[f"{after}: {TIME}"], raw[f"{before}: {TIME}"])
        by_memory = raw[f"{after}: {MEMORY}"][0] / raw[f"{before}: {MEMORY}"][0]
        compared.append(f"{after} against {before} subscribers: by time {by_time:.3g}, by memory {by_memory:.3g}")
        worst = max(worst, by_time, by_memory)
    return Result(criterion=CRITERIA["scale"], ratio=worst, raw=raw, notes=compared)


@dataclass
class _Weight:
    """The total of the histories of an event's runs."""

    events: int = 0
    size: int = 0
    largest: int = 0


async def history(sizes: Sizes) -> Result:
    """Events and bytes of history: at each scale with all accepted, and at the smallest with all refused twice."""
    raw: dict[str, list[float]] = {}
    largest = 0
    async with running_rig() as rig:
        kinds = {f"{scale:,} accepted": (scale, await rig.subscribe(f"all-{scale}", scale)) for scale in sizes.scales}
        smallest = sizes.scales[0]
        refused = await rig.subscribe("refused", smallest, treatment=lambda _: "refuse", schedule=RETRY_SCHEDULE)
        kinds[f"{smallest:,} refused twice"] = smallest, refused
        for label, (number, kind) in kinds.items():
            receipt, _ = await rig.fan_out(kind)
            weight = await _weigh(rig, receipt)
            raw[f"{label}: events in the largest run"] = [weight.largest]
            raw[f"{label}: events per delivery"] = [weight.events / number]
            raw[f"{label}: bytes per delivery"] = [weight.size / number]
            largest = max(largest, weight.largest)
    return Result(criterion=CRITERIA["history"], ratio=largest, raw=raw)


async def _weigh(rig: Rig, receipt: Receipt) -> _Weight:
    """The run of the publication and those of its pages, which are numbered from 1."""
    weight, run, page = _Weight(), receipt.workflow_id, 0
    while True:
        try:
            info = (await rig.client.temporal.get_workflow_handle(run).describe()).raw_info
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return weight
        weight.events += info.history_length
        weight.size += info.history_size_bytes
        weight.largest = max(weight.largest, info.history_length)
        page += 1
        run = f"{receipt.workflow_id}#page-{page}"
