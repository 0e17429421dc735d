"""`subscribe`: validates every subscription that was handed in, and stores them only if all are good."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from pydantic import ValidationError

from bellwire.errors import SubscriptionNotFound, fields_in_error
from bellwire.registry import Registry
from bellwire.settings import Settings
from bellwire.subscriptions import Channel, Subscription, WebhookTarget
from bellwire.webhooks import sign
from starter.documents import Item, collect, object_of, read_items, read_text, read_value
from starter.durations import parse_schedule
from starter.tables import print_table
from starter.templates import channels_by_template, check_parts
from starter.terminal import AsJson, InputInvalid, command, opened_registry, say_json


@dataclass(frozen=True)
class Wish:
    """A subscription to store, with the signing secret that its owner chose, if any."""

    subscription: Subscription
    secret: str | None = None


def read_wish(value: dict[str, Any], settings: Settings) -> Wish:
    """A wish from its JSON object: a subscription, for webhooks with a `secret` beside its fields if the owner has one.

    Raises InputInvalid, which names each bad field, also where these settings would never let the target be reached.
    """
    fields = {name: item for name, item in value.items() if name != "secret"}
    try:
        subscription = Subscription.model_validate(fields)
    except ValidationError as error:
        raise InputInvalid(fields_in_error(error)) from error
    problems = [*_target_problems(subscription, settings), *_template_problems(subscription, settings)]
    secret = value.get("secret")
    if secret is not None:
        problems += _secret_problems(secret, subscription)
    if problems:
        raise InputInvalid("; ".join(problems))
    return Wish(subscription, secret)


def _target_problems(subscription: Subscription, settings: Settings) -> Iterable[str]:
    if not isinstance(subscription.target, WebhookTarget):
        return
    parts = urlsplit(subscription.target.url)
    if parts.scheme == "http" and not settings.webhook_allow_http:
        yield "target.url: http is not allowed here; use https, or set BELLWIRE_WEBHOOK_ALLOW_HTTP=true"
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if settings.webhook_ports is not None and port not in settings.webhook_ports:
        allowed = ", ".join(map(str, sorted(settings.webhook_ports)))
        yield f"target.url: port {port} is not one of {allowed}; use one of them, or add it to BELLWIRE_WEBHOOK_PORTS"
    if subscription.target.handshake and settings.webhook_origin is None:
        yield "target.handshake: there is no name to ask in; set BELLWIRE_WEBHOOK_ORIGIN to a domain name, or leave it out"


def _template_problems(subscription: Subscription, settings: Settings) -> Iterable[str]:
    name, channel = subscription.template, subscription.channel
    if (
        name is not None
        and channel is not Channel.WEBHOOK
        and channel not in channels_by_template(settings.templates).get(name, ())
    ):
        yield f"template: there is no {name} for {channel}; `python -m starter templates list` shows those there are"


def _secret_problems(secret: object, subscription: Subscription) -> Iterable[str]:
    if subscription.channel is not Channel.WEBHOOK:
        yield f"secret: only webhooks are signed; leave it out for {subscription.channel}"
    try:
        sign(secret if isinstance(secret, str) else "", "probe", 0, b"")
    except ValueError as error:
        yield str(error)


async def store(registry: Registry, wishes: list[tuple[str, Wish]]) -> list[tuple[Subscription, str | None]]:
    """Store the wishes, each with the place it came from, and return them with the secrets of webhooks.

    Raises InputInvalid before anything is stored if an id is used twice, among them or in the registry, or
    if the parts that a tenant wrote do not compile.
    """
    seen: dict[str, str] = {}
    problems = []
    for where, wish in wishes:
        name = wish.subscription.id
        if name in seen:
            problems.append(f"{where}: id: {name} is used twice, first by {seen[name]}")
        elif await _exists(registry, name):
            problems.append(f"{where}: id: {name} exists already; choose another, or leave it out to have one made")
        seen.setdefault(name, where)
    if problems:
        raise InputInvalid("\n".join(problems))
    await _check_parts(wishes)
    stored = []
    for _, wish in wishes:
        secret = await registry.subscribe(wish.subscription, secret=wish.secret)
        stored.append((wish.subscription, secret.get_secret_value() if secret else None))
    return stored


async def _check_parts(wishes: list[tuple[str, Wish]]) -> None:
    """Raises InputInvalid, which names each place, part and line."""
    written = [(where, wish.subscription.parts) for where, wish in wishes if wish.subscription.parts]
    faults = await check_parts([parts for _, parts in written])
    problems = [f"{where}: parts: {fault}" for (where, _), fault in zip(written, faults, strict=True) if fault]
    if problems:
        raise InputInvalid("\n".join(problems))


async def _exists(registry: Registry, subscription_id: str) -> bool:
    try:
        await registry.subscription(subscription_id)
    except SubscriptionNotFound:
        return False
    return True


@command
async def subscribe(
    tenant: Annotated[str | None, typer.Option(help="The tenant whose wish it is.")] = None,
    types: Annotated[
        list[str] | None, typer.Option("--type", help="Event type wanted: order.paid, order.* or *. Repeatable.")
    ] = None,
    email: Annotated[list[str] | None, typer.Option(help="Deliver by email to this address. Repeatable.")] = None,
    attachments: Annotated[
        bool,
        typer.Option(
            "--attachments",
            help="With --email: send along the files that an event names in data.attachments, up to 10 and 15 MB.",
        ),
    ] = False,
    sms: Annotated[str | None, typer.Option(help="Deliver by SMS to this number: +14155550123.")] = None,
    webhook: Annotated[str | None, typer.Option(help="Deliver by webhook to this https URL.")] = None,
    handshake: Annotated[
        bool, typer.Option("--handshake", help="Ask the webhook's URL for its consent before the first POST.")
    ] = False,
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", help='CloudEvents filter as JSON: {"prefix": {"source": "/shop"}}. Repeatable.'),
    ] = None,
    template: Annotated[str | None, typer.Option(help="Template instead of the one named like the event type.")] = None,
    parts: Annotated[
        list[str] | None,
        typer.Option(
            "--part", metavar="PART=FILE", help="A template of the tenant's own: email.subject=FILE. Repeatable."
        ),
    ] = None,
    locale: Annotated[str | None, typer.Option(help="Language of the text, such as en or zh-CN.")] = None,
    retry: Annotated[
        str | None, typer.Option(help="Waits before further attempts: 5s,5m,1h; none for one attempt only.")
    ] = None,
    rate_limit: Annotated[
        float | None, typer.Option(metavar="PER_SECOND", help="Most deliveries per second; no limit if left out.")
    ] = None,
    subscription_id: Annotated[str | None, typer.Option("--id", help="Its id; made up if left out.")] = None,
    secret: Annotated[
        str | None, typer.Option(help="Signing secret of the webhook (whsec_…); made if left out.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", help="Subscriptions as JSON: an object, an array or JSON Lines; - reads stdin."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Store a subscription, or many.

    From options, or from --file. Webhooks get a signing secret, which is shown this once. Mails have a link by which
    each recipient unsubscribes, where BELLWIRE_PUBLIC_URL and BELLWIRE_LINK_KEY are set.
    """
    settings = Settings.read()
    options: dict[str, Any] = {
        "tenant": tenant,
        "types": types,
        "filters": [read_value("--filter", text) for text in filters or ()],
        "template": template,
        "parts": _parts(parts) if parts else None,
        "locale": locale,
        "retry_schedule": None if retry is None else parse_schedule(retry),
        "rate_limit": rate_limit,
        "id": subscription_id,
        "secret": secret,
    }
    given = {name: value for name, value in options.items() if value not in (None, [])}
    if file is not None:
        if given or email or attachments or sms or webhook or handshake:
            raise InputInvalid("--file: the file says it all; leave the other options out")
        items = read_items(str(file))
        wishes = collect(items, lambda item: (item.where, read_wish(object_of(item), settings)))
    else:
        target = _target(email, sms, webhook, attachments=attachments, handshake=handshake)
        item = Item("subscribe", {**given, "target": target})
        wishes = [("subscribe", read_wish(object_of(item), settings))]
    async with opened_registry(settings) as registry:
        stored = await store(registry, wishes)
    if as_json:
        answers = [_answer(subscription, made) for subscription, made in stored]
        say_json(answers if file is not None else answers[0])
        return
    rows = [(wish.id, wish.tenant, wish.channel, ", ".join(wish.types), made or "") for wish, made in stored]
    print_table(("subscription", "tenant", "channel", "types", "signing secret, shown once"), rows)


