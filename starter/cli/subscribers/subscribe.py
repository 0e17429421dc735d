"""`subscribe`: one subscription from options, or many from a file. If one is not valid, none is stored."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from bellwire.service.settings import Settings
from bellwire.targets import WebhookFormat
from starter.cli.input.documents import read_items, read_text, read_value
from starter.cli.input.durations import parse_duration, parse_schedule
from starter.cli.tables import print_table
from starter.cli.terminal import AsJson, command, opened_registry, print_json
from starter.operations.documents import Item, collect, object_of
from starter.operations.problems import InputInvalid
from starter.operations.subscribers.subscribing import NewSubscription, Subscribed, read_subscription, store


@command
async def subscribe(
    tenant: Annotated[str | None, typer.Option(help="Tenant that owns the subscription.")] = None,
    types: Annotated[
        list[str] | None, typer.Option("--type", help="Event type: order.paid, order.* or *. Repeatable.")
    ] = None,
    email: Annotated[list[str] | None, typer.Option(help="Deliver by email to this address. Repeatable.")] = None,
    attachments: Annotated[
        bool,
        typer.Option(
            "--attachments",
            help="With --email: attach the files that an event names in data.attachments, up to 10 and 15 MB.",
        ),
    ] = False,
    sms: Annotated[str | None, typer.Option(help="Deliver by SMS to this number: +14155550123.")] = None,
    sms_sender: Annotated[
        str | None,
        typer.Option(help="Sender of the SMS: a number, a name or a messaging service (MG…) of the operator."),
    ] = None,
    max_segments: Annotated[
        int | None, typer.Option(help="Maximum segments of one SMS; a longer text is rejected before it is sent.")
    ] = None,
    webhook: Annotated[str | None, typer.Option(help="Deliver by webhook to this https URL.")] = None,
    handshake: Annotated[
        bool, typer.Option("--handshake", help="Ask the webhook's URL for its consent before the first POST.")
    ] = False,
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", help='CloudEvents filter as JSON: {"prefix": {"source": "/shop"}}. Repeatable.'),
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="Template; the one named like the event type if omitted.")
    ] = None,
    own_templates: Annotated[
        list[str] | None,
        typer.Option(
            "--own-template",
            metavar="NAME=FILE",
            help="A template that the tenant wrote: email.subject=FILE. Repeatable.",
        ),
    ] = None,
    locale: Annotated[str | None, typer.Option(help="Language of the text, such as en or zh-CN.")] = None,
    retry: Annotated[
        str | None, typer.Option(help="Delays before further attempts: 5s,5m,1h; none for one attempt only.")
    ] = None,
    rate_limit: Annotated[
        float | None, typer.Option(metavar="PER_SECOND", help="Maximum deliveries per second; no limit if omitted.")
    ] = None,
    subscription_id: Annotated[str | None, typer.Option("--id", help="Its id; generated if omitted.")] = None,
    form: Annotated[
        WebhookFormat | None, typer.Option("--format", help="Body of the webhook; a whole CloudEvent if omitted.")
    ] = None,
    headers: Annotated[
        list[str] | None, typer.Option("--header", metavar="NAME:VALUE", help="Header of the webhook. Repeatable.")
    ] = None,
    timeout: Annotated[str | None, typer.Option(help="Timeout of one webhook request, 1s to 30s.")] = None,
    client_certificate: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="PEM of a client certificate and its key, shown to the endpoint."),
    ] = None,
    secret: Annotated[
        str | None, typer.Option(help="Signing secret of the webhook (whsec_… or whsk_…); generated if omitted.")
    ] = None,
    asymmetric: Annotated[
        bool, typer.Option("--asymmetric", help="Sign with a generated key pair; the receiver gets the public key.")
    ] = False,
    file: Annotated[
        Path | None,
        typer.Option("--file", help="Subscriptions as JSON: an object, an array or JSON Lines; - reads stdin."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Store a subscription, or many.

    From options, or from --file. A webhook gets a signing secret, shown once, or with --asymmetric a public key.
    Mails have a link to unsubscribe, if BELLWIRE_PUBLIC_URL and BELLWIRE_LINK_KEY are set.
    """
    settings = Settings.read()
    options = _set(
        tenant=tenant,
        types=types,
        filters=[read_value("--filter", text) for text in filters or ()],
        template=template,
        templates=_read_templates(own_templates) if own_templates else None,
        locale=locale,
        retry_schedule=None if retry is None else parse_schedule(retry),
        rate_limit=rate_limit,
        id=subscription_id,
        secret=secret,
        asymmetric=asymmetric or None,
    )
    email_options = _set(to=email and (email[0] if len(email) == 1 else email), attachments=attachments or None)
    sms_options = _set(to=sms, sender=sms_sender, max_segments=max_segments)
    webhook_options = _set(
        url=webhook,
        handshake=handshake or None,
        format=form,
        headers=read_headers(headers or ()),
        timeout=None if timeout is None else parse_duration("--timeout", timeout),
        client_certificate=None if client_certificate is None else read_text(str(client_certificate)),
    )
    if file is not None:
        if options or email_options or sms_options or webhook_options:
            raise InputInvalid("cannot be combined with other options", field="--file", remedy="omit them")
        new = collect(read_items(str(file)), lambda item: _read(item, settings))
    else:
        target = _target(email_options, sms_options, webhook_options)
        new = [read_subscription({**options, "target": target}, settings)]
    async with opened_registry(settings) as registry:
        stored = await store(registry, new)
    if as_json:
        results = [_as_json(each) for each in stored]
        print_json(results if file is not None else results[0])
        return
    rows = [
        (
            *(each.subscription.id, each.subscription.tenant, each.subscription.channel),
            ", ".join(each.subscription.types),
            "".join(each.credentials.values()),
        )
        for each in stored
    ]
    print_table(("subscription", "tenant", "channel", "types", "signing secret, shown once, or public key"), rows)


