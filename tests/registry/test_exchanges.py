"""Exchanges in the registry: they are stored with attempts, and go when the recipient is erased or the event is purged."""

from datetime import UTC, datetime, timedelta

import pytest

from bellwire.contract import Group
from bellwire.deliveries import Attempt, DeliveryState, Outcome, OutcomeKind
from bellwire.exchanges import Exchange
from bellwire.registry import Registry
from bellwire.registry.db.engine import Database
from bellwire.subscriptions import Subscription
from bellwire.targets import Channel
from tests.factories import NOW, event, subscription
from tests.registry.test_erasure import everything

ANN, BOB = "ann@example.com", "bob@example.com"
EVENT = event(id="1")
#: NUL and a lone surrogate cannot be stored as text.
EXCHANGE = Exchange(request=f"RCPT TO:<{ANN}>", response="550 \x00 no such user", response_body="ÿ")


async def attempted(registry: Registry, to: Subscription) -> None:
    """One attempt with an exchange and nothing else that names a recipient."""
    await registry.subscriptions.create(to)
    await registry.events.accept([EVENT], "workflow")
    group = Group(event_key=EVENT.key, channel=to.channel, subscription_ids=(to.id,))
    await registry.deliveries.add("workflow", [group])
    outcome = Outcome(kind=OutcomeKind.REJECTED, reason="SMTP 550", exchanges=(EXCHANGE,))
    made = Attempt(
        event_key=EVENT.key,
        subscription_id=to.id,
        number=1,
        started_at=NOW,
        duration=0.1,
        outcome=outcome,
        state=DeliveryState.REJECTED,
    )
    await registry.attempts.record([made])


async def test_an_attempt_is_read_with_its_exchanges(registry: Registry) -> None:
    await attempted(registry, subscription({"channel": "email", "to": ANN}, id="a"))
    (attempt,) = await registry.attempts.list(EVENT.key, "a")
    assert attempt.outcome.exchanges == (EXCHANGE,)


@pytest.mark.parametrize("to", [ANN, [ANN, BOB]])
async def test_an_erased_recipient_is_in_no_exchange(
    registry: Registry, database: Database, to: str | list[str]
) -> None:
    await attempted(registry, subscription({"channel": "email", "to": to}, id="a"))
    await registry.test_sends.keep("a", "test", [EXCHANGE])
    await registry.retention.erase(Channel.EMAIL, ANN)
    (attempt,) = await registry.attempts.list(EVENT.key, "a")
    assert attempt.outcome.exchanges == ()
    assert await registry.test_sends.take("a", "test") == ()
    assert ANN not in await everything(database)


async def test_a_test_send_is_taken_once_and_only_by_its_own_run(registry: Registry) -> None:
    await registry.subscriptions.create(subscription(id="a"))
    await registry.test_sends.keep("a", "first", [Exchange(request="GET /1")])
    await registry.test_sends.keep("a", "second", [EXCHANGE])
    assert await registry.test_sends.take("a", "first") == ()
    assert await registry.test_sends.take("a", "second") == (EXCHANGE,)
    assert await registry.test_sends.take("a", "second") == ()
    await registry.test_sends.keep("gone", "third", [EXCHANGE])
    await registry.test_sends.keep("a", "fourth", [])
    assert await registry.test_sends.take("gone", "third") == ()


async def test_a_test_send_that_nobody_took_is_purged_and_deleted_with_its_subscription(
    registry: Registry, database: Database
) -> None:
    for name in ("a", "b"):
        await registry.subscriptions.create(subscription(id=name))
        await registry.test_sends.keep(name, "test", [EXCHANGE])
    await registry.retention.delete("a")
    assert await registry.test_sends.take("a", "test") == ()
    await registry.retention.purge(datetime.now(UTC) + timedelta(minutes=1), dry_run=True)
    await registry.retention.purge(datetime.now(UTC) - timedelta(days=1))
    assert "'b', 'test'" in await everything(database)
    await registry.retention.purge(datetime.now(UTC) + timedelta(minutes=1))
    assert await registry.test_sends.take("b", "test") == ()
