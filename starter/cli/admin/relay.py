"""`relay`: publishes the outbox of a service until it is stopped, or shows what is in it."""

from typing import Annotated

import typer

from bellwire.client import Client
from bellwire.contract import MAX_EVENTS
from bellwire.formats.counts import counted
from bellwire.service.settings import LogFormat, Settings
from starter.cli.tables import print_table
from starter.cli.terminal import AsJson, command, note, opened_registry, print_json
from starter.operations.problems import InputInvalid

#: PostgreSQL closes the connection of a relay that says nothing for half a minute.
MAX_POLL = 20


@command
async def relay(
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The service's database, sqlite:///FILE or postgresql://…; BELLWIRE_OUTBOX_URL if omitted.",
        ),
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, max=MAX_EVENTS, help="Maximum events that are published together.")
    ] = MAX_EVENTS,
    poll: Annotated[
        float, typer.Option(min=0.01, max=MAX_POLL, help="Seconds until an outbox without events is read again.")
    ] = 0.2,
    once: Annotated[bool, typer.Option("--once", help="Publish what is there, then end.")] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Show what waits and what was refused; publish nothing.")
    ] = False,
    retry_refused: Annotated[
        bool, typer.Option("--retry-refused", help="Let refused events wait again, then end; publish nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Publish the outbox of a service until it is stopped.

    Services insert events with `bellwire.outbox`. Events of one subject are published in order. Several relays may run; those on
    PostgreSQL share the work, on SQLite one works and the others stand by.
    """
    if sum((once, show, retry_refused)) > 1:
        raise InputInvalid("cannot be combined", field="--once, --show and --retry-refused")
    settings = Settings.read()
    outbox = url or settings.outbox_url
    if outbox is None:
        raise InputInvalid(
            "is not set; give the URL of the service's database, or set BELLWIRE_OUTBOX_URL", field="--url"
        )
    if show:
        await _show(outbox, as_json=as_json)
    elif retry_refused:
        await _retry_refused(outbox, as_json=as_json)
    else:
        await _run(settings, outbox, batch=batch, poll=poll, once=once, as_json=as_json)


async def _run(settings: Settings, outbox: str, *, batch: int, poll: float, once: bool, as_json: bool) -> None:
    # No other command needs them.
    from bellwire.service.processes import stop_on_signals
    from bellwire.service.readiness import serving_readiness
    from bellwire.service.telemetry import configure_logs, runtime
    from bellwire.temporal.connection import connect
    from starter.relay.checking import EventChecks
    from starter.relay.metrics import RelayMetrics
    from starter.relay.opening import open_outbox
    from starter.relay.relay import Relay

    store = open_outbox(outbox)
    async with opened_registry(settings) as registry:
        configure_logs(settings.log_format, settings.log_level)
        temporal_runtime = runtime(None if once else settings.metrics_address)
        # Lazy, so that the relay may start before Temporal.
        client = await connect(keys=settings.ring, runtime=temporal_runtime, lazy=True)
        checks = EventChecks(
            registry,
            refuse_tenants=settings.unknown_tenants == "refuse",
            refuse_types=settings.unknown_types == "refuse",
        )
        metrics = RelayMetrics(temporal_runtime.metric_meter) if settings.metrics_address and not once else None
        relay = Relay(store, Client(client, batching=False), checks, metrics=metrics, batch=batch, poll=poll)
        try:
            if once:
                rows = await relay.publish_all()
                print_json({"rows": rows}) if as_json else note(counted(rows, "row"))
                return
            stop = stop_on_signals()
            async with serving_readiness(settings.health_address, client, registry, (), also=relay.check):
                if settings.log_format is LogFormat.CONSOLE:
                    note("publishing the outbox; Ctrl-C stops it")
                await relay.run(stop)
        finally:
            await store.close()


async def _show(outbox: str, *, as_json: bool) -> None:
    from starter.relay.opening import open_outbox

    store = open_outbox(outbox)
    try:
        backlog, refused = await store.backlog(), await store.refused()
    finally:
        await store.close()
    if as_json:
        rows = [
            {
                "row": row.id,
                "source": row.source,
                "id": row.event_id,
                "refused_at": row.refused_at.isoformat(),
                "error": row.error,
            }
            for row in refused
        ]
        counts = {"waiting": backlog.waiting, "oldest_age": backlog.oldest_age, "refused": backlog.refused}
        print_json({**counts, "refused_events": rows})
        return
    print_table(("waiting", "oldest, s", "refused"), [(backlog.waiting, f"{backlog.oldest_age:.0f}", backlog.refused)])
    if refused:
        columns = ("row", "source", "id", "refused at", "error")
        print_table(columns, [(row.id, row.source, row.event_id, row.refused_at, row.error) for row in refused])


async def _retry_refused(outbox: str, *, as_json: bool) -> None:
    from starter.relay.opening import open_outbox

    store = open_outbox(outbox)
    try:
        number = await store.retry_refused()
    finally:
        await store.close()
    if as_json:
        print_json({"waiting_again": number})
    else:
        note(f"waiting again: {number:,}")
