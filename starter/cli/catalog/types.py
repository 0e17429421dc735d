"""`types`: the catalog of event types."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from bellwire.catalog.event_types import EventType, NewEventType
from bellwire.formats.counts import counted
from bellwire.formats.durations import format_duration
from bellwire.registry.api.event_types import StoredType
from bellwire.service.settings import Settings
from starter.cli.input.documents import read_items, read_text, read_value
from starter.cli.input.durations import parse_schedule
from starter.cli.tables import print_facts, print_table
from starter.cli.terminal import BAD_INPUT, AsJson, command, group, note, opened_registry, print_json
from starter.operations.catalog.event_types import (
    all_event_types,
    document_of,
    put_event_types,
    read_event_type,
    read_event_types,
    remove_event_type,
)
from starter.operations.documents import Item
from starter.operations.problems import InputInvalid

app = group("List, show, add, check, import and document event types.")

TypeArgument = Annotated[str, typer.Argument(metavar="TYPE", help="An event type, such as order.paid.")]
Force = Annotated[
    bool, typer.Option("--force", help="Add a version although it breaks publishers or subscribers of the one before.")
]


@app.command("list")
@command
async def list_(as_json: AsJson = False) -> None:
    """List the types by name. The JSON is what `Catalog.read` takes."""
    async with opened_registry(Settings.read()) as registry:
        found = await all_event_types(registry)
    if as_json:
        print_json([document_of(each) for each in found])
        return
    print_table(
        ("type", "version", "owner", "description", "deprecated"),
        [(one.type, one.latest.version, one.owner, _first_line(one.description), one.deprecated) for one in found],
    )


@app.command("show")
@command
async def show(type_: TypeArgument, as_json: AsJson = False) -> None:
    """Show one type with its schema and examples."""
    async with opened_registry(Settings.read()) as registry:
        found = await registry.event_types.get(type_)
    if as_json:
        print_json(document_of(found))
        return
    schedule = found.retry_schedule
    print_facts(
        (
            ("type", found.type),
            ("description", found.description),
            ("owner", found.owner),
            ("deprecated", found.deprecated),
            (
                "retry schedule",
                None if schedule is None else ", ".join(map(format_duration, schedule)) or "one attempt only",
            ),
            ("version", found.latest.version),
            ("changed", found.updated_at),
        )
    )
    if found.latest.schema_ is not None:
        typer.echo("schema:")
        print_json(found.latest.schema_)
    for example in found.latest.examples:
        typer.echo("example:")
        print_json(example)


@app.command("add")
@command
async def add(
    type_: Annotated[str | None, typer.Argument(metavar="TYPE", help="An event type, such as order.paid.")] = None,
    schema: Annotated[
        str | None, typer.Option(help="JSON Schema 2020-12 of the data: JSON, or @FILE. Another one is a new version.")
    ] = None,
    examples: Annotated[
        list[str] | None, typer.Option("--example", help="Data that is valid: JSON, or @FILE. Repeatable.")
    ] = None,
    description: Annotated[str | None, typer.Option(help="What has happened when it is published.")] = None,
    owner: Annotated[str | None, typer.Option(help="Who answers for it: a team, or an address.")] = None,
    deprecated: Annotated[str | None, typer.Option(help="Why not to use it, and what to use instead.")] = None,
    retry: Annotated[
        str | None,
        typer.Option(help="Delays before further attempts, such as 5s,5m,1h, for subscriptions without their own."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="Types as JSON: an object, an array or JSON Lines; - reads stdin.")
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Add a type or many, or a new version of one. What is left out stays as it is."""
    fields: dict[str, Any] = {
        "description": description,
        "owner": owner,
        "deprecated": deprecated,
        "schema": None if schema is None else read_value("--schema", schema),
        "examples": None if examples is None else [read_value("--example", each) for each in examples],
        "retry_schedule": None if retry is None else parse_schedule(retry),
    }
    given = {name: value for name, value in fields.items() if value is not None}
    if file is not None:
        if type_ is not None or given:
            raise InputInvalid("cannot be combined with a type or its options", field="--file")
        new = read_event_types(read_items(str(file)))
    elif type_ is None:
        raise InputInvalid("is missing", field="TYPE", remedy="name a type, or give --file")
    else:
        new = [read_event_type({"type": type_, **given})]
    await _store(new, force=force, as_json=as_json)


