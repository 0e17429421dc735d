"""`templates`: list them, and preview one with data of your own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from bellwire.service.settings import Settings
from starter.cli.input.documents import read_value
from starter.cli.tables import print_table
from starter.cli.terminal import AsJson, command, console, group, opened_registry, print_json, printable
from starter.operations.problems import InputInvalid
from starter.operations.subscribers import templates
from starter.operations.subscribers.templates import Preview, Sent, channels_by_template

app = group("List templates, or preview one.")


@app.command("list")
@command
async def list_templates(as_json: AsJson = False) -> None:
    """List the templates. An event type without a template uses `default`."""
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
        typer.Option(
            "--subscription", metavar="ID", help="As this subscription gets it: its own templates, its locale."
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the HTML to this file, for a browser.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Render a template for every channel, without sending anything."""
    settings = Settings.read()
    value, subscription = read_value("--data", data), None
    if subscription_id is not None:
        async with opened_registry(settings) as registry:
            subscription = await registry.subscriptions.get(subscription_id)
    rendered = await templates.preview(
        name,
        data=value,
        locale=locale,
        folder=settings.templates,
        sms_providers=settings.sms_providers,
        subscription=subscription,
    )
    if html is not None:
        _write_html(html, rendered.texts.get("email.html"))
    if as_json:
        segments = rendered.segments
        sent = {channel: each.model_dump(mode="json") for channel, each in rendered.sent.items()}
        print_json({**rendered.texts, "segments": segments and segments.model_dump(mode="json"), "sent": sent})
    else:
        _print(rendered, html)


def _print(rendered: Preview, html: Path | None) -> None:
    screen, segments = console(), rendered.segments
    for part, text in rendered.texts.items():
        if part == "email.html" and html is not None:
            screen.rule(part)
            typer.echo(f"written to {html}")
        elif text is not None:
            screen.rule(part)
            if part == "sms.text" and segments:
                screen.print(
                    f"segments: {segments.count} ({segments.encoding}, {segments.units} of {segments.room} places)"
                )
            screen.print("\n".join(printable(line) for line in text.splitlines()))
    for channel, sent in rendered.sent.items():
        _print_sent(channel, sent)


def _print_sent(channel: str, sent: Sent) -> None:
    screen = console()
    screen.rule(f"{channel}, as it is sent")
    if sent.problem is not None:
        screen.print(f"not sent: {printable(sent.problem)}")
        return
    for place, value in _leaves(sent.message):
        mark = " (cut)" if place in sent.cut else ""
        screen.print("\n".join(printable(line) for line in f"{place}{mark}: {value}".splitlines()))


def _leaves(value: object, place: str = "") -> Iterator[tuple[str, object]]:
    """The values of JSON that hold no others, each with its place."""
    if isinstance(value, dict | list):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(item, f"{place}.{name}" if place else str(name))
    else:
        yield place, value


def _write_html(file: Path, html: str | None) -> None:
    if html is None:
        raise InputInvalid("the template has no HTML", field="--html", remedy="omit the option")
    try:
        file.write_text(html, encoding="utf-8")
    except OSError as error:
        raise InputInvalid(f"{file} cannot be written: {error.strerror or error}", field="--html") from error
