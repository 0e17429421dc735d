"""`publish`: one event from options, or events from a file."""

from typing import Annotated, Any

import typer

from bellwire.cli.gateway import Gateway, InputInvalid, command
from bellwire.cli.output import AsJson, note, print_json, print_table
from bellwire.cli.values import read_json, read_text
from bellwire.errors import WaitTimeout
from bellwire.events import Event
from bellwire.formats import strict_json
from bellwire.formats.counts import counted
from bellwire.formats.timestamps import format_timestamp


@command
async def publish(
    gateway: Gateway,
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help="CloudEvents as JSON or JSON Lines; - reads stdin.")
    ] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Event type: order.paid.")] = None,
    source: Annotated[str | None, typer.Option(help="Source of the event, a URI-reference: /shop/orders.")] = None,
    data: Annotated[str | None, typer.Option(help="Data as JSON, or @FILE.")] = None,
    subject: Annotated[str | None, typer.Option(help="Subject of the event, such as an order's id.")] = None,
    event_id: Annotated[
        str | None, typer.Option("--id", help="Id of the event; generated if omitted. With an id, repeating is safe.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Tenant that it is for, * for all; `default` if omitted.")] = None,
    delay: Annotated[str | None, typer.Option(help="Deliver it so much later, such as 90s, 2h or 3d.")] = None,
    deliver_at: Annotated[str | None, typer.Option(help="Deliver it at this time: 2026-12-24T18:00:00+01:00.")] = None,
    wait: Annotated[float | None, typer.Option(min=0, help="Seconds to wait until all deliveries are settled.")] = None,
    as_json: AsJson = False,
) -> None:
    """Publish an event, or all of a file."""
    given = {"type": type_, "source": source, "subject": subject, "id": event_id, "tenant": tenant}
    given = {name: value for name, value in given.items() if value is not None}
    if file is not None:
        if given or data is not None:
            raise InputInvalid("FILE: cannot be combined with options of one event; omit them")
        events = [Event.parse(value) for value in _documents(read_text(file), file)]
    else:
        fields: dict[str, Any] = {**given, **({} if data is None else {"data": read_json("--data", data)})}
        events = [Event.parse({"specversion": "1.0", **fields})]
    receipts = await gateway.publish_many(events, delay=delay, deliver_at=deliver_at)
    results: list[dict[str, Any]] = [
        {"source": each.source, "id": each.event_id, "key": event.key, "duplicate": each.duplicate}
        | ({"deliver_at": format_timestamp(each.deliver_at)} if each.deliver_at else {})
        for each, event in zip(receipts, events, strict=True)
    ]
    for event_type, reason in {
        event.type: each.deprecated for each, event in zip(receipts, events, strict=True)
    }.items():
        if reason is not None:
            note(f"warning: {event_type} is deprecated: {reason}")
    unsettled = 0
    if wait is not None:
        for receipt, result in zip(receipts, results, strict=True):
            try:
                status = await gateway.wait(receipt, timeout=wait)
            except WaitTimeout:
                unsettled += 1
                continue
            result["counts"] = status.counts.model_dump()
    if as_json:
        print_json(results)
    else:
        rows = [
            (
                each["source"],
                each["id"],
                each["key"],
                {True: "yes", False: "no"}.get(each["duplicate"], ""),
                _counts(each),
            )
            for each in results
        ]
        print_table(("source", "id", "key", "published before", "deliveries"), rows)
    if unsettled:
        note(
            f"{unsettled} of {counted(len(events), 'event')} did not settle within {wait:g} s; `bellwire events KEY` shows them"
        )
        raise typer.Exit(1)


def _documents(text: str, name: str) -> list[Any]:
    """The values of a JSON document that is an object or an array, or of JSON Lines. Raises InputInvalid."""
    try:
        value = strict_json.loads(text)
    except ValueError as error:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2:
            raise InputInvalid(f"{name}: is not valid JSON: {error}") from error
        return [read_json(f"{name}, line {number}", line) for number, line in enumerate(lines, 1)]
    return value if isinstance(value, list) else [value]


def _counts(result: dict[str, Any]) -> str:
    counts = result.get("counts")
    if counts is None:
        return ""
    named = [f"{number} {name}" for name, number in counts.items() if number and name != "matched"]
    return ", ".join(named) or "no matching subscriptions"
