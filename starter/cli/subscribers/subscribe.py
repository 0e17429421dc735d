"""`subscribe`: one subscription from options, or many from a file. If one is not valid, none is stored."""

from pathlib import Path
from typing import Annotated, Any

import typer

from bellwire.errors import TemporalUnavailable
from bellwire.replays import Replay
from bellwire.service.settings import Settings
from starter.cli.input.documents import read_items
from starter.cli.subscribers import options
from starter.cli.tables import print_table
from starter.cli.terminal import AsJson, command, connected, note, opened_registry, print_json
from starter.operations.documents import Item, collect, object_of
from starter.operations.problems import InputInvalid
from starter.operations.subscribers.past import start_stored
from starter.operations.subscribers.subscribing import NewSubscription, Subscribed, read_subscription, store


@command
async def subscribe(
    tenant: Annotated[str | None, typer.Option(help="Tenant that owns the subscription; `default` if omitted.")] = None,
    types: options.Types = None,
    email: options.Email = None,
    attachments: Annotated[
        bool,
        typer.Option(
            "--attachments",
            help="With --email: attach the files that an event names in data.attachments, up to 10 and 15 MB.",
        ),
    ] = False,
    sms: options.Sms = None,
    sms_sender: options.SmsSender = None,
    max_segments: options.MaxSegments = None,
    webhook: options.Webhook = None,
    handshake: Annotated[
        bool, typer.Option("--handshake", help="Ask the webhook's URL for its consent before the first POST.")
    ] = False,
    poll: Annotated[
        bool,
        typer.Option("--poll", help="Deliver to a feed, which the app reads over HTTP: GET /v1/subscriptions/ID/poll."),
    ] = False,
    filters: options.Filters = None,
    template: options.Template = None,
    own_templates: options.OwnTemplates = None,
    locale: options.Locale = None,
    retry: options.Retry = None,
    rate_limit: options.RateLimit = None,
    subscription_id: Annotated[str | None, typer.Option("--id", help="Its id; generated if omitted.")] = None,
    form: options.Format = None,
    headers: options.Headers = None,
    timeout: options.Timeout = None,
    client_certificate: options.ClientCertificate = None,
    secret: Annotated[
        str | None, typer.Option(help="Signing secret of the webhook (whsec_… or whsk_…); generated if omitted.")
    ] = None,
    asymmetric: Annotated[
        bool, typer.Option("--asymmetric", help="Sign with a generated key pair; the receiver gets the public key.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Deliver also what happened since then: 1h ago, or 2026-11-29T08:00:00Z."),
    ] = None,
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
    fields = options.given(tenant=tenant, id=subscription_id, secret=secret, asymmetric=asymmetric or None, since=since)
    fields |= options.read_fields(
        types=types,
        filters=filters,
        template=template,
        own_templates=own_templates,
        locale=locale,
        retry=retry,
        rate_limit=rate_limit,
    )
    targets = options.read_target(
        email=email,
        attachments=attachments or None,
        sms=sms,
        sms_sender=sms_sender,
        max_segments=max_segments,
        webhook=webhook,
        handshake=handshake or None,
        form=form,
        headers=headers,
        timeout=timeout,
        client_certificate=client_certificate,
    )
    if poll:
        targets["poll"] = {"channel": "poll"}
    if file is not None:
        if fields or targets:
            raise InputInvalid("cannot be combined with other options", field="--file", remedy="omit them")
        new = collect(read_items(str(file)), lambda item: _read(item, settings))
    else:
        new = [read_subscription({**fields, "target": _target(targets)}, settings)]
    async with opened_registry(settings) as registry:
        stored = await store(registry, new)
    if replays := [each.replay for each in stored if each.replay is not None]:
        await _start(replays)
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


async def _start(replays: list[Replay]) -> None:
    try:
        await start_stored(await connected(), replays)
    except TemporalUnavailable:
        note("Temporal cannot be reached; a worker starts to deliver the past once it can be")


def _read(item: Item, settings: Settings) -> NewSubscription:
    return read_subscription(object_of(item), settings, place=item.place)


def _target(by_channel: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The target that the options describe. Raises InputInvalid unless they describe exactly one."""
    email, sms, webhook = (by_channel.get(channel, {}) for channel in ("email", "sms", "webhook"))
    if email and "to" not in email:
        raise InputInvalid("only emails have attachments", field="--attachments", remedy="use it with --email")
    if sms and "to" not in sms:
        raise InputInvalid("only for --sms", field="--sms-sender, --max-segments", remedy="omit them")
    targets = [
        {"channel": channel, **fields}
        for channel, fields, address in (("email", email, "to"), ("sms", sms, "to"), ("webhook", webhook, "url"))
        if address in fields
    ]
    targets += [by_channel["poll"]] if "poll" in by_channel else []
    if len(targets) != 1:
        raise InputInvalid("give exactly one of --email, --sms, --webhook and --poll (or --file)", field="target")
    if webhook and "url" not in webhook:
        raise InputInvalid("only for --webhook", field=", ".join(sorted(webhook)), remedy="omit them")
    return targets[0]


def _as_json(stored: Subscribed) -> dict[str, Any]:
    replay = {} if stored.replay is None else {"replay": stored.replay.id}
    return {**stored.subscription.model_dump(mode="json", by_alias=True), **stored.credentials, **replay}
