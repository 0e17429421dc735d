"""`api-keys`: create, list, revoke and rotate the keys of the HTTP API."""

from datetime import timedelta
from typing import Annotated, Any

import typer

from bellwire.registry.api.api_keys import OVERLAP, ApiKey, NewApiKey
from bellwire.service.settings import Settings
from starter.cli.input.durations import parse_duration
from starter.cli.tables import print_table
from starter.cli.terminal import AsJson, command, note, opened_registry, print_json
from starter.operations.platform.api_keys import (
    create_api_key,
    list_api_keys,
    parse_scope,
    revoke_api_key,
    rotate_api_key,
)

app = typer.Typer(help="Create, list, revoke and rotate the keys of the HTTP API.", no_args_is_help=True)

KeyId = Annotated[str, typer.Argument(metavar="KEY_ID", help="The id of a key, such as key_0192….")]


@app.command("create")
@command
async def create(
    scope: Annotated[
        str, typer.Option(help="What it may do: admin, publish, or tenant:<tenant> for one tenant's own resources.")
    ],
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    expires: Annotated[str | None, typer.Option(help="When it stops working, such as 90d. Never if omitted.")] = None,
    as_json: AsJson = False,
) -> None:
    """Create a key and print it. It is shown once."""
    expires_in = None if expires is None else timedelta(seconds=parse_duration("--expires", expires))
    async with opened_registry(Settings.read()) as registry:
        new = await create_api_key(
            registry, parse_scope(scope, field="--scope"), description=description, expires_in=expires_in
        )
    _print_new(new, as_json=as_json)


@app.command("list")
@command
async def list_(
    tenant: Annotated[str | None, typer.Option(help="Only keys with this tenant's scope.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number of keys.")] = 100,
    after: Annotated[str, typer.Option(help="Start after this key id.")] = "",
    as_json: AsJson = False,
) -> None:
    """List keys, those that no longer work included."""
    async with opened_registry(Settings.read()) as registry:
        found = await list_api_keys(registry, tenant=tenant, after=after, limit=limit)
    if as_json:
        print_json([_as_json(key) for key in found])
        return
    print_table(
        ("id", "scope", "description", "last used", "ends"),
        [(key.id, key.scope, key.description, key.last_used_at, key.revoked_at or key.expires_at) for key in found],
    )


@app.command("revoke")
@command
async def revoke(key_id: KeyId, as_json: AsJson = False) -> None:
    """Let a key work no more. Every gateway refuses it within five seconds."""
    async with opened_registry(Settings.read()) as registry:
        key = await revoke_api_key(registry, key_id)
    if as_json:
        print_json(_as_json(key))
    else:
        note(f"{key.id} is revoked")


@app.command("rotate")
@command
async def rotate(
    key_id: KeyId,
    overlap: Annotated[
        str, typer.Option(help="How long the old key still works, such as 1h; 0s revokes it at once.")
    ] = f"{OVERLAP.total_seconds() / 3600:g}h",
    as_json: AsJson = False,
) -> None:
    """Create a successor of a key, with the same scope, and print it."""
    async with opened_registry(Settings.read()) as registry:
        new = await rotate_api_key(registry, key_id, overlap=timedelta(seconds=parse_duration("--overlap", overlap)))
    _print_new(new, as_json=as_json)


def _print_new(new: NewApiKey, *, as_json: bool) -> None:
    if as_json:
        print_json({"id": new.api_key.id, "key": new.key})
        return
    typer.echo(new.key)
    note(f"{new.api_key.id}, scope {new.api_key.scope}; it is not shown again")


def _as_json(key: ApiKey) -> dict[str, Any]:
    times = {
        name: None if moment is None else moment.isoformat()
        for name, moment in (
            ("created_at", key.created_at),
            ("expires_at", key.expires_at),
            ("last_used_at", key.last_used_at),
            ("revoked_at", key.revoked_at),
        )
    }
    return {"id": key.id, "scope": str(key.scope), "description": key.description, "hint": key.hint, **times}
