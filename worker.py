"""The worker: settings → registry and clients → activities → Temporal workers. Run it as `python worker.py`.

It polls the workflow queue and the queue of every channel; `--channels` narrows, so that each channel's fleet scales by itself.
`--processes` runs several of it, one for each processor.
On SIGTERM it stops polling, gives what is in flight BELLWIRE_SHUTDOWN_GRACE seconds, records what came of it, and leaves.
"""

import argparse
import asyncio
import gc
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from temporalio.client import Client
from temporalio.worker import (
    PollerBehaviorAutoscaling,
    PollerBehaviorSimpleMaximum,
    UnsandboxedWorkflowRunner,
    Worker,
)

from activities.egress.download import Downloader
from activities.egress.policy import Egress
from activities.email.attachments import attachment_fetch
from activities.email.channel import EmailChannel
from activities.email.dkim import DkimSigner
from activities.email.relays import Relays
from activities.rendering.renderer import Renderer
from activities.rendering.tenant_renderer import TenantRenderer
from activities.resolve import Resolver
from activities.sending.inline import InlineChannel, InlineSender
from activities.sending.test_sends import TestSends
from activities.sms.channel import SmsChannel
from activities.sms.http_provider import HttpProvider
from activities.sms.prices import Prices
from activities.sms.provider_config import ProvidersFile
from activities.sms.provider_http import provider_session
from activities.sms.providers import Provider, Providers
from activities.sms.twilio import TwilioProvider, twilio_client
from activities.webhook.channel import WebhookChannel
from bellwire.client import Client as Publisher
from bellwire.contract import QUEUE, channel_queue
from bellwire.errors import BellwireError
from bellwire.registry import Registry
from bellwire.service.operational_events import publishing_operational_events
from bellwire.service.readiness import serving_readiness
from bellwire.service.settings import Settings, SettingsInvalid
from bellwire.service.slots import BusySlots, SendSlots, tuner
from bellwire.service.supervisor import end_with_parent, supervise
from bellwire.service.telemetry import configure_logs, runtime
from bellwire.sms.twilio_codes import CALLBACKS as TWILIO_CALLBACKS
from bellwire.targets import Channel
from bellwire.temporal.connection import check_search_attributes, connect
from workflows import WORKFLOWS

log = structlog.get_logger("bellwire")

Implementation = Callable[..., Any]

#: Objects made since the last collection, and collections of each generation before one of the next.
COLLECT_AFTER = (50_000, 20, 50)
#: DNS look-ups at the same time.
LOOKUP_THREADS = 64
PROGRAM = Path(__file__).resolve()
#: Processes of --processes; more are a slip of the keyboard.
MAX_PROCESSES = 64
#: Port numbers end before this.
PORTS = 65536
#: Seconds beyond BELLWIRE_SHUTDOWN_GRACE that each of several processes has to leave before it is killed.
SHUTDOWN_MARGIN = 10.0


class Channels(NamedTuple):
    """What this process can send by."""

    email: EmailChannel
    sms: SmsChannel
    webhook: WebhookChannel

    @property
    def sends(self) -> dict[Channel, Implementation]:
        """The send activity of each channel."""
        return {
            Channel.EMAIL: self.email.send_email,
            Channel.SMS: self.sms.send_sms,
            Channel.WEBHOOK: self.webhook.send_webhook,
        }

    def test_sends_of(self, registry: Registry) -> TestSends:
        """What makes one attempt by any of them and records nothing."""
        attempts = {
            Channel.EMAIL: self.email.attempt,
            Channel.SMS: self.sms.attempt,
            Channel.WEBHOOK: self.webhook.attempt,
        }
        return TestSends(registry, attempts)


def local_activities(registry: Registry, first: InlineSender) -> list[Implementation]:
    """What workflows run beside themselves."""
    resolver = Resolver(registry)
    return [
        resolver.resolve,
        resolver.open_page,
        resolver.redeliver,
        resolver.settle,
        resolver.lookup,
        first.send_inline,
    ]


def signer_of(settings: Settings) -> DkimSigner | None:
    """What signs mails; None without a key. Raises ValueError, which names the variable of a key that is none."""
    if settings.dkim_domain is None or settings.dkim_selector is None or settings.dkim_key is None:
        return None
    return DkimSigner(settings.dkim_domain, settings.dkim_selector, settings.dkim_key.get_secret_value())


