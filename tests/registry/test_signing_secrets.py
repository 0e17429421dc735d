"""Signing secrets: given or generated, rotated, and shown without the secret."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from bellwire.contract import Group
from bellwire.errors import SubscriptionInvalid, SubscriptionNotFound
from bellwire.registry import Registry
from bellwire.registry.signing_secrets import MAX_OVERLAP, MAX_REPLACED
from bellwire.targets import Channel
from bellwire.webhooks import KeyKind, generate_secret, public_key, sign, verify
from tests.factories import event, subscription

HOUR = timedelta(hours=1)
EMAIL = {"channel": "email", "to": "ann@example.com"}


async def created(registry: Registry, **options: str | KeyKind) -> str:
    """Create the subscription `hook` and return its secret."""
    secret = await registry.subscriptions.create(subscription(id="hook"), **options)  # type: ignore[arg-type]
    assert secret is not None
    return secret.get_secret_value()


async def signing(registry: Registry) -> list[str]:
    """The secrets that an attempt at a delivery of `hook` is signed with."""
    published = event()
    group = Group(event_key=published.key, channel=Channel.WEBHOOK, subscription_ids=("hook",))
    await registry.events.accept([published], "workflow")
    await registry.deliveries.add("workflow", [group])
    (request,) = await registry.attempts.load([group])
    return [secret.get_secret_value() for secret in request.secrets]


async def rotated(registry: Registry, **options: object) -> str:
    return (await registry.signing_secrets.rotate("hook", **options)).get_secret_value()  # type: ignore[arg-type]


async def test_both_secrets_sign_for_a_day_the_new_one_first(registry: Registry) -> None:
    old = await created(registry)
    new = await rotated(registry)
    assert new != old
    assert await signing(registry) == [new, old]
    newest, replaced = await registry.signing_secrets.in_use("hook")
    assert newest.expires_at is None
    assert replaced.expires_at is not None
    assert timedelta(hours=23) < replaced.expires_at - datetime.now(UTC) <= timedelta(hours=24)
    headers = {"webhook-id": "a", "webhook-timestamp": "0", "webhook-signature": sign([new, old], "a", 0, b"{}")}
    for secret in (old, new):
        assert verify(secret, headers, b"{}", now=datetime.fromtimestamp(0, UTC)) == {}


async def test_each_replaced_secret_has_an_expiry_of_its_own(registry: Registry) -> None:
    first = await created(registry)
    second = await rotated(registry, overlap=3 * HOUR)
    third = await rotated(registry, overlap=timedelta(microseconds=1))
    fourth = await rotated(registry, overlap=HOUR)
    # The second has expired; the first keeps its longer overlap.
    assert await signing(registry) == [fourth, third, first]
    ends = [key.expires_at for key in await registry.signing_secrets.in_use("hook")]
    assert ends[0] is None
    assert ends[1] is not None
    assert ends[2] is not None
    assert ends[1] + HOUR < ends[2]
    assert second not in await signing(registry)


async def test_revoked_secrets_stop_at_once(registry: Registry) -> None:
    await created(registry)
    await rotated(registry)
    newest = await rotated(registry, overlap=timedelta())
    assert await signing(registry) == [newest]


async def test_a_secret_may_be_given_and_an_old_one_reused(registry: Registry) -> None:
    old, given = await created(registry), generate_secret()
    assert await rotated(registry, secret=given) == given
    assert await rotated(registry, secret=old) == old
    assert await signing(registry) == [old, given]


async def test_the_kind_stays_unless_another_is_requested(registry: Registry) -> None:
    old = await created(registry, kind=KeyKind.ASYMMETRIC)
    new = await rotated(registry)
    shared = await rotated(registry, kind=KeyKind.SYMMETRIC)
    assert [secret.partition("_")[0] for secret in (old, new, shared)] == ["whsk", "whsk", "whsec"]
    assert [(key.kind, key.public_key) for key in await registry.signing_secrets.in_use("hook")] == [
        (KeyKind.SYMMETRIC, None),
        (KeyKind.ASYMMETRIC, public_key(new)),
        (KeyKind.ASYMMETRIC, public_key(old)),
    ]


async def test_keys_in_use_hold_no_secret(registry: Registry) -> None:
    secrets = [await created(registry, kind=KeyKind.ASYMMETRIC), await rotated(registry, kind=KeyKind.SYMMETRIC)]
    seen = repr(await registry.signing_secrets.in_use("hook")) + repr(await registry.subscriptions.get("hook"))
    for secret in secrets:
        assert secret not in seen
        assert secret[5:45] not in seen


async def test_concurrent_rotations_all_take_effect(registry: Registry) -> None:
    first = await created(registry)
    concurrent = await asyncio.gather(*(rotated(registry) for _ in range(5)))
    assert sorted(await signing(registry)) == sorted([first, *concurrent])


async def test_the_number_of_replaced_secrets_is_limited(registry: Registry) -> None:
    await created(registry)
    for _ in range(MAX_REPLACED):
        await rotated(registry)
    before = await signing(registry)
    assert len(before) == MAX_REPLACED + 1
    with pytest.raises(SubscriptionInvalid, match="wait until one expires, or revoke"):
        await rotated(registry)
    assert await signing(registry) == before
    newest = await rotated(registry, overlap=timedelta())
    assert await signing(registry) == [newest]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlap": -HOUR}, "overlap: must be 0 to 30 days"),
        ({"overlap": MAX_OVERLAP + HOUR}, "overlap: must be 0 to 30 days"),
        ({"secret": "whsec_AAAA"}, "secret: must be whsec_"),
        ({"secret": "whsk_AAAA"}, "secret: whsk_ must be followed by"),
        ({"secret": public_key(generate_secret("asymmetric"))}, "secret: whpk_ is a public key"),
        (
            {"secret": generate_secret(), "kind": KeyKind.ASYMMETRIC},
            "secret: is symmetric, but the kind is asymmetric",
        ),
    ],
)
async def test_a_bad_rotation_changes_nothing(registry: Registry, options: dict[str, object], message: str) -> None:
    secret = await created(registry)
    with pytest.raises(SubscriptionInvalid, match=message):
        await rotated(registry, **options)
    assert await signing(registry) == [secret]


async def test_a_secret_cannot_replace_itself(registry: Registry) -> None:
    with pytest.raises(SubscriptionInvalid, match="already in use"):
        await rotated(registry, secret=await created(registry))


async def test_only_existing_webhooks_have_secrets_to_rotate(registry: Registry) -> None:
    await registry.subscriptions.create(subscription(EMAIL, id="hook"))
    with pytest.raises(SubscriptionInvalid, match="only webhooks are signed"):
        await rotated(registry)
    assert await registry.signing_secrets.in_use("hook") == ()
    for call in (registry.signing_secrets.rotate("unknown"), registry.signing_secrets.in_use("unknown")):
        with pytest.raises(SubscriptionNotFound):
            await call


async def test_the_kind_of_a_new_secret_may_be_chosen(registry: Registry) -> None:
    assert await registry.subscriptions.create(subscription(EMAIL)) is None
    with pytest.raises(SubscriptionInvalid, match="only webhooks are signed"):
        await registry.subscriptions.create(subscription(EMAIL), kind=KeyKind.ASYMMETRIC)
    with pytest.raises(SubscriptionInvalid, match="is symmetric, but the kind is asymmetric"):
        await registry.subscriptions.create(subscription(), secret=generate_secret(), kind=KeyKind.ASYMMETRIC)
    given = generate_secret("asymmetric")
    assert await registry.subscriptions.create(subscription(), secret=given) == SecretStr(given)
