"""`subscribe`: validates every subscription that was handed in, and stores them only if all are good."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from pydantic import ValidationError

from bellwire.errors import SubscriptionNotFound, fields_in_error
from bellwire.keys.signing import KeyKind, signing_key
from bellwire.registry import Registry
from bellwire.service.settings import Settings
from bellwire.subscriptions import Subscription
from bellwire.targets import SPECS, SmsTarget, WebhookFormat, WebhookTarget
from starter.cli.input.documents import (
    Item,
    collect,
    object_of,
    read_items,
    read_text,
    read_value,
)
from starter.cli.input.durations import parse_duration, parse_schedule
from starter.cli.subscriptions.templates import channels_by_template, check_parts
from starter.cli.tables import print_table
from starter.cli.terminal import (
    AsJson,
    InputInvalid,
    command,
    opened_registry,
    print_json,
)


@dataclass(frozen=True)
class Wish:
    """A subscription to store, with the signing secret, or the kind of it, that its owner chose, if any."""

    subscription: Subscription
    secret: str | None = None
    kind: KeyKind | None = None


def read_wish(value: dict[str, Any], settings: Settings) -> Wish:
    """A wish from its JSON object: a subscription, for webhooks with a `secret` beside its fields if the owner has one, or
    with `"asymmetric": true` for a key pair.

    Raises InputInvalid, which names each bad field, also where these settings would never let the target be reached.
    """
    fields = {name: item for name, item in value.items() if name not in {"secret", "asymmetric"}}
    try:
        subscription = Subscription.model_validate(fields)
    except ValidationError as error:
        raise InputInvalid(fields_in_error(error)) from error
    problems = [*_target_problems(subscription, settings), *_template_problems(subscription, settings)]
    secret, asymmetric = value.get("secret"), value.get("asymmetric")
    problems += _secret_problems(secret, asymmetric, subscription)
    if problems:
        raise InputInvalid("; ".join(problems))
    return Wish(subscription, secret, KeyKind.ASYMMETRIC if asymmetric else None)


def _target_problems(subscription: Subscription, settings: Settings) -> Iterable[str]:
    if isinstance(subscription.target, SmsTarget):
        sender = subscription.target.sender
        if sender is not None and settings.sms_senders is not None and sender not in settings.sms_senders:
            allowed = ", ".join(settings.sms_senders)
            yield f"target.sender: {sender} is not one of {allowed}; use one of them, or add it to BELLWIRE_SMS_SENDERS"
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
    name, target = subscription.template, subscription.target
    if (
        name is not None
        and target.is_rendered
        and target.channel not in channels_by_template(settings.templates).get(name, ())
    ):
        yield (
            f"template: there is no {name} for {target.channel}; `python -m starter templates list` shows those there are"
        )


def _secret_problems(secret: object, asymmetric: object, subscription: Subscription) -> Iterable[str]:
    if asymmetric not in {None, True, False}:
        yield "asymmetric: must be true or false"
    if secret is None and not asymmetric:
        return
    if not SPECS[subscription.channel].signed:
        yield f"secret: only webhooks are signed; leave it out for {subscription.channel}"
    if secret is None:
        return
    try:
        key = signing_key(secret if isinstance(secret, str) else "")
    except ValueError as error:
        yield str(error)
        return
    if asymmetric and key.kind is not KeyKind.ASYMMETRIC:
        yield "secret: is symmetric, and asymmetric was asked for; leave one of the two out"


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
        secret = await registry.subscriptions.create(wish.subscription, secret=wish.secret, kind=wish.kind)
        stored.append((wish.subscription, secret.get_secret_value() if secret else None))
    return stored


async def _check_parts(wishes: list[tuple[str, Wish]]) -> None:
    """Raises InputInvalid, which names each place, part and line."""
    written = [(where, wish.subscription.templates) for where, wish in wishes if wish.subscription.templates]
    faults = await check_parts([parts for _, parts in written])
    problems = [f"{where}: templates: {fault}" for (where, _), fault in zip(written, faults, strict=True) if fault]
    if problems:
        raise InputInvalid("\n".join(problems))


async def _exists(registry: Registry, subscription_id: str) -> bool:
    try:
        await registry.subscriptions.get(subscription_id)
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
    sms_sender: Annotated[
        str | None, typer.Option(help="Who sends it: a number, a name or a messaging service (MG…) of the operator's.")
    ] = None,
    max_segments: Annotated[
        int | None, typer.Option(help="Most segments of one SMS; a longer text is rejected before it is sent.")
    ] = None,
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
    form: Annotated[
        WebhookFormat | None, typer.Option("--format", help="Body of the webhook; a whole CloudEvent if left out.")
    ] = None,
    headers: Annotated[
        list[str] | None, typer.Option("--header", metavar="NAME:VALUE", help="Add this to the webhook. Repeatable.")
    ] = None,
    timeout: Annotated[str | None, typer.Option(help="Time for one webhook request, 1s to 30s.")] = None,
    client_certificate: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="PEM of a certificate and its key, shown to the webhook's receiver."),
    ] = None,
    secret: Annotated[
        str | None, typer.Option(help="Signing secret of the webhook (whsec_… or whsk_…); made if left out.")
    ] = None,
    asymmetric: Annotated[
        bool, typer.Option("--asymmetric", help="Sign by a key pair, of which the receiver gets the public key.")
    ] = False,
    file: Annotated[
        Path | None,
        typer.Option("--file", help="Subscriptions as JSON: an object, an array or JSON Lines; - reads stdin."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Store a subscription, or many.

    From options, or from --file. Webhooks get a signing secret, which is shown this once, or with --asymmetric a public key.
    Mails have a link by which each recipient unsubscribes, where BELLWIRE_PUBLIC_URL and BELLWIRE_LINK_KEY are set.
    """
    settings = Settings.read()
    options: dict[str, Any] = {
        "tenant": tenant,
        "types": types,
        "filters": [read_value("--filter", text) for text in filters or ()],
        "template": template,
        "templates": _parts(parts) if parts else None,
        "locale": locale,
        "retry_schedule": None if retry is None else parse_schedule(retry),
        "rate_limit": rate_limit,
        "id": subscription_id,
        "secret": secret,
        "asymmetric": asymmetric or None,
    }
    options_of_webhooks = {
        "handshake": handshake or None,
        "format": form,
        "headers": read_headers(headers or ()),
        "timeout": None if timeout is None else parse_duration("--timeout", timeout),
        "client_certificate": None if client_certificate is None else read_text(str(client_certificate)),
    }
    of_webhook = {name: value for name, value in options_of_webhooks.items() if value not in (None, {})}
    given = {name: value for name, value in options.items() if value not in (None, [])}
    sms_options = {
        name: value for name, value in {"sender": sms_sender, "max_segments": max_segments}.items() if value is not None
    }
    if file is not None:
        if given or of_webhook or email or attachments or sms or sms_options or webhook:
            raise InputInvalid("--file: the file says it all; leave the other options out")
        items = read_items(str(file))
        wishes = collect(items, lambda item: (item.where, read_wish(object_of(item), settings)))
    else:
        target = _target(email, sms, webhook, of_webhook, attachments=attachments, sms_options=sms_options)
        item = Item("subscribe", {**given, "target": target})
        wishes = [("subscribe", read_wish(object_of(item), settings))]
    async with opened_registry(settings) as registry:
        stored = await store(registry, wishes)
    if as_json:
        answers = [_answer(subscription, made) for subscription, made in stored]
        print_json(answers if file is not None else answers[0])
        return
    rows = [
        (wish.id, wish.tenant, wish.channel, ", ".join(wish.types), "".join(shown_once(made).values()))
        for wish, made in stored
    ]
    print_table(("subscription", "tenant", "channel", "types", "signing secret, shown once, or public key"), rows)


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


