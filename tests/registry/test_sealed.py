"""Sealed columns: private data is encrypted at rest, and rekeyed while workers run."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire import KeyRing, NotReadable
from bellwire.contract import Group
from bellwire.deliveries import Attempt, DeliveryState, Outcome, OutcomeKind
from bellwire.endpoint_health import Consent
from bellwire.exchanges import Exchange
from bellwire.keys.keyring import new_entry
from bellwire.registry import Registry
from bellwire.registry.api.idempotency import StoredResponse
from bellwire.registry.db.engine import Database
from bellwire.registry.db.sealed import seal
from bellwire.registry.upkeep.rekeying import COLUMNS
from bellwire.suppressions import EVERYWHERE, Suppression, SuppressionReason
from bellwire.targets import Channel
from tests.factories import NOW, event, subscription

OLD, NEW = new_entry("old"), new_entry("new")
#: Private data, stored in each of the sealed columns.
PRIVATE = "ann@example.com"
EVENT = event(id="1", data={"to": PRIVATE})

Opened = Callable[..., Awaitable[Registry]]


@pytest.fixture
async def opened(url: str) -> AsyncIterator[Opened]:
    """Opens the same registry with these keys, any number of times."""
    async with AsyncExitStack() as cleaning:

        async def open_with(keys: str | None = None) -> Registry:
            registry = await Registry.open(url, ring=KeyRing.parse(keys) if keys else None)
            cleaning.push_async_callback(registry.close)
            return registry

        await (await open_with()).migrate()
        yield open_with


async def fill(registry: Registry, *, name: str = "a") -> None:
    """Store rows with private data in every sealed column."""
    await registry.subscriptions.create(
        subscription(
            id=name,
            target={"channel": "webhook", "url": f"https://a.example/{PRIVATE}"},
            templates={"webhook.json": f'{{"to": "{PRIVATE}"}}'},
        )
    )
    await registry.subscriptions.record_consent(name, Consent(PRIVATE, NOW, None))
    await registry.events.accept([EVENT], "workflow")
    group = Group(event_key=EVENT.key, channel=Channel.WEBHOOK, subscription_ids=(name,))
    await registry.deliveries.add("workflow", [group])
    outcome = Outcome(kind=OutcomeKind.DEFERRED, reason="later", response=PRIVATE, remaining_recipients=(PRIVATE,))
    exchange = Exchange(request=f"RCPT TO:<{PRIVATE}>", response="451")
    outcome = outcome.model_copy(update={"exchanges": (exchange,), "provider_id": f"{PRIVATE}/1"})
    await registry.test_sends.keep(name, "test", [exchange])
    await registry.feeds.place_test(name, event(id=f"test-{name}", data={"to": PRIVATE}))
    made = Attempt(
        event_key=EVENT.key,
        subscription_id=name,
        number=1,
        started_at=NOW,
        duration=0.1,
        outcome=outcome,
        state=DeliveryState.WAITING,
        delay=5.0,
        receipts=False,
    )
    await registry.attempts.record([made])
    await registry.suppressions.add(suppression(f"{name}.{PRIVATE}"))
    await registry.idempotency.claim("key_1", name, "fingerprint")
    await registry.idempotency.complete("key_1", name, StoredResponse(201, PRIVATE, "application/json"))
    await registry.provider_tokens.claim("wecom", name, generation=0, by="test", lasting=timedelta(seconds=1))
    await registry.provider_tokens.store("wecom", name, generation=0, token=PRIVATE, expires_at=NOW)


def suppression(address: str = PRIVATE, **fields: Any) -> Suppression:
    reason = SuppressionReason.BOUNCED
    return Suppression.model_validate({"channel": Channel.EMAIL, "address": address, "reason": reason, **fields})


async def read_back(registry: Registry, *, name: str = "a") -> tuple[object, ...]:
    """All of it, read through the registry."""
    (request,) = await registry.attempts.load(
        [Group(event_key=EVENT.key, channel=Channel.WEBHOOK, subscription_ids=(name,))]
    )
    attempts = await registry.attempts.list(EVENT.key, name)
    listed = [(one.address, one.reason) for one in await registry.suppressions.list()]
    events = [stored.event for stored in await registry.events.list()]
    repeated = (await registry.idempotency.claim("key_1", name, "fingerprint")).response
    return (
        request,
        [secret.get_secret_value() for secret in request.secrets],
        attempts,
        sorted(listed),
        events,
        repeated,
    )


async def raw(url: str, column: str) -> list[str]:
    """The values of a column, as stored."""
    table, _, name = column.partition(".")

    async def read(connection: AsyncConnection) -> list[str]:
        rows = await connection.execute(text(f"SELECT {name} FROM {table} WHERE {name} IS NOT NULL"))
        return [row[0] for row in rows]

    database = Database.at(url, pool=1)
    try:
        return await database.read(read)
    finally:
        await database.close()


async def everything(url: str) -> str:
    return "\n".join([value for column in COLUMNS for value in await raw(url, column)])


async def rekey(registry: Registry, *, check: bool = False) -> dict[tuple[str, str | None], int]:
    """Rekey as the command does; return how many values of each column were under which other key."""
    found: dict[tuple[str, str | None], int] = {}
    for column in COLUMNS:
        after = None
        while True:
            window = await registry.rekeying.scan(column, after=after)
            if not check:
                await registry.rekeying.rekey(column, window.stale)
            for item in window.stale:
                found[column, item.key_id] = found.get((column, item.key_id), 0) + 1
            if window.reached is None:
                break
            after = window.reached
    return found


def test_columns_with_private_data_are_sealed() -> None:
    # A new column with an address, content or a secret has to be sealed and added here.
    assert set(COLUMNS) == {
        "subscriptions.target",
        "subscriptions.templates",
        "subscriptions.consent",
        "subscriptions.secrets",
        "suppressions.address",
        "suppressions.address_key",
        "events.digest",
        "events.body",
        "deliveries.provider_id",
        "deliveries.remaining_recipients",
        "attempts.outcome",
        "attempts.exchanges",
        "test_sends.exchanges",
        "feed_entries.body",
        "idempotency_keys.body",
        "provider_tokens.token",
    }


async def test_with_keys_private_data_is_encrypted(url: str, opened: Opened) -> None:
    registry = await opened(OLD)
    await fill(registry)
    for column in COLUMNS:
        (value,) = await raw(url, column)
        assert value.startswith("old:" if column == "suppressions.address_key" else "sealed:old:"), column
    assert PRIVATE not in await everything(url)


async def test_without_keys_data_is_stored_as_plain_text(url: str, opened: Opened) -> None:
    registry = await opened()
    await fill(registry)
    assert (await everything(url)).count(PRIVATE) == 13
    assert "sealed:" not in await everything(url)
    assert await read_back(registry) == await read_back(await opened(OLD))


async def test_a_missing_key_is_named(opened: Opened) -> None:
    await fill(await opened(OLD))
    with pytest.raises(NotReadable, match=r"encrypted with key 'old'.*BELLWIRE_ENCRYPTION_KEYS"):
        await (await opened()).subscriptions.get("a")
    with pytest.raises(NotReadable, match="encrypted with key 'old', which is not among new"):
        await (await opened(NEW)).events.list()


async def test_a_value_moved_to_another_column_cannot_be_decrypted(url: str, opened: Opened) -> None:
    registry = await opened(OLD)
    await fill(registry)
    target = seal(KeyRing.parse(OLD), '{"channel":"email","to":"eve@example.com"}', column="events.body")
    database = Database.at(url, pool=1)

    async def swap(connection: AsyncConnection) -> None:
        await connection.execute(text("UPDATE subscriptions SET target = :target"), {"target": target})

    await database.write(swap)
    await database.close()
    with pytest.raises(NotReadable, match="key old does not decrypt it"):
        await registry.subscriptions.get("a")


async def test_an_event_published_again_is_a_duplicate_under_any_key(opened: Opened) -> None:
    await (await opened()).events.accept([EVENT], "workflow")
    for keys in (OLD, f"{NEW},{OLD}"):
        again = await (await opened(keys)).events.accept([EVENT], "other")
        assert again[EVENT.key].result == "duplicate"
        changed = await (await opened(keys)).events.accept([EVENT.model_copy(update={"data": {}})], "other")
        assert changed[EVENT.key].result == "conflict"


async def test_a_suppressed_address_is_found_under_any_key(opened: Opened) -> None:
    await (await opened()).suppressions.add(suppression("clear@example.com"))
    await (await opened(OLD)).suppressions.add(suppression("old@example.com"))
    registry = await opened(f"{NEW},{OLD}")
    await registry.suppressions.add(suppression("new@example.com"))
    addresses = [f"{name}@example.com" for name in ("clear", "Old", "new", "unknown")]
    found = await registry.suppressions.among(Channel.EMAIL, addresses, subscription_id="a")
    assert found.keys() == set(addresses[:3])
    assert [one.address for one in await registry.suppressions.list(address="OLD@example.com")] == ["old@example.com"]
    # An address that is suppressed under an older key is not added again.
    for name in ("clear", "old", "new"):
        await registry.suppressions.add(suppression(f"{name}@example.com", reason=SuppressionReason.OPERATOR))
    assert {one.reason for one in await registry.suppressions.list()} == {SuppressionReason.BOUNCED}
    for name in ("clear", "old", "new"):
        assert await registry.suppressions.lift(Channel.EMAIL, f"{name}@example.com")
    assert await registry.suppressions.list() == []


@pytest.mark.parametrize("before", [None, OLD], ids=["plain text", "older key"])
async def test_rekeying_encrypts_everything_with_the_first_key(url: str, opened: Opened, before: str | None) -> None:
    await fill(await opened(before))
    stored = await read_back(await opened(before))
    registry = await opened(f"{NEW},{OLD}")
    key = None if before is None else "old"
    expected = {(column, key): 1 for column in COLUMNS}
    assert await rekey(registry, check=True) == expected
    assert await rekey(registry) == expected
    assert await rekey(registry) == {}
    assert PRIVATE not in await everything(url)
    assert "old:" not in await everything(url)
    alone = await opened(NEW)
    assert await rekey(alone, check=True) == {}
    assert await read_back(alone) == stored
    assert await alone.suppressions.among(Channel.EMAIL, [f"a.{PRIVATE}"], subscription_id="a")


async def test_rekeying_can_be_interrupted(opened: Opened) -> None:
    registry = await opened(OLD)
    events = [event(id=str(number), data={"to": PRIVATE}) for number in range(1_203)]
    await registry.events.accept(events, "workflow")
    registry = await opened(f"{NEW},{OLD}")
    # Interrupted after two windows.
    first = await registry.rekeying.scan("events.body", after=None)
    await registry.rekeying.rekey("events.body", first.stale)
    second = await registry.rekeying.scan("events.body", after=first.reached)
    await registry.rekeying.rekey("events.body", second.stale)
    done = len(first.stale) + len(second.stale)
    assert 0 < done < len(events)
    assert await rekey(registry) == {("events.body", "old"): len(events) - done, ("events.digest", "old"): len(events)}
    assert len(await (await opened(NEW)).events.by_keys([item.key for item in events])) == len(events)


async def test_a_value_that_changes_during_rekeying_is_not_overwritten(opened: Opened) -> None:
    await fill(await opened(OLD))
    registry = await opened(f"{NEW},{OLD}")
    window = await registry.rekeying.scan("deliveries.remaining_recipients", after=None)
    # A worker with the older keys records an attempt after rekeying has read the row and before it writes.
    outcome = Outcome(kind=OutcomeKind.DEFERRED, reason="later", remaining_recipients=("bob@example.com",))
    made = Attempt(
        event_key=EVENT.key,
        subscription_id="a",
        number=2,
        started_at=NOW,
        duration=0.1,
        outcome=outcome,
        state=DeliveryState.WAITING,
        delay=5.0,
    )
    await (await opened(OLD)).attempts.record([made])
    await registry.rekeying.rekey("deliveries.remaining_recipients", window.stale)
    (delivery,) = await registry.deliveries.list()
    assert delivery.remaining_recipients == ("bob@example.com",)
    assert (await rekey(registry, check=True))["deliveries.remaining_recipients", "old"] == 1


async def test_rekeying_merges_an_address_that_is_stored_under_two_keys(opened: Opened) -> None:
    # Two workers add it at the same time, one of them with the new key.
    await (await opened(OLD)).suppressions.add(suppression())
    await (await opened(NEW)).suppressions.add(suppression(subscription_id=EVERYWHERE))
    await rekey(await opened(f"{NEW},{OLD}"))
    assert len(await (await opened(NEW)).suppressions.list()) == 1


async def test_rekeying_while_workers_write_loses_nothing(opened: Opened) -> None:
    old, new = await opened(f"{OLD},{NEW}"), await opened(f"{NEW},{OLD}")
    await fill(old)
    written = [event(id=f"more-{number}") for number in range(200)]

    async def write() -> None:
        for start in range(0, len(written), 10):
            await old.events.accept(written[start : start + 10], "workflow")

    async def rekey_repeatedly() -> None:
        for _ in range(5):
            await rekey(new)

    await asyncio.gather(write(), rekey_repeatedly())
    await rekey(new)
    last = await opened(NEW)
    assert await rekey(last, check=True) == {}
    assert len(await last.events.by_keys([item.key for item in written])) == len(written)


async def test_a_large_body_is_encrypted_and_decrypted(opened: Opened) -> None:
    registry = await opened(OLD)
    large = event(id="large", data="x" * 200_000)
    await registry.events.accept([large], "workflow")
    assert await registry.events.by_keys([large.key]) == {large.key: large}