@asynccontextmanager
async def open_channels(settings: Settings, registry: Registry) -> AsyncIterator[Channels]:
    """All channels; on leaving, attempts that go on have the grace to end, and connections are closed."""
    async with AsyncExitStack() as stack:
        tenants = TenantRenderer(
            processes=settings.template_processes,
            timeout=settings.template_timeout,
            memory=settings.template_memory * 1024 * 1024,
        )
        renderer = Renderer(settings.templates, tenants=tenants)
        renderer.check()
        stack.push_async_callback(renderer.close)
        concurrency = settings.send_concurrency

        egress = Egress(
            allow=settings.egress_allow,
            allow_http=settings.webhook_allow_http,
            ports=settings.webhook_ports,
            proxy=settings.egress_proxy,
            details=settings.egress_details,
        )
        strangers = await stack.enter_async_context(egress.session(timeout=settings.webhook_timeout))

        relays = Relays(settings.relays, connections=settings.smtp_connections, timeout=settings.smtp_timeout)
        stack.push_async_callback(relays.close)
        email = EmailChannel(
            registry,
            relays,
            renderer,
            sender=settings.email_from,
            concurrency=concurrency,
            links=settings.links,
            signer=signer_of(settings),
            fetch=attachment_fetch(Downloader(strangers, egress), timeout=settings.webhook_timeout),
            return_path=settings.return_path,
        )

        sms = SmsChannel(
            registry,
            Providers(await _sms_providers(stack, settings, registry)),
            renderer,
            concurrency=concurrency,
            reconcile_after=settings.sms_reconcile_after,
            max_segments=settings.sms_max_segments,
            senders=settings.sms_senders,
            prices=Prices.read(settings.sms_prices) if settings.sms_prices else None,
        )

        webhook = WebhookChannel(
            registry,
            strangers,
            egress,
            timeout=settings.webhook_timeout,
            concurrency=concurrency,
            origin=settings.webhook_origin,
            renderer=renderer,
        )
        for in_flight in (email.in_flight, webhook.in_flight):
            stack.push_async_callback(in_flight.close, settings.shutdown_grace)
        yield Channels(email, sms, webhook)


async def _sms_providers(stack: AsyncExitStack, settings: Settings, registry: Registry) -> list[Provider]:
    """Twilio, if it is configured, and those that the operator describes, the first asked first."""
    configured = ProvidersFile.read(settings.sms_providers) if settings.sms_providers else None
    if configured is None and not settings.twilio_account_sid:
        return []
    session = await stack.enter_async_context(provider_session())
    providers: list[Provider] = []
    if settings.twilio_account_sid and settings.twilio_auth_token:
        client = twilio_client(
            settings.twilio_account_sid,
            settings.twilio_auth_token.get_secret_value(),
            url=settings.twilio_url,
            timeout=settings.twilio_timeout,
            session=session,
        )
        callbacks = settings.public_url and f"{settings.public_url}{TWILIO_CALLBACKS}"
        providers.append(
            TwilioProvider(client, registry.attempts, sender=settings.twilio_sender or "", callbacks=callbacks)
        )
    if configured is None:
        return providers
    providers += [HttpProvider(each, session, secrets=settings.sms_secrets) for each in configured.provider]
    return configured.in_order(providers)


@asynccontextmanager
async def polling(
    client: Client, registry: Registry, settings: Settings, channels: Sequence[Channel], *, workflows: bool = True
) -> AsyncIterator[list[Worker]]:
    """Workers for the workflow queue and the queues of the channels; leaving stops them gracefully."""
    options: dict[str, Any] = {
        "graceful_shutdown_timeout": timedelta(seconds=settings.shutdown_grace),
        "activity_task_poller_behavior": PollerBehaviorAutoscaling(initial=2),
    }
    async with open_channels(settings, registry) as opened, AsyncExitStack() as stack:
        trial = opened.test_sends_of(registry).send_test
        workers = [
            Worker(
                client,
                task_queue=channel_queue(channel),
                activities=[opened.sends[channel], trial],
                tuner=tuner(activities=SendSlots(settings.max_activities)),
                # Short, so that a cancel reaches an activity soon.
                max_heartbeat_throttle_interval=timedelta(seconds=2),
                **options,
            )
            for channel in channels
        ]
        if workflows:
            able: dict[Channel, InlineChannel] = {Channel.EMAIL: opened.email, Channel.WEBHOOK: opened.webhook}
            at_once = {channel: able[channel] for channel in channels if channel in able}
            first = InlineSender(registry, at_once, limit=settings.send_concurrency)
            workers.append(
                Worker(
                    client,
                    task_queue=QUEUE,
                    workflows=WORKFLOWS,
                    activities=local_activities(registry, first),
                    # The sandbox imports all workflows again for each run, a third of what a lone event costs the worker.
                    # Tests run them in the sandbox, so what it forbids does not get here.
                    workflow_runner=UnsandboxedWorkflowRunner(),
                    tuner=tuner(workflows=BusySlots(lambda: first.waiting)),
                    # What a sticky poll brings comes on top of the busy slots, so there are few.
                    workflow_task_poller_behavior=PollerBehaviorSimpleMaximum(2),
                    **options,
                )
            )
        for worker in workers:
            await stack.enter_async_context(worker)
        yield workers


