"""Subscribing: subscriptions from a document, checked against each other and the settings, and stored if all are valid."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from bellwire.errors import SubscriptionNotFound
from bellwire.keys.signing import KeyKind, signing_key
from bellwire.registry import Registry
from bellwire.registry.db.auditing import change
from bellwire.replays import Replay, replay_since
from bellwire.service.settings import Settings
from bellwire.subscriptions import Subscription, SubscriptionState
from bellwire.targets import SPECS, EmailTarget, HandlerTarget, SmsTarget, WebhookTarget
from starter.operations.problems import InputInvalid, Problem, problems_of
from starter.operations.subscribers.past import read_past
from starter.operations.subscribers.reachability import email_problems, webhook_problems
from starter.operations.subscribers.templates import channels_by_template, check_templates


@dataclass(frozen=True, kw_only=True)
class NewSubscription:
    """A subscription to store."""

    subscription: Subscription
    #: The signing secret that its owner chose; None: one is generated.
    secret: str | None = None
    #: The kind of the generated secret; None: symmetric.
    key_kind: KeyKind | None = None
    #: From when on it also gets events that were stored before it; None: only later ones.
    since: datetime | None = None
    #: Its place in the document.
    place: str = ""


@dataclass(frozen=True, kw_only=True)
class Subscribed:
    """A subscription that was stored, and the signing secret of a webhook."""

    subscription: Subscription
    secret: str | None
    #: What delivers its past; `start_stored` starts it.
    replay: Replay | None = None

    @property
    def credentials(self) -> dict[str, str]:
        return credentials_of(self.secret)


def credentials_of(secret: str | None) -> dict[str, str]:
    """What a receiver needs of a new secret: the secret if it is symmetric, otherwise its public key only."""
    if secret is None:
        return {}
    public = signing_key(secret).public
    return {"secret": secret} if public is None else {"public_key": public}


def read_subscription(value: dict[str, Any], settings: Settings, *, place: str = "") -> NewSubscription:
    """A subscription from its JSON object.

    Beside the fields of `Subscription`, it may have `since`, from when on it also gets what happened before it; and a webhook a
    `secret`, or `"asymmetric": true` for a generated key pair.
    Raises InputInvalid with a problem for each bad field; a target that these settings never allow is bad too.
    """
    fields = {name: item for name, item in value.items() if name not in {"secret", "asymmetric", "since"}}
    try:
        subscription = Subscription.model_validate(fields)
    except ValidationError as error:
        raise InputInvalid.of(problems_of(error, known=Subscription.known_fields)) from error
    problems = [*target_problems(subscription, settings), *template_problems(subscription, settings)]
    secret, asymmetric = value.get("secret"), value.get("asymmetric")
    problems += _secret_problems(secret, asymmetric, subscription)
    since = None
    if value.get("since") is not None:
        try:
            since = _read_since(value["since"], subscription)
        except InputInvalid as error:
            problems += error.problems
    if problems:
        raise InputInvalid.of(problems)
    return NewSubscription(
        subscription=subscription,
        secret=secret,
        key_kind=KeyKind.ASYMMETRIC if asymmetric else None,
        since=since,
        place=place,
    )


def _read_since(value: object, subscription: Subscription) -> datetime:
    if subscription.state is not SubscriptionState.ACTIVE:
        raise InputInvalid(f"needs an active subscription, not one that is {subscription.state}", field="since")
    return read_past(value, field="since")


async def store(registry: Registry, new: Sequence[NewSubscription]) -> list[Subscribed]:
    """Store the subscriptions, all or none.

    Raises InputInvalid if an id is given twice or exists already, or if a template of a tenant's own does not compile.
    """
    if problems := [*await _id_problems(registry, new), *await _own_template_problems(new)]:
        raise InputInvalid.of(problems)
    stored = []
    for each in new:
        with change("subscription.created", each.subscription.id, tenant=each.subscription.tenant):
            replay = None if each.since is None else replay_since(each.subscription, each.since)
            secret = await registry.subscriptions.create(
                each.subscription, secret=each.secret, kind=each.key_kind, replay=replay
            )
        shown = secret.get_secret_value() if secret else None
        stored.append(Subscribed(subscription=each.subscription, secret=shown, replay=replay))
    return stored


async def _id_problems(registry: Registry, new: Sequence[NewSubscription]) -> list[Problem]:
    first: dict[str, str] = {}
    problems = []
    for each in new:
        name = each.subscription.id
        if name in first:
            message, remedy = f"{name} is given twice, first by {first[name]}", ""
        elif await _exists(registry, name):
            message, remedy = f"{name} is already in use", "choose another id, or leave it out"
        else:
            first[name] = each.place
            continue
        problems.append(Problem(message=message, field="id", remedy=remedy, place=each.place))
    return problems


async def _own_template_problems(new: Sequence[NewSubscription]) -> list[Problem]:
    with_own = [each for each in new if each.subscription.templates]
    faults = await check_templates([each.subscription.templates or {} for each in with_own])
    return [
        Problem(message=fault, field="templates", place=each.place)
        for each, fault in zip(with_own, faults, strict=True)
        if fault
    ]


async def _exists(registry: Registry, subscription_id: str) -> bool:
    try:
        await registry.subscriptions.get(subscription_id)
    except SubscriptionNotFound:
        return False
    return True


def target_problems(subscription: Subscription, settings: Settings) -> Iterable[Problem]:
    target = subscription.target
    if isinstance(target, SmsTarget):
        yield from _sender_problems(target, settings)
    if isinstance(target, EmailTarget):
        yield from email_problems(target, settings)
    if isinstance(target, HandlerTarget):
        yield Problem(
            message="handlers are registered by the service that has them",
            field="target.channel",
            remedy="declare one in its code with bellwire.Handlers",
        )
    if not isinstance(target, WebhookTarget):
        return
    yield from webhook_problems(target, settings)
    if target.handshake and settings.webhook_origin is None:
        yield Problem(
            message="the handshake needs an origin",
            field="target.handshake",
            remedy="set BELLWIRE_WEBHOOK_ORIGIN to a domain name, or omit it",
        )


def _sender_problems(target: SmsTarget, settings: Settings) -> Iterable[Problem]:
    if target.sender is not None and settings.sms_senders is not None and target.sender not in settings.sms_senders:
        yield Problem(
            message=f"{target.sender} is not one of {', '.join(settings.sms_senders)}",
            field="target.sender",
            remedy="use one of them, or add it to BELLWIRE_SMS_SENDERS",
        )


def template_problems(subscription: Subscription, settings: Settings) -> Iterable[Problem]:
    name, target = subscription.template, subscription.target
    if (
        name is not None
        and target.is_rendered
        and target.channel not in channels_by_template(settings.templates).get(name, ())
    ):
        yield Problem(
            message=f"no template {name} exists for {target.channel}",
            field="template",
            remedy="`python -m starter templates list` shows those that exist",
        )


def _secret_problems(secret: object, asymmetric: object, subscription: Subscription) -> Iterable[Problem]:
    if not (asymmetric is None or isinstance(asymmetric, bool)):
        yield Problem(message="must be true or false", field="asymmetric", remedy="or omit it for a shared secret")
        return
    if secret is None and not asymmetric:
        return
    if not SPECS[subscription.channel].signed:
        yield Problem(message="only webhooks are signed", field="secret", remedy=f"omit it for {subscription.channel}")
        return
    if secret is None:
        return
    try:
        key = signing_key(secret if isinstance(secret, str) else "")
    except ValueError as error:
        yield Problem(message=str(error))
        return
    if asymmetric and key.kind is not KeyKind.ASYMMETRIC:
        yield Problem(message="is symmetric, but asymmetric is requested", field="secret", remedy="omit one of the two")
