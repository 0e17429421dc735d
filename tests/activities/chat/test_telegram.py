"""TelegramChannel against a server that answers as Telegram's Bot API does."""

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from activities.chat.telegram import MAX_TEXT, TelegramChannel
from activities.sending.exchanges import keeping_exchanges
from bellwire.deliveries import Fault, OutcomeKind
from bellwire.exchanges import KeepExchanges
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.subscriptions import Subscription
from starter.local.receivers.providers.fake import Answer
from starter.local.receivers.providers.telegram import FakeTelegram
from tests.activities.chat.channels import HOSTILE, accounts_of, opened, request_for

CHAT = "-1001"


class Updates:
    """A fake registry: the subscriptions that were updated."""

    def __init__(self) -> None:
        self.subscriptions = self
        self.updated: list[Subscription] = []

    async def update(self, changed: list[Subscription]) -> None:
        self.updated += changed


@pytest.fixture
async def telegram() -> AsyncIterator[FakeTelegram]:
    async with FakeTelegram() as server:
        yield server


@pytest.fixture
def updates() -> Updates:
    return Updates()


@pytest.fixture
async def channel(telegram: FakeTelegram, updates: Updates) -> AsyncIterator[TelegramChannel]:
    async with opened(cast(Registry, updates)) as parts:
        yield TelegramChannel(parts, accounts_of(telegram).telegram)


def request(**fields: Any) -> SendRequest:
    return request_for({"channel": "telegram", "chat_id": CHAT}, **fields)


async def test_data_of_an_event_pings_nobody(telegram: FakeTelegram, channel: TelegramChannel) -> None:
    for data in ({"order": "@durov", "to": "(@durov) a@example.com"}, {"order": "@durov", "to": "@durov " * 1_000}):
        await channel.attempt(request(data=data))
    for message in telegram.contents(CHAT):
        assert "durov" in message["text"]
        assert "@durov" not in message["text"]
    assert "a@example.com" in telegram.contents(CHAT)[0]["text"]


async def test_a_message_has_a_bold_title_and_escaped_values(telegram: FakeTelegram, channel: TelegramChannel) -> None:
    outcome = await channel.attempt(request(data={"order": HOSTILE}))
    assert (outcome.kind, outcome.reason) == (OutcomeKind.DELIVERED, "Telegram ok")
    # The number is unique within a chat only.
    assert outcome.provider_id is not None
    assert outcome.provider_id.startswith("1@")
    assert CHAT not in outcome.provider_id
    (message,) = telegram.contents(CHAT)
    assert message["parse_mode"] == "HTML"
    assert message["text"].startswith("<b>Order &lt;!here&gt;")
    assert message["text"].count("<") == 2


async def test_a_chat_that_moved_is_found_and_its_subscription_updated(
    telegram: FakeTelegram, channel: TelegramChannel, updates: Updates
) -> None:
    telegram.moved[CHAT] = -1002
    outcome = await channel.attempt(request())
    assert outcome.kind is OutcomeKind.DELIVERED
    assert len(telegram.contents("-1002")) == 1
    assert [each.target.model_dump()["chat_id"] for each in updates.updated] == ["-1002"]


async def test_markup_that_telegram_does_not_parse_is_sent_as_plain_text(
    telegram: FakeTelegram, channel: TelegramChannel
) -> None:
    refusal = {"ok": False, "error_code": 400, "description": "Bad Request: can't parse entities: unclosed tag"}
    telegram.script(Answer(status=400, body=refusal))
    outcome = await channel.attempt(request(data={"order": "<b>"}))
    assert outcome.kind is OutcomeKind.DELIVERED
    (message,) = telegram.contents(CHAT)
    assert "parse_mode" not in message
    assert message["text"].startswith("Order <b> is paid")


async def test_a_long_text_is_cut_to_what_telegram_takes(telegram: FakeTelegram, channel: TelegramChannel) -> None:
    await channel.attempt(request(data={f"field{number}": "x" * 300 for number in range(30)}))
    (message,) = telegram.contents(CHAT)
    assert len(message["text"]) == MAX_TEXT
    assert message["text"].endswith("…")


@pytest.mark.parametrize(
    ("code", "description", "kind", "fault"),
    [
        (403, "Forbidden: bot was blocked by the user", OutcomeKind.REJECTED, Fault.RECEIVER),
        (403, "Forbidden: bot was kicked from the group chat", OutcomeKind.REJECTED, Fault.RECEIVER),
        (400, "Bad Request: chat not found", OutcomeKind.REJECTED, Fault.RECEIVER),
        (400, "Bad Request: message is too long", OutcomeKind.REJECTED, Fault.OPERATOR),
        (400, "Bad Request: not enough rights to send text messages", OutcomeKind.DEFERRED, Fault.OPERATOR),
        (401, "Unauthorized", OutcomeKind.DEFERRED, Fault.OPERATOR),
        (502, "Bad Gateway", OutcomeKind.DEFERRED, Fault.PROVIDER),
    ],
)
async def test_what_a_refusal_means(
    telegram: FakeTelegram, channel: TelegramChannel, code: int, description: str, kind: OutcomeKind, fault: Fault
) -> None:
    telegram.script(Answer(status=code, body={"ok": False, "error_code": code, "description": description}))
    outcome = await channel.attempt(request())
    assert (outcome.kind, outcome.fault, outcome.reason) == (kind, fault, f"Telegram {code}")
    assert [each.address for each in outcome.suppress] == ([f"default/{CHAT}"] if fault is Fault.RECEIVER else [])


async def test_a_flood_limit_waits_as_long_as_telegram_asks(telegram: FakeTelegram, channel: TelegramChannel) -> None:
    body = {"ok": False, "error_code": 429, "description": "Too Many Requests", "parameters": {"retry_after": 41}}
    telegram.script(Answer(status=429, body=body))
    outcome = await channel.attempt(request())
    assert (outcome.kind, outcome.retry_after, outcome.throttle) == (OutcomeKind.DEFERRED, 41, True)


@pytest.mark.parametrize("answer", [Answer(accept=True, reset=True), Answer(accept=True, never=True)])
async def test_a_lost_answer_is_unknown(telegram: FakeTelegram, channel: TelegramChannel, answer: Answer) -> None:
    telegram.script(answer)
    assert (await channel.attempt(request())).kind is OutcomeKind.UNKNOWN


async def test_the_token_of_the_bot_stays_secret(telegram: FakeTelegram, channel: TelegramChannel) -> None:
    telegram.script(Answer(status=403, body={"ok": False, "error_code": 403, "description": "Forbidden"}))
    outcome = await keeping_exchanges(channel.attempt, KeepExchanges.ALL)(request())
    (exchange,) = outcome.exchanges
    assert "sendMessage" in exchange.request
    assert telegram.token not in outcome.model_dump_json() + exchange.request + (exchange.response or "")