async def run(settings: Settings, channels: Sequence[Channel], *, workflows: bool = True) -> None:
    """Work until SIGTERM or SIGINT. Raises NotSetUp, TemporalUnavailable, RegistryUnavailable, TemplateInvalid."""
    stop = asyncio.Event()
    # By default, looking for garbage takes a fifth of a worker's time: deliveries make many objects and few cycles.
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    # Names are looked up in threads; a slow name server of one tenant must not keep the others waiting.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(LOOKUP_THREADS, "lookup"))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    registry = await Registry.open(
        settings.registry_url, pool=settings.registry_pool, ring=settings.ring, disable_policy=settings.disable_policy
    )
    try:
        await registry.check()
        client = await connect(keys=settings.ring, runtime=runtime(settings.metrics_address))
        await check_search_attributes(client)
        async with (
            polling(client, registry, settings, channels, workflows=workflows) as workers,
            publishing_operational_events(registry, Publisher(client)),
            serving_readiness(settings.health_address, client, registry, workers),
        ):
            log.info("worker.started", channels=[str(channel) for channel in channels], workflows=workflows)
            await stop.wait()
            log.info("worker.stopping", grace_seconds=settings.shutdown_grace)
    finally:
        await registry.close()
    log.info("worker.stopped")


def _channels(text: str) -> list[Channel]:
    try:
        return [Channel(name.strip()) for name in text.split(",") if name.strip()]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; channels are {', '.join(Channel)}") from error


async def run_several(settings: Settings, arguments: Sequence[str], number: int) -> int:
    """Run this program as `number` processes until SIGTERM or SIGINT; the exit status, 1 if one ended by itself.

    Raises what `run` raises before it works, once and not from each process.
    """
    stop = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, stop.set)
    Renderer(settings.templates).check()
    signer_of(settings)
    registry = await Registry.open(settings.registry_url, pool=1)
    try:
        await registry.check()
    finally:
        await registry.close()
    await check_search_attributes(await connect())
    program = (sys.executable, str(PROGRAM), *arguments, "--nth")
    commands = [(*program, str(nth)) for nth in range(number)]
    return await supervise(commands, stop=stop, grace=settings.shutdown_grace + SHUTDOWN_MARGIN)


def settings_of(nth: int, settings: Settings, *, number: int) -> Settings:
    """The settings of one of `number` processes, counted from 0: each listens on the ports after those of the one before.

    Raises SettingsInvalid if there are not that many ports.
    """
    moved, taken = dict[str, str](), set[str]()
    for name in ("metrics_address", "health_address"):
        host, _, port = (getattr(settings, name) or "").rpartition(":")
        addresses = [f"{host}:{int(port) + each}" for each in range(number)] if port else []
        if (port and int(port) + number > PORTS) or taken & set(addresses):
            raise SettingsInvalid(
                f"BELLWIRE_{name.upper()}: {number} processes listen on as many ports from {port} on, which must not pass "
                f"{PORTS - 1} nor meet those of another address"
            )
        taken |= set(addresses)
        if addresses:
            moved[name] = addresses[nth]
    return settings.model_copy(update=moved)


def _processes(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_PROCESSES:
        raise argparse.ArgumentTypeError(f"must be 1 to {MAX_PROCESSES}")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="worker.py", description="Run Bellwire's workflows and channels. Settings: BELLWIRE_*, TEMPORAL_*."
    )
    parser.add_argument(
        "--channels", type=_channels, default=list(Channel), help="only these, separated by commas: email,sms,webhook"
    )
    parser.add_argument("--no-workflows", action="store_true", help="poll the channels only")
    parser.add_argument(
        "--processes",
        type=_processes,
        default=1,
        metavar="N",
        help="run as so many processes; each listens on the ports after those of the one before",
    )
    # Which of several this is; they are started with it.
    parser.add_argument("--nth", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        settings = Settings.read()
        configure_logs(settings.log_format, settings.log_level)
        if options.processes > 1:
            settings = settings_of(options.nth or 0, settings, number=options.processes)
            if options.nth is None:
                return asyncio.run(run_several(settings, arguments, options.processes))
            structlog.contextvars.bind_contextvars(process=options.nth)
            end_with_parent()
        asyncio.run(run(settings, options.channels, workflows=not options.no_workflows))
    except (BellwireError, ValueError) as error:
        print(f"worker: {error}", file=sys.stderr)  # noqa: T201 - before or after the log
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