@app.command("lint")
@command
async def lint(
    file: Annotated[
        Path | None, typer.Argument(help="Types as for `types add --file`; the stored catalog if omitted.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check types without storing them: what the catalog refuses, and advice."""
    from starter.operations.catalog.linting import lint_items, lint_stored

    if file is None:
        async with opened_registry(Settings.read()) as registry:
            findings = list(lint_stored(await all_event_types(registry)))
    else:
        findings = list(lint_items(read_items(str(file))))
    if as_json:
        names = {True: "error", False: "advice"}
        print_json(
            [
                {"type": one.type, "level": names[one.is_error], "field": one.field, "message": one.message}
                for one in findings
            ]
        )
    else:
        print_table(
            ("type", "level", "field", "message"),
            [(one.type, "error" if one.is_error else "advice", one.field, one.message) for one in findings],
        )
    if any(one.is_error for one in findings):
        raise typer.Exit(BAD_INPUT)


@app.command("import")
@command
async def import_(
    file: Annotated[str, typer.Argument(help="AsyncAPI, or OpenAPI 3.1 with webhooks; JSON or YAML; - reads stdin.")],
    owner: Annotated[str | None, typer.Option(help="Who answers for the types.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the types, and store nothing.")] = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Add the messages of an AsyncAPI document, or the webhooks of an OpenAPI document, to the catalog."""
    from starter.operations.catalog.importing import import_event_types

    new = import_event_types(read_text(file), "stdin" if file == "-" else file)
    if owner is not None:
        new = [read_event_type({**_given(each), "owner": owner}) for each in new]
    if dry_run:
        print_json([_given(each) for each in new])
        return
    await _store(new, force=force, as_json=as_json)


@app.command("docs")
@command
async def docs(
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("event-types.html"),
    title: Annotated[str, typer.Option(help="The title of the page.")] = "Event types",
    file: Annotated[
        Path | None, typer.Option("--file", help="Types as `types list --json` writes them; the catalog if omitted.")
    ] = None,
) -> None:
    """Write the catalog as one HTML page, which needs no other file."""
    from starter.operations.catalog.documentation import page

    if file is None:
        async with opened_registry(Settings.read()) as registry:
            types = await all_event_types(registry)
    else:
        types = [_stored(item) for item in read_items(str(file))]
    text = page(types, title=title)
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputInvalid(f"cannot be written: {error.strerror or error}", field=str(out)) from error
    note(f"{counted(len(types), 'type')} written to {out}")


@app.command("delete")
@command
async def delete(type_: TypeArgument, as_json: AsJson = False) -> None:
    """Remove a type with its versions. Events and subscriptions stay; `types add --deprecated` is kinder."""
    async with opened_registry(Settings.read()) as registry:
        await remove_event_type(registry, type_)
    if as_json:
        print_json({"type": type_, "deleted": True})
    else:
        note(f"{type_} is deleted")


async def _store(new: Iterable[NewEventType], *, force: bool, as_json: bool) -> None:
    stored: list[StoredType] = []
    async with opened_registry(Settings.read()) as registry:
        async for each in put_event_types(registry, new, force=force):
            stored.append(each)
            if not as_json:
                note(_what_was_done(each))
    if as_json:
        print_json([document_of(each.event_type) for each in stored])


def _what_was_done(stored: StoredType) -> str:
    name, version = stored.event_type.type, stored.event_type.latest.version
    if stored.created:
        return f"{name} added"
    return f"{name} has version {version}" if stored.new_version else f"{name} updated; its schema is version {version}"


def _given(new: NewEventType) -> dict[str, Any]:
    return new.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _stored(item: Item) -> EventType:
    try:
        return EventType.model_validate(item.value)
    except ValueError as error:
        remedy = "give what `types list --json` prints"
        raise InputInvalid("is not a type of the catalog", field=item.place, remedy=remedy) from error


def _first_line(text: str) -> str:
    first, _, more = text.partition("\n")
    return f"{first[:79]}…" if more or len(first) > 80 else first
