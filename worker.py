"""The worker: settings → registry and clients → activities → Temporal workers. Run it as `python worker.py`.

It polls the workflow queue and the queue of every channel. `--channels` limits it to some channels, so that each one scales by
itself. `--processes` runs several processes, for example one for each CPU. On SIGTERM it stops polling, gives attempts in
flight BELLWIRE_SHUTDOWN_GRACE seconds, records their outcomes, and ends.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
from temporalio.client import Client
from temporalio.worker import Worker

from activities.channels import check_settings, open_channels
from activities.handler.calls import HandlerCalling
from activities.handler.presence import watching_handlers
from activities.handler.registration import HandlerRegistry
from activities.recalling import Recaller
from activities.replaying import Replayer
from activities.resolve import Resolver
from activities.sending.inline import InlineSender
from activities.sending.test_sends import TestSends
from activities.sending.turns import Turns
from activities.ticks import Ticks
from bellwire.client import Client as Publisher
from bellwire.errors import BellwireError
from bellwire.nexus.following import Follower
from bellwire.nexus.handler import nexus_handlers
from bellwire.registry import Registry
from bellwire.replays.starting import starting_replays
from bellwire.service.operational_events import publishing_operational_events
from bellwire.service.pollers import channel_worker, workflow_worker
from bellwire.service.processes import SHUTDOWN_MARGIN, addresses_of_process, stop_on_signals, tune_process
from bellwire.service.readiness import serving_readiness
from bellwire.service.registry_metrics import measuring_registry
from bellwire.service.settings import LogFormat, Settings, environment
from bellwire.service.slots import BusySlots
from bellwire.service.supervisor import end_with_parent, supervise
from bellwire.service.telemetry import configure_logs, runtime
from bellwire.service.variables import misspelt_variables
from bellwire.service.worker_options import parse_options
from bellwire.targets import SPECS, Channel
from bellwire.temporal.connection import check_search_attributes, connect
from workflows import WORKFLOWS

log = structlog.get_logger("bellwire")
PROGRAM = Path(__file__).resolve()


@asynccontextmanager
async def polling(
    client: Client, registry: Registry, settings: Settings, channels: Sequence[Channel], *, workflows: bool = True
) -> AsyncIterator[list[Worker]]:
    """Workers for the workflow queue and the queues of the channels. Leaving stops them gracefully."""
    slots = BusySlots(lambda: inline.waiting)
    turns = Turns(lambda: slots.busy)
    async with open_channels(settings, registry, turns) as senders, AsyncExitStack() as stack:
        test_sends = TestSends(registry, {channel: sender.attempt for channel, sender in senders.items()})
        workers = [
            channel_worker(
                client,
                SPECS[channel].queue,
                [*senders[channel].activities, test_sends.send_test],
                max_activities=settings.max_activities,
                grace=settings.shutdown_grace,
            )
            for channel in channels
        ]
        if workflows:
            able = {channel: senders[channel] for channel in channels if SPECS[channel].inline}
            inline = InlineSender(registry, able, limit=settings.send_concurrency)
            resolver = Resolver(registry, refuse_unknown_tenants=settings.unknown_tenants == "refuse")
            activities: list[Callable[..., Any]] = [*Recaller(registry, client).activities]
            activities += [*resolver.activities, *Replayer(registry).activities, *Ticks(registry).activities]
            activities += [*HandlerCalling(registry).activities, *HandlerRegistry(registry).activities]
            activities += [inline.send_inline, Follower(Publisher(client)).follow_event]
            nexus, grace = await nexus_handlers(client), settings.shutdown_grace
            workers.append(workflow_worker(client, WORKFLOWS, activities, slots=slots, grace=grace, nexus=nexus))
        for worker in workers:
            await stack.enter_async_context(worker)
        yield workers


async def run(settings: Settings, channels: Sequence[Channel], *, workflows: bool = True) -> None:
    """Work until SIGTERM or SIGINT. Raises NotSetUp, TemporalUnavailable, RegistryUnavailable, TemplateInvalid."""
    stop = stop_on_signals()
    tune_process()
    registry = await Registry.open(
        settings.registry_url, pool=settings.registry_pool, ring=settings.ring, disable_policy=settings.disable_policy
    )
    try:
        await registry.check()
        temporal_runtime = runtime(settings.metrics_address)
        client = await connect(keys=settings.ring, runtime=temporal_runtime)
        await check_search_attributes(client)
        async with (
            polling(client, registry, settings, channels, workflows=workflows) as workers,
            publishing_operational_events(registry, Publisher(client)),
            watching_handlers(registry, client),
            starting_replays(registry, client),
            measuring_registry(
                registry, temporal_runtime.metric_meter if workflows and settings.metrics_address else None
            ),
            serving_readiness(settings.health_address, client, registry, workers),
        ):
            log.info("worker.started", channels=[str(channel) for channel in channels], workflows=workflows)
            await stop.wait()
            log.info("worker.stopping", grace_seconds=settings.shutdown_grace)
    finally:
        await registry.close()
    log.info("worker.stopped")


async def run_several(settings: Settings, arguments: Sequence[str], number: int) -> int:
    """Run this program as `number` processes until SIGTERM or SIGINT. Returns the exit status: 1 if one ended by itself.

    Raises at the start what `run` raises, once instead of in each process.
    """
    stop = stop_on_signals()
    check_settings(settings)
    registry = await Registry.open(settings.registry_url, pool=1)
    try:
        await registry.check()
    finally:
        await registry.close()
    await check_search_attributes(await connect(runtime=runtime(None)))
    program = (sys.executable, str(PROGRAM), *arguments, "--nth")
    commands = [(*program, str(nth)) for nth in range(number)]
    return await supervise(commands, stop=stop, grace=settings.shutdown_grace + SHUTDOWN_MARGIN)


def settings_of(nth: int, settings: Settings, *, number: int) -> Settings:
    """The settings of the nth of `number` processes, from 0: each listens on ports of its own. Raises SettingsInvalid."""
    addresses = {name: getattr(settings, name) for name in ("metrics_address", "health_address")}
    return settings.model_copy(update=addresses_of_process(nth, addresses, number=number))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse_options(arguments)
    try:
        settings = Settings.read()
        configure_logs(settings.log_format, settings.log_level)
        for warning in misspelt_variables(environment(), Settings.model_fields) if options.nth is None else ():
            log.warning("setting.unknown", warning=warning)
        if options.processes > 1:
            settings = settings_of(options.nth or 0, settings, number=options.processes)
            if options.nth is None:
                return asyncio.run(run_several(settings, arguments, options.processes))
            structlog.contextvars.bind_contextvars(process=options.nth)
            end_with_parent()
        asyncio.run(run(settings, options.channels, workflows=not options.no_workflows))
    except (BellwireError, ValueError) as error:
        if environment().get("BELLWIRE_LOG_FORMAT") == LogFormat.JSON:
            configure_logs(LogFormat.JSON, "INFO")
            log.error("worker.failed", error=str(error))  # noqa: TRY400 - it is expected: no traceback
        else:
            print(f"worker: {error}", file=sys.stderr)  # noqa: T201 - before or after the log
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
