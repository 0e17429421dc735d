"""`events`, `deliveries` and `redeliver`."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from bellwire.cli.gateway import Gateway, command
from bellwire.cli.output import AsJson, note, print_json, print_table
from bellwire.cli.values import read_time

Limit = Annotated[int, typer.Option(min=1, help="Maximum number.")]
Type = Annotated[str | None, typer.Option("--type", help="Only events of this type.")]
Since = Annotated[str | None, typer.Option(help="Only events since this time, or since so long ago: 2h.")]


@command
async def events(
    gateway: Gateway,
    key: Annotated[str | None, typer.Argument(metavar="[KEY]", help="The key of one event.")] = None,
    type_: Type = None,
    tenant: Annotated[str | None, typer.Option(help="Only events for this tenant.")] = None,
    since: Since = None,
    limit: Limit = 25,
    as_json: AsJson = False,
) -> None:
    """List events, newest first, or show one with its deliveries."""
    if key is not None:
        found = await gateway.get(f"/v1/events/{quote(key, safe='')}", include="deliveries")
        if as_json:
            print_json(found)
            return
        print_json(found["event"])
        _print_deliveries(found["deliveries"])
        return
    listed = gateway.items("/v1/events", limit=limit, type=type_, tenant=tenant, since=_time(since))
    items = [each async for each in listed]
    if as_json:
        print_json(items)
        return
    rows = [
        (
            *(each["accepted_at"], each["key"], each["event"]["type"], each["event"].get("tenant", "default")),
            ", ".join(f"{number} {name}" for name, number in each["counts"].items() if number and name != "matched"),
        )
        for each in items
    ]
    print_table(("accepted", "key", "type", "tenant", "deliveries"), rows)


@command
async def deliveries(
    gateway: Gateway,
    delivery: Annotated[str | None, typer.Argument(metavar="[ID]", help="The id of one delivery.")] = None,
    event: Annotated[str | None, typer.Option(help="Only of the event with this key.")] = None,
    subscription: Annotated[str | None, typer.Option(help="Only of this subscription.")] = None,
    state: Annotated[str | None, typer.Option(help="Only in this state: waiting, rejected, exhausted, …")] = None,
    type_: Type = None,
    since: Since = None,
    limit: Limit = 25,
    as_json: AsJson = False,
) -> None:
    """List deliveries, newest first, or show one with its attempts."""
    if delivery is not None:
        found = await gateway.get(f"/v1/deliveries/{quote(delivery, safe='')}")
        if as_json:
            print_json(found)
            return
        _print_deliveries([found])
        attempts = found["attempt_log"] or []
        rows = [(each["number"], each["started_at"], each["outcome"], each["reason"]) for each in attempts]
        print_table(("attempt", "started", "outcome", "reason"), rows)
        return
    query = {"event": event, "subscription": subscription, "state": state, "type": type_, "since": _time(since)}
    items = [each async for each in gateway.items("/v1/deliveries", limit=limit, **query)]
    if as_json:
        print_json(items)
    else:
        _print_deliveries(items)


@command
async def redeliver(
    gateway: Gateway,
    delivery: Annotated[str, typer.Argument(metavar="ID", help="The id of a delivery.")],
    end_pause: Annotated[bool, typer.Option("--end-pause", help="Also if it is paused.")] = False,
    as_json: AsJson = False,
) -> None:
    """Attempt a delivery now: one that waits at once, a settled one again with a new schedule."""
    path = f"/v1/deliveries/{quote(delivery, safe='')}/redeliver"
    found = await gateway.send("POST", path, {"end_pause": end_pause})
    if as_json:
        print_json(found)
    else:
        note(f"{delivery} is attempted by {found['workflow_id']}")


def _time(text: str | None) -> str | None:
    return None if text is None else read_time("--since", text).isoformat()


def _print_deliveries(found: list[dict[str, Any]]) -> None:
    columns = ("id", "subscription", "channel", "state", "attempts", "reason", "next_attempt_at")
    print_table(
        ("delivery", *columns[1:-1], "next attempt"), [tuple(each[column] for column in columns) for each in found]
    )