def read_headers(given: Iterable[str]) -> dict[str, str]:
    """Headers from NAME:VALUE. Raises InputInvalid, which repeats no value."""
    found: dict[str, str] = {}
    for each in given:
        name, colon, value = each.partition(":")
        if not colon or not name.strip():
            raise InputInvalid("--header: is not NAME:VALUE, such as x-api-key:abc")
        if name.strip() in found:
            raise InputInvalid(f"--header: {name.strip()[:100]} stands twice; leave one of them out")
        found[name.strip()] = value.strip()
    return found


def shown_once(secret: str | None) -> dict[str, str]:
    """What a receiver needs of a new secret: itself if it is shared, or its public key; the private one stays here."""
    if secret is None:
        return {}
    public = signing_key(secret).public
    return {"secret": secret} if public is None else {"public_key": public}


def _target(
    email: list[str] | None,
    sms: str | None,
    webhook: str | None,
    of_webhook: dict[str, Any],
    *,
    attachments: bool,
    sms_options: dict[str, Any],
) -> dict[str, Any]:
    targets: list[dict[str, Any]] = []
    if attachments and not email:
        raise InputInvalid("--attachments: only emails have attachments; give it with --email")
    if email:
        to = email[0] if len(email) == 1 else email
        targets.append({"channel": "email", "to": to} | ({"attachments": True} if attachments else {}))
    if sms is not None:
        targets.append({"channel": "sms", "to": sms, **sms_options})
    elif sms_options:
        raise InputInvalid("--sms-sender, --max-segments: are for --sms; leave them out")
    if webhook is not None:
        targets.append({"channel": "webhook", "url": webhook, **of_webhook})
    if len(targets) != 1:
        raise InputInvalid("target: give exactly one of --email, --sms and --webhook (or --file)")
    if of_webhook and webhook is None:
        raise InputInvalid(f"{', '.join(sorted(of_webhook))}: only webhooks have that; leave it out")
    return targets[0]


def _answer(subscription: Subscription, secret: str | None) -> dict[str, Any]:
    answer = subscription.model_dump(mode="json", by_alias=True)
    return {**answer, **shown_once(secret)}
