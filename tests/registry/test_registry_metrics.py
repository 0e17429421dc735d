"""The metrics of the backlog, as Prometheus reads them from a worker."""

import asyncio
import socket
import urllib.request
from pathlib import Path

from structlog.testing import capture_logs

from bellwire.registry import Registry
from bellwire.service.registry_metrics import measure, measuring_registry
from bellwire.service.telemetry import HISTOGRAMS, runtime
from bellwire.subscriptions import SubscriptionState
from docs.generator import metrics
from tests.factories import event, subscription
from tests.registry.test_deliveries import group


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


async def scraped(address: str) -> dict[str, float]:
    """Samples by name and labels."""
    page = await asyncio.to_thread(lambda: urllib.request.urlopen(f"http://{address}/metrics", timeout=10).read())
    lines = [line for line in page.decode().splitlines() if line.startswith("bellwire_")]
    samples = {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}
    # The SDK adds a label to all of them.
    return {name.replace(',service_name="temporal-core-sdk"', ""): value for name, value in samples.items()}


async def test_backlog_age_and_disabled_endpoints_are_gauges_by_channel(tmp_path: Path) -> None:
    registry = await Registry.open(f"sqlite:///{tmp_path}/registry.db")
    await registry.migrate()
    for name in ("a", "b", "c"):
        await registry.subscriptions.create(subscription(id=name))
    one = event()
    await registry.events.accept([one], "run")
    await registry.deliveries.add("run", [group("a", "b", of=one)])
    await registry.subscriptions.set_state("c", SubscriptionState.DISABLED, reason="gone")
    address = free_address()
    temporal_runtime = runtime(address)
    await measure(registry, temporal_runtime.metric_meter)
    found = await scraped(address)
    assert found['bellwire_deliveries_unsettled{channel="webhook"}'] == 2
    assert 0 < found['bellwire_oldest_unsettled_age_seconds{channel="webhook"}'] < 600
    assert found['bellwire_endpoints_disabled{channel="webhook"}'] == 1
    assert found['bellwire_deliveries_unsettled{channel="sms"}'] == 0
    await registry.deliveries.settle([group("a", "b", of=one)], reason="cancelled")
    await measure(registry, temporal_runtime.metric_meter)
    found = await scraped(address)
    assert found['bellwire_deliveries_unsettled{channel="webhook"}'] == 0
    assert found['bellwire_oldest_unsettled_age_seconds{channel="webhook"}'] == 0
    await registry.close()


async def test_every_histogram_has_buckets_up_to_a_minute() -> None:
    assert set(HISTOGRAMS) == {each.name for each in metrics.collect() if each.kind == "histogram"}
    address = free_address()
    # It serves metrics as long as it exists.
    temporal_runtime = runtime(address)
    for name in HISTOGRAMS:
        temporal_runtime.metric_meter.create_histogram_float(name, "").record(40.0, {"channel": "webhook"})
    found = await scraped(address)
    for name in HISTOGRAMS:
        assert found[f'{name}_bucket{{channel="webhook",le="30"}}'] == 0
        assert found[f'{name}_bucket{{channel="webhook",le="45"}}'] == 1
        assert found[f'{name}_bucket{{channel="webhook",le="60"}}'] == 1


async def test_reading_continues_after_an_outage(tmp_path: Path) -> None:
    registry = await Registry.open(f"sqlite:///{tmp_path}/registry.db")
    address = free_address()
    temporal_runtime = runtime(address)
    with capture_logs() as logs:
        async with measuring_registry(registry, temporal_runtime.metric_meter, every=0.01), asyncio.timeout(60):
            while not logs:
                await asyncio.sleep(0.01)
            await registry.migrate()
            while not await scraped(address):
                await asyncio.sleep(0.01)
    assert {(log["event"], log["error"]) for log in logs} == {("backlog.not_read", "NotSetUp")}
    await registry.close()


async def test_without_a_metrics_address_nothing_is_read(tmp_path: Path) -> None:
    registry = await Registry.open(f"sqlite:///{tmp_path}/registry.db")
    before = asyncio.all_tasks()
    async with measuring_registry(registry, None):
        assert asyncio.all_tasks() == before
    await registry.close()
