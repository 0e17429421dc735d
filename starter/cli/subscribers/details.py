"""One subscription as JSON, or as names and values with its health and keys."""

from collections.abc import Iterable

from bellwire.formats.durations import format_duration
from bellwire.keys.certificates import expires_at
from bellwire.registry.signing_secrets import KeyInUse
from bellwire.subscriptions import Subscription
from bellwire.targets import WebhookTarget
from starter.cli.tables import cell, print_facts
from starter.cli.terminal import print_json
from starter.operations.subscribers.subscriptions import SubscriptionDetails


def print_details(details: SubscriptionDetails, *, as_json: bool) -> None:
    subscription, health, keys = details.subscription, details.health, details.keys
    if as_json:
        shown = subscription.model_dump(mode="json", by_alias=True)
        print_json({**shown, "keys": [key.model_dump(mode="json") for key in keys]} if keys else shown)
        return
    schedule = subscription.retry_schedule
    delays = None if schedule is None else ", ".join(map(format_duration, schedule)) or "one attempt only"
    print_facts(
        [
            ("subscription", subscription.id),
            ("tenant", subscription.tenant),
            ("state", subscription.state),
            ("reason", subscription.state_reason),
            ("failing since", health.failing_since),
            ("failures", health.failures or None),
            ("throttled until", health.throttled_until),
            ("version", subscription.version),
            ("updated", subscription.updated_at),
            ("types", ", ".join(subscription.types)),
            ("filters", ", ".join(item.model_dump_json(by_alias=True) for item in subscription.filters)),
            ("channel", subscription.channel),
            ("target", subscription.target.address),
            ("template", subscription.template),
            ("own templates", ", ".join(subscription.templates or ())),
            ("locale", subscription.locale),
            ("retry schedule", delays or "the channel's default"),
            ("rate limit", None if subscription.rate_limit is None else f"{subscription.rate_limit:g} per second"),
            *_webhook_facts(subscription),
            *(("signed by", _named(key)) for key in keys),
        ]
    )


def _webhook_facts(subscription: Subscription) -> Iterable[tuple[str, object]]:
    """What only webhooks have. Headers and certificates are named; their values are secret."""
    if not isinstance(target := subscription.target, WebhookTarget):
        return
    yield "format", target.format
    yield "headers", ", ".join(target.headers)
    yield "timeout", None if target.timeout is None else format_duration(target.timeout)
    if target.client_certificate is not None:
        yield "client certificate", f"expires {cell(expires_at(target.client_certificate.get_secret_value()))} UTC"


def _named(key: KeyInUse) -> str:
    name = key.public_key or "a shared secret"
    return name if key.expires_at is None else f"{name}, until {cell(key.expires_at)} UTC"
