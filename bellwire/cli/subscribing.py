"""`subscribe`, `subscriptions` and `update`."""

from typing import Annotated, Any

import typer

from bellwire.cli.gateway import Gateway, InputInvalid, command
from bellwire.cli.output import AsJson, note, print_json, print_table
from bellwire.cli.values import read_json

Types = Annotated[list[str] | None, typer.Option("--type", help="Event type: order.paid, order.* or *. Repeatable.")]
Webhook = Annotated[str | None, typer.Option(help="Deliver by webhook to this https URL.")]
Email = Annotated[list[str] | None, typer.Option(help="Deliver by email to this address. Repeatable.")]
Sms = Annotated[str | None, typer.Option(help="Deliver by SMS to this number: +14155550123.")]
Poll = Annotated[bool, typer.Option("--poll", help="Deliver to a feed, which the app reads: `bellwire poll`.")]
Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        help='Filter as JSON: {"prefix": {"source": "/shop"}}, {"sql": "hop > 5"} or {"data": {"status": ["paid"]}}. Repeatable.',
    ),
]
Fields = Annotated[
    str | None, typer.Option("--fields", help="Further fields of the subscription as JSON, or @FILE: see the HTTP API.")
]


@command
async def subscribe(
    gateway: Gateway,
    types: Types = None,
    webhook: Webhook = None,
    email: Email = None,
    sms: Sms = None,
    poll: Poll = False,
    filters: Filters = None,
    tenant: Annotated[str | None, typer.Option(help="Its tenant; by default that of the key, or `default`.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Deliver also what happened since then: 1h, or 2026-11-29T08:00:00Z.")
    ] = None,
    fields: Fields = None,
    as_json: AsJson = False,
) -> None:
    """Create a subscription. The signing secret of a webhook is shown this once."""
    value = _fields(types, webhook, email, sms, filters, fields, poll=poll)
    if tenant is not None:
        value["tenant"] = tenant
    if since is not None:
        value["since"] = since
    created = await gateway.send("POST", "/v1/subscriptions", value)
    if as_json:
        print_json(created)
        return
    _print([created])
    if secret := created.get("secret") or created.get("public_key"):
        note(f"Verify its webhooks with {secret}, which is shown this once.")


@command
async def subscriptions(
    gateway: Gateway,
    tenant: Annotated[str | None, typer.Option(help="Only of this tenant.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List subscriptions."""
    found = [each async for each in gateway.items("/v1/subscriptions", limit=limit, tenant=tenant)]
    if as_json:
        print_json(found)
    else:
        _print(found)


@command
async def update(
    gateway: Gateway,
    subscription: Annotated[str, typer.Argument(metavar="ID", help="The id of a subscription.")],
    types: Types = None,
    webhook: Webhook = None,
    email: Email = None,
    sms: Sms = None,
    filters: Filters = None,
    fields: Fields = None,
    version: Annotated[int | None, typer.Option(help="Only if it is at this version; by default at any.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change a subscription. What is not named stays; null in --fields clears a field."""
    value = _fields(types, webhook, email, sms, filters, fields)
    if not value:
        raise InputInvalid("names no change; give at least one option")
    headers = {} if version is None else {"if-match": f'"v{version}"'}
    updated = await gateway.send("PATCH", f"/v1/subscriptions/{subscription}", value, headers=headers)
    if as_json:
        print_json(updated)
    else:
        _print([updated])


def _fields(
    types: list[str] | None,
    webhook: str | None,
    email: list[str] | None,
    sms: str | None,
    filters: list[str] | None,
    fields: str | None,
    *,
    poll: bool = False,
) -> dict[str, Any]:
    """The fields of a subscription. Raises InputInvalid."""
    value = {} if fields is None else read_json("--fields", fields)
    if not isinstance(value, dict):
        raise InputInvalid("--fields: must be a JSON object")
    targets = [
        *([{"channel": "webhook", "url": webhook}] if webhook else []),
        *([{"channel": "email", "to": email}] if email else []),
        *([{"channel": "sms", "to": sms}] if sms else []),
        *([{"channel": "poll"}] if poll else []),
    ]
    if len(targets) > 1:
        raise InputInvalid("a subscription has one target; give one of --webhook, --email, --sms and --poll")
    given: dict[str, Any] = {"target": targets[0]} if targets else {}
    if types:
        given["types"] = types
    if filters:
        given["filters"] = [read_json("--filter", each) for each in filters]
    if twice := given.keys() & value.keys() - {"target"}:
        raise InputInvalid(f"{', '.join(sorted(twice))}: is given twice, as an option and in --fields")
    if "target" in given and isinstance(value.get("target"), dict):
        given["target"] = {**value["target"], **given["target"]}
    return {**value, **given}


def _print(found: list[dict[str, Any]]) -> None:
    rows = [
        (
            *(each["id"], each["tenant"], each["target"]["channel"]),
            each["target"].get("url") or _recipients(each["target"].get("to")),
            ", ".join(each["types"]),
            each["state"],
            each["version"],
        )
        for each in found
    ]
    print_table(("subscription", "tenant", "channel", "to", "types", "state", "version"), rows)


def _recipients(to: str | list[str] | None) -> str:
    return ", ".join(to) if isinstance(to, list) else to or ""
