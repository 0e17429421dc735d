"""What the database refuses: it is reported as an error of data, and takes no other row along."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from bellwire.contract import Group
from bellwire.deliveries import Attempt, DeliveryState, Outcome, OutcomeKind
from bellwire.errors import NotStorable
from bellwire.registry import Registry
from bellwire.registry.attempt_batcher import UNSTORABLE_REASON
from bellwire.suppressions import Suppression, SuppressionReason
from bellwire.targets import Channel
from tests.factories import NOW, event, subscription

EVENT = event(id="1")
NAMES = ("a", "b", "c")


def attempt(name: str, **unchecked: Any) -> Attempt:
    """An attempt whose outcome has these values without the checks of its constructor."""
    gone = Suppression(channel=Channel.EMAIL, address="ann@example.com", reason=SuppressionReason.BOUNCED)
    outcome = Outcome(kind=OutcomeKind.REJECTED, reason="SMTP 550", response="550 no", disable=True, suppress=(gone,))
    return Attempt(
        event_key=EVENT.key,
        subscription_id=name,
        number=1,
        started_at=NOW,
        duration=0.1,
        outcome=outcome.model_copy(update=unchecked),
        state=DeliveryState.REJECTED,
    )


@pytest.fixture
async def three(registry: Registry) -> Registry:
    for name in NAMES:
        await registry.subscriptions.create(subscription(id=name))
    await registry.events.accept([EVENT], "workflow")
    groups = [Group(event_key=EVENT.key, channel=Channel.WEBHOOK, subscription_ids=NAMES, attempt=1)]
    await registry.deliveries.add("workflow", groups)
    return registry


@pytest.mark.parametrize(
    "unchecked", [{"reason": "bad \ud83d"}, {"response": "550 \udce9"}, {"provider_id": "SM\udcff", "reason": "\ud83d"}]
)
async def test_an_attempt_that_is_refused_is_recorded_without_its_texts_and_the_others_as_they_are(
    three: Registry, unchecked: dict[str, Any]
) -> None:
    with capture_logs() as logs:
        await three.attempts.record([attempt("a"), attempt("b", **unchecked), attempt("c")])
    found = {each.subscription_id: each for each in await three.attempts.list(EVENT.key)}
    assert [found[name].outcome.reason for name in NAMES] == ["SMTP 550", UNSTORABLE_REASON, "SMTP 550"]
    assert [found[name].outcome.response for name in NAMES] == ["550 no", None, "550 no"]
    states = {each.subscription_id: each.state for each in await three.deliveries.list(event_key=EVENT.key)}
    assert states == dict.fromkeys(NAMES, DeliveryState.REJECTED)
    assert [line["subscription"] for line in logs if line["event"] == "attempt.redacted"] == ["b"]
    disabled = [(await three.subscriptions.get(name)).state for name in NAMES]
    assert disabled == ["disabled"] * 3


async def test_nul_in_an_attempt_is_redacted_where_the_database_refuses_it(three: Registry, url: str) -> None:
    await three.attempts.record([attempt("a"), attempt("b", reason="no\0", provider_id="x\0"), attempt("c")])
    found = {each.subscription_id: each.outcome.reason for each in await three.attempts.list(EVENT.key)}
    assert found["b"] in ({UNSTORABLE_REASON} if url.startswith("postgresql") else {UNSTORABLE_REASON, "no\ufffd"})
    assert (found["a"], found["c"]) == ("SMTP 550", "SMTP 550")


async def test_a_refused_value_is_not_reported_as_an_outage(registry: Registry) -> None:
    with pytest.raises(NotStorable, match="cannot store a value"):
        await registry.deliveries.list(event_key="a\ud83d", limit=1)


async def test_nul_is_reported_as_a_refused_value_by_postgresql(registry: Registry, url: str) -> None:
    if url.startswith("sqlite"):
        assert await registry.deliveries.list(event_key="a\0", limit=1) == []
        return
    with pytest.raises(NotStorable, match="cannot store a value"):
        await registry.deliveries.list(event_key="a\0", limit=1)
