"""`templates`: list them, and preview one with data of your own.

Rendering belongs to `activities`, which this package may not import: a preview runs `python -m activities.rendering.preview`.
"""

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from bellwire.errors import TemplateInvalid
from bellwire.service.settings import Settings
from bellwire.targets import SPECS, Channel
from bellwire.targets.sms_segments import segments
from starter.cli.input.documents import read_value
from starter.cli.tables import print_table
from starter.cli.terminal import (
    AsJson,
    CommandFailed,
    InputInvalid,
    command,
    console,
    opened_registry,
    print_json,
    printable,
)
from starter.local.processes import CHECKOUT

#: Where the built-in templates are.
BUILT_IN = CHECKOUT / "activities" / "templates"

#: The files of a template's folder, each with its channel.
_FILES = {file: channel for channel, spec in SPECS.items() for file in spec.templates.values()}

app = typer.Typer(help="List templates, or preview one.", no_args_is_help=True)


def channels_by_template(folder: Path | None) -> dict[str, set[Channel]]:
    """The names of all templates, built-in and the operator's in `folder`, each with the channels it has text for."""
    found: dict[str, set[Channel]] = {}
    for root in (BUILT_IN, *([folder] if folder else [])):
        for file in sorted(root.rglob("*.*")):
            name = file.relative_to(root).parts[0]
            if file.name in _FILES and not name.startswith("_"):
                found.setdefault(name, set()).add(_FILES[file.name])
    return dict(sorted(found.items()))


@app.command("list")
@command
async def list_templates(as_json: AsJson = False) -> None:
    """List the templates there are. An event type without one of its own gets `default`."""
    named = {name: sorted(channels) for name, channels in channels_by_template(Settings.read().templates).items()}
    if as_json:
        print_json(named)
    else:
        print_table(("template", "channels"), [(name, ", ".join(channels)) for name, channels in named.items()])


@app.command("preview")
@command
async def preview(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A template, or an event type.")],
    data: Annotated[str, typer.Option(help="The event's data as JSON, or @FILE.")] = "{}",
    locale: Annotated[str | None, typer.Option(help="Language of the text, such as en or zh-CN.")] = None,
    subscription_id: Annotated[
        str | None,
        typer.Option("--subscription", metavar="ID", help="As this subscription gets it: its parts, its language."),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write the HTML to this file, to look at in a browser."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Render a template for every channel, without sending anything."""
    settings = Settings.read()
    request: dict[str, Any] = {
        "name": name,
        "data": read_value("--data", data),
        "locale": locale or "en",
        "folder": str(settings.templates) if settings.templates else None,
    }
    if subscription_id is not None:
        async with opened_registry(settings) as registry:
            wish = await registry.subscriptions.get(subscription_id)
        wish = wish.model_copy(update={"locale": locale} if locale else {})
        request["subscription"] = wish.model_dump(mode="json", by_alias=True)
    rendered = await _ask(request)
    taken = None if (sms := rendered.get("sms.text")) is None else segments(sms)
    if html is not None:
        _write_html(html, rendered.get("email.html"))
    if as_json:
        print_json({**rendered, "segments": taken and taken.model_dump(mode="json")})
        return
    screen = console()
    for part, text in rendered.items():
        if part == "email.html" and html is not None:
            screen.rule(part)
            screen.print(f"written to {html}")
        elif text is not None:
            screen.rule(part)
            if part == "sms.text" and taken:
                screen.print(f"segments: {taken.count} ({taken.encoding}, {taken.units} of {taken.room} places)")
            screen.print("\n".join(printable(line) for line in text.splitlines()))


def _write_html(file: Path, html: str | None) -> None:
    if html is None:
        raise InputInvalid("--html: there is no HTML in it; leave the option out")
    try:
        file.write_text(html, encoding="utf-8")
    except OSError as error:
        raise InputInvalid(f"--html: {file} cannot be written: {error.strerror or error}") from error


async def check_parts(written: Sequence[Mapping[str, str]]) -> list[str | None]:
    """What is wrong with the parts of each subscription, with part and line, or None."""
    if not written:
        return []
    answer = await _ask({"check": [dict(parts) for parts in written]})
    faults: list[str | None] = answer["faults"]
    return faults


async def _ask(request: dict[str, Any]) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "activities.rendering.preview"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=CHECKOUT,
    )
    answer, complaint = await process.communicate(json.dumps(request).encode())
    if process.returncode:
        raise CommandFailed(
            f"activities.rendering.preview failed: {complaint.decode(errors='replace').strip()[-2000:]}"
        )
    rendered: dict[str, Any] = json.loads(answer)
    if "error" in rendered:
        raise TemplateInvalid(rendered["error"])
    return rendered
