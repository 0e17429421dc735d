"""`explain` and `simulate`: why an event matched subscriptions or not, and what a subscription would match."""

from collections.abc import Iterable
from typing import Annotated, Any
from urllib.parse import quote

import typer

from bellwire.cli.gateway import Gateway, command
from bellwire.cli.output import AsJson, note, print_json, print_table, printable
from bellwire.cli.subscribing import Filters, Types
from bellwire.cli.values import read_json
from bellwire.formats.counts import counted

_MARKS = {True: "✓", False: "✗", None: "?"}


@command
async def explain(
    gateway: Gateway,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key of an event.")],
    subscription: Annotated[str | None, typer.Option(help="Explain this subscription, with all steps.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="Maximum number of subscriptions.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Explain why an event matched a subscription or did not, step by step."""
    path = f"/v1/events/{quote(key, safe='')}/explain"
    found = await gateway.get(path, subscription=subscription, limit=limit)
    if as_json:
        print_json(found)
        return
    if subscription is not None:
        (item,) = found["items"]
        typer.echo(printable(item["summary"]))
        for step in item["steps"]:
            typer.echo(f"{_MARKS[step['passed']]} {step['name']:<12} {printable(step['text'])}")
            _print_parts(step["parts"], indent=15)
        return
    rows = [(each["subscription"], each["tenant"], _MARKS[each["matched"]], each["summary"]) for each in found["items"]]
    print_table(("subscription", "tenant", "matched", "why"), rows)
    note(f"{found['matched']:,} matched; looked at {counted(found['looked_at'], 'subscription')}")
    if found["next"]:
        note("there are more: name one with --subscription")


@command
async def simulate(
    gateway: Gateway,
    types: Types = None,
    filters: Filters = None,
    tenant: Annotated[
        str | None, typer.Option(help="Tenant of the events; by default that of the key, or `default`.")
    ] = None,
    last: Annotated[int, typer.Option(min=1, max=1000, help="How many of the last events it is tried on.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Try types and filters on the last events of a tenant, without creating a subscription."""
    body: dict[str, Any] = {"last": last}
    if types:
        body["types"] = types
    body["filters"] = [read_json("--filter", each) for each in filters or ()]
    if tenant is not None:
        body["tenant"] = tenant
    found = await gateway.send("POST", "/v1/subscriptions/simulate", body)
    if as_json:
        print_json(found)
        return
    rows = [
        (
            *(_MARKS[matched], each["accepted_at"], each["key"], each["type"]),
            " ".join(step["text"] for step in each["steps"] if not step["passed"]),
        )
        for matched, events in ((True, found["matches"]), (False, found["others"]))
        for each in events
    ]
    print_table(("matched", "accepted", "key", "type", "why not"), rows)
    note(f"{found['matched']:,} of {counted(found['looked_at'], 'event')} of {found['tenant']} matched")


def _print_parts(parts: Iterable[dict[str, Any]], *, indent: int) -> None:
    for part in parts:
        text = f"{_MARKS[part['passed']]} {printable(part['text'])}: {printable(part['reason'])}"
        typer.echo(" " * indent + text)
        _print_parts(part["parts"], indent=indent + 2)
