"""TeamsChannel against a server that answers as workflows of Microsoft Teams do."""

import json
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from activities.chat.teams import TeamsChannel
from activities.sending.exchanges import keeping_exchanges
from bellwire.deliveries import Fault, OutcomeKind
from bellwire.errors import SubscriptionInvalid
from bellwire.exchanges import KeepExchanges
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.targets import TeamsTarget
from starter.local.receivers.providers.fake import Answer
from starter.local.receivers.providers.teams import FakeTeams
from tests.activities.chat.channels import HOSTILE, opened, request_for


@pytest.fixture
async def teams() -> AsyncIterator[FakeTeams]:
    async with FakeTeams() as server:
        yield server


@pytest.fixture
async def channel() -> AsyncIterator[TeamsChannel]:
    async with opened(cast(Registry, None)) as parts:
        yield TeamsChannel(parts)


def request(teams: FakeTeams, **fields: Any) -> SendRequest:
    return request_for({"channel": "teams", "url": teams.workflow("sales")}, **fields)


async def test_a_card_has_a_title_and_a_text_whose_values_are_escaped(teams: FakeTeams, channel: TeamsChannel) -> None:
    outcome = await channel.attempt(request(teams, data={"order": "42", "note": HOSTILE}))
    assert (outcome.kind, outcome.reason) == (OutcomeKind.DELIVERED, "Teams 202")
    (message,) = teams.contents("sales")
    card = message["attachments"][0]["content"]
    assert card["body"][0]["inlines"][0]["text"] == "Order 42 is paid"
    text = card["body"][1]["text"]
    assert r"\[x\]\(https://evil.example\)" in text
    assert "order: 42\n\nnote: " in text


async def test_a_card_stays_below_what_teams_takes(teams: FakeTeams, channel: TeamsChannel) -> None:
    await channel.attempt(request(teams, data={f"f{number}": '"\\\u4e2d' * 100 for number in range(100)}))
    (message,) = teams.contents("sales")
    assert len(json.dumps(message, ensure_ascii=False).encode()) < 28_000


@pytest.mark.parametrize(
    ("answer", "kind", "fault", "disable"),
    [
        (Answer(status=404, body={"error": {"message": "The workflow is disabled."}}), "rejected", "receiver", True),
        (Answer(status=404, body="no route"), "deferred", "operator", False),
        (Answer(status=401, body={"error": {"code": "AuthorizationFailed"}}), "deferred", "operator", False),
        (Answer(status=413, body=""), "rejected", "operator", False),
        (Answer(status=503, body=""), "deferred", "provider", False),
    ],
)
async def test_what_a_refusal_means(
    teams: FakeTeams, channel: TeamsChannel, answer: Answer, kind: str, fault: str, disable: bool
) -> None:
    teams.script(answer)
    outcome = await channel.attempt(request(teams))
    assert (outcome.kind, outcome.fault, outcome.disable) == (OutcomeKind(kind), Fault(fault), disable)


async def test_too_many_requests_throttle(teams: FakeTeams, channel: TeamsChannel) -> None:
    teams.script(Answer(status=429, body="", headers={"Retry-After": "12"}))
    outcome = await channel.attempt(request(teams))
    assert (outcome.kind, outcome.retry_after, outcome.throttle) == (OutcomeKind.DEFERRED, 12, True)


async def test_the_signature_of_the_url_stays_secret(teams: FakeTeams, channel: TeamsChannel) -> None:
    teams.script(Answer(status=503, body=f"sig={teams.signature} is not accepted now"))
    made = request(teams)
    outcome = await keeping_exchanges(channel.attempt, KeepExchanges.ALL)(made)
    (exchange,) = outcome.exchanges
    assert isinstance(made.subscription.target, TeamsTarget)
    shown = exchange.request + made.subscription.model_dump_json() + made.subscription.target.address
    assert teams.signature not in shown


def test_the_urls_of_connectors_that_microsoft_ended_are_refused() -> None:
    with pytest.raises(SubscriptionInvalid, match="create a workflow in Teams"):
        TeamsTarget(url="https://acme.webhook.office.com/webhookb2/1")