def _parts(given: list[str]) -> dict[str, str]:
    parts: dict[str, str] = {}
    for text in given:
        part, separator, file = text.partition("=")
        if not separator or not file:
            raise InputInvalid(f"--part: {text!r} is not PART=FILE, such as email.subject=subject.txt")
        if part in parts:
            raise InputInvalid(f"--part: {part} is given twice")
        parts[part] = read_text(file)
    return parts


def _target(
    email: list[str] | None, sms: str | None, webhook: str | None, *, attachments: bool, handshake: bool
) -> dict[str, Any]:
    targets: list[dict[str, Any]] = []
    if attachments and not email:
        raise InputInvalid("--attachments: only emails have attachments; give it with --email")
    if email:
        to = email[0] if len(email) == 1 else email
        targets.append({"channel": "email", "to": to} | ({"attachments": True} if attachments else {}))
    if sms is not None:
        targets.append({"channel": "sms", "to": sms})
    if webhook is not None:
        targets.append({"channel": "webhook", "url": webhook})
    if len(targets) != 1:
        raise InputInvalid("target: give exactly one of --email, --sms and --webhook (or --file)")
    return {**targets[0], "handshake": True} if handshake else targets[0]


def _answer(subscription: Subscription, secret: str | None) -> dict[str, Any]:
    answer = subscription.model_dump(mode="json", by_alias=True)
    return {**answer, "secret": secret} if secret else answer