def _read(item: Item, settings: Settings) -> NewSubscription:
    return read_subscription(object_of(item), settings, place=item.place)


def _set(**options: Any) -> dict[str, Any]:
    """The options that are set."""
    return {name: value for name, value in options.items() if value not in (None, [], {})}


def _target(email: dict[str, Any], sms: dict[str, Any], webhook: dict[str, Any]) -> dict[str, Any]:
    """The target that the options describe. Raises InputInvalid unless they describe exactly one."""
    if email and "to" not in email:
        raise InputInvalid("only emails have attachments", field="--attachments", remedy="use it with --email")
    if sms and "to" not in sms:
        raise InputInvalid("only for --sms", field="--sms-sender, --max-segments", remedy="omit them")
    targets = [
        {"channel": channel, **options}
        for channel, options, address in (("email", email, "to"), ("sms", sms, "to"), ("webhook", webhook, "url"))
        if address in options
    ]
    if len(targets) != 1:
        raise InputInvalid("give exactly one of --email, --sms and --webhook (or --file)", field="target")
    if webhook and "url" not in webhook:
        raise InputInvalid("only for --webhook", field=", ".join(sorted(webhook)), remedy="omit them")
    return targets[0]


def _read_templates(given: list[str]) -> dict[str, str]:
    """Templates from NAME=FILE. Raises InputInvalid."""
    templates: dict[str, str] = {}
    for text in given:
        name, separator, file = text.partition("=")
        if not separator or not file:
            raise InputInvalid(f"{text!r} is not NAME=FILE, such as email.subject=subject.txt", field="--own-template")
        if name in templates:
            raise InputInvalid(f"{name} is given twice", field="--own-template")
        templates[name] = read_text(file)
    return templates


def read_headers(given: Iterable[str]) -> dict[str, str]:
    """Headers from NAME:VALUE. Raises InputInvalid, which repeats no value."""
    found: dict[str, str] = {}
    for each in given:
        name, colon, value = each.partition(":")
        if not colon or not name.strip():
            raise InputInvalid("is not NAME:VALUE, such as x-api-key:abc", field="--header")
        if name.strip() in found:
            raise InputInvalid(f"{name.strip()[:100]} is given twice", field="--header", remedy="omit one of them")
        found[name.strip()] = value.strip()
    return found


def _as_json(stored: Subscribed) -> dict[str, Any]:
    return {**stored.subscription.model_dump(mode="json", by_alias=True), **stored.credentials}
