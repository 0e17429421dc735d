"""SlackChannel against a server that answers as Slack does."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import cast

import pytest

from activities.chat.slack import SlackChannel
from bellwire.deliveries import Fault, OutcomeKind
from bellwire.registry import Registry
from bellwire.suppressions import SuppressionReason
from starter.local.receivers.providers.fake import Answer
from starter.local.receivers.providers.slack import FakeSlack
from tests.activities.chat.channels import HOSTILE, accounts_of, opened, request_for

ROOM = "C0123456789"


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    async with FakeSlack() as server:
        yield server


@pytest.fixture
async def channel(slack: FakeSlack) -> AsyncIterator[SlackChannel]:
    async with opened(cast(Registry, None)) as parts:
        yield SlackChannel(parts, accounts_of(slack).slack)


def to_room(**fields: object) -> dict[str, object]:
    return {"channel": "slack", "conversation": ROOM, **fields}


async def test_a_message_has_blocks_and_a_text_for_places_that_do_not_show_them(
    slack: FakeSlack, channel: SlackChannel
) -> None:
    outcome = await channel.attempt(request_for(to_room()))
    assert (outcome.kind, outcome.reason) == (OutcomeKind.DELIVERED, "Slack ok")
    (message,) = slack.contents(ROOM)
    assert message["blocks"][0]["text"]["text"] == "Order 42 is paid"
    assert message["text"].startswith("Order 42 is paid\n")
    assert "order: 42" in message["blocks"][1]["text"]["text"]
    # What edits and recalls need.
    assert outcome.provider_id is not None
    assert outcome.provider_id.startswith(f"{ROOM}/1700000000.")


async def test_data_of_an_event_pings_nobody(slack: FakeSlack, channel: SlackChannel) -> None:
    await channel.attempt(request_for(to_room(), data={"order": HOSTILE, "note": HOSTILE}))
    (message,) = slack.contents(ROOM)
    for text in (message["text"], message["blocks"][1]["text"]["text"]):
        assert "<" not in text
        assert "&lt;!here&gt;" in text
    assert message["blocks"][0]["text"]["type"] == "plain_text"


async def test_templates_of_a_subscription_write_the_markup_of_slack(slack: FakeSlack, channel: SlackChannel) -> None:
    request = request_for(to_room(), data={"name": "<@U1>"})
    own = request.subscription.model_copy(
        update={"templates": {"slack.text": "*{{ data.name }}*{% set x %}<{{ data.name }}>{% endset %}{{ x }}"}}
    )
    await channel.attempt(replace(request, subscription=own))
    (message,) = slack.contents(ROOM)
    assert message["blocks"][1]["text"]["text"] == "*&lt;@U1&gt;*<&lt;@U1&gt;>"


@pytest.mark.parametrize(
    ("error", "kind", "fault"),
    [
        ("channel_not_found", OutcomeKind.REJECTED, Fault.RECEIVER),
        ("is_archived", OutcomeKind.REJECTED, Fault.RECEIVER),
        ("msg_too_long", OutcomeKind.REJECTED, Fault.OPERATOR),
        ("invalid_auth", OutcomeKind.DEFERRED, Fault.OPERATOR),
        ("missing_scope", OutcomeKind.DEFERRED, Fault.OPERATOR),
        ("ratelimited", OutcomeKind.DEFERRED, Fault.PROVIDER),
        ("internal_error", OutcomeKind.UNKNOWN, Fault.PROVIDER),
        ("an_error_of_next_year", OutcomeKind.DEFERRED, Fault.OPERATOR),
    ],
)
async def test_a_200_that_is_not_ok_is_no_success(
    slack: FakeSlack, channel: SlackChannel, error: str, kind: OutcomeKind, fault: Fault
) -> None:
    slack.script(Answer(body={"ok": False, "error": error}))
    outcome = await channel.attempt(request_for(to_room()))
    assert (outcome.kind, outcome.fault, outcome.reason) == (kind, fault, f"Slack {error}")
    suppressed = [(each.address, each.reason) for each in outcome.suppress]
    gone = fault is Fault.RECEIVER
    assert suppressed == ([(f"default/{ROOM}", SuppressionReason.BOUNCED)] if gone else [])


async def test_a_rate_limit_waits_as_long_as_slack_asks(slack: FakeSlack, channel: SlackChannel) -> None:
    slack.script(Answer(status=429, body={"ok": False, "error": "ratelimited"}, headers={"Retry-After": "37"}))
    outcome = await channel.attempt(request_for(to_room()))
    assert (outcome.kind, outcome.retry_after, outcome.throttle) == (OutcomeKind.DEFERRED, 37, True)


@pytest.mark.parametrize("answer", [Answer(accept=True, reset=True), Answer(accept=True, never=True)])
async def test_a_lost_answer_is_unknown(slack: FakeSlack, channel: SlackChannel, answer: Answer) -> None:
    slack.script(answer)
    outcome = await channel.attempt(request_for(to_room()))
    assert outcome.kind is OutcomeKind.UNKNOWN
    assert len(slack.accepted) == 1


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_a_dead_webhook_disables_its_subscription(slack: FakeSlack, channel: SlackChannel, status: int) -> None:
    slack.script(Answer(status=status, body="no_service"))
    outcome = await channel.attempt(request_for({"channel": "slack", "webhook": slack.webhook("SECRET")}))
    assert (outcome.kind, outcome.disable, outcome.reason) == (OutcomeKind.REJECTED, True, f"Slack {status}")


async def test_a_webhook_gets_the_message_and_its_url_stays_secret(slack: FakeSlack, channel: SlackChannel) -> None:
    request = request_for({"channel": "slack", "webhook": slack.webhook("SECRET")})
    outcome = await channel.attempt(request)
    assert (outcome.kind, outcome.reason) == (OutcomeKind.DELIVERED, "Slack 200")
    assert slack.contents("SECRET")[0]["text"].startswith("Order 42 is paid")
    assert "SECRET" not in outcome.model_dump_json() + request.subscription.model_dump_json()
    assert request.subscription.target.address == "a webhook of 127.0.0.1"


async def test_a_suppressed_conversation_gets_nothing(slack: FakeSlack, channel: SlackChannel) -> None:
    request = replace(request_for(to_room()), suppressed={f"default/{ROOM}": SuppressionReason.OPERATOR})
    outcome = await channel.attempt(request)
    assert (outcome.kind, outcome.reason) == (OutcomeKind.REJECTED, "recipient suppressed: operator")
    assert slack.requests == 0


async def test_an_account_that_is_missing_is_the_operators_to_add(channel: SlackChannel) -> None:
    outcome = await channel.attempt(request_for(to_room(account="other")))
    assert (outcome.kind, outcome.fault) == (OutcomeKind.DEFERRED, Fault.OPERATOR)
    assert outcome.cause == "add [slack.other] to BELLWIRE_ACCOUNTS"
