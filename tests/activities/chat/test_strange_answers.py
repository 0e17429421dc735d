"""Answers that no document of the providers has: of proxies, of other versions, and of servers that misbehave."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from activities.chat.opening import open_chat
from activities.providers.accounts import Accounts
from activities.providers.parts import ProviderParts
from activities.sending.attempt import ChannelAttempt
from bellwire.deliveries import Fault, Outcome, OutcomeKind
from bellwire.registry import Registry
from bellwire.targets import Channel
from starter.local.receivers.providers.dingtalk import FakeDingtalk
from starter.local.receivers.providers.fake import Answer, FakeProvider
from starter.local.receivers.providers.feishu import FakeFeishu
from starter.local.receivers.providers.slack import FakeSlack
from starter.local.receivers.providers.teams import FakeTeams
from starter.local.receivers.providers.telegram import FakeTelegram
from starter.local.receivers.providers.wecom import FakeWecom
from tests.activities.chat.channels import accounts_of, opened, request_for

CHAT, ROOM, USER = "-1007351000", "C0123456789", "Zhang.San"
DELIVERED, UNKNOWN, DEFERRED, REJECTED = (
    OutcomeKind(each) for each in ("delivered", "unknown", "deferred", "rejected")
)


class Chats(NamedTuple):
    """The chat channels, whose providers are opened by the tests."""

    parts: ProviderParts

    def opened(self, channel: Channel, given: Accounts | None = None) -> ChannelAttempt:
        return open_chat(given or Accounts(), self.parts)[channel].attempt


@pytest.fixture
async def chats(registry: Registry) -> AsyncIterator[Chats]:
    async with opened(registry) as parts:
        yield Chats(parts)


async def answered(fake: FakeProvider, attempt: ChannelAttempt, target: dict[str, Any], answer: Answer) -> Outcome:
    fake.script(answer)
    return await attempt(request_for(target))


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(body={"ok": "true", "ts": "1"}), UNKNOWN),
        (Answer(body="<html>"), UNKNOWN),
        (Answer(body=""), UNKNOWN),
        (Answer(body=[1]), UNKNOWN),
        (Answer(status=204, body=""), UNKNOWN),
        (Answer(status=500, body={"ok": False, "error": "fatal_error"}), UNKNOWN),
        (Answer(status=302, body=""), DEFERRED),
        (Answer(body={"ok": False, "error": "brand_new"}), DEFERRED),
    ],
)
async def test_what_is_no_answer_of_slack_is_no_refusal(chats: Chats, answer: Answer, kind: OutcomeKind) -> None:
    async with FakeSlack() as slack:
        room = {"channel": "slack", "conversation": ROOM}
        assert (await answered(slack, chats.opened(Channel.SLACK, accounts_of(slack)), room, answer)).kind is kind


async def test_what_slack_writes_is_shown_without_credentials(chats: Chats) -> None:
    async with FakeSlack() as slack:
        room = {"channel": "slack", "conversation": ROOM}
        attempt = chats.opened(Channel.SLACK, accounts_of(slack))
        told = Answer(body={"ok": False, "error": f"{slack.token} may not write to {ROOM}"})
        outcome = await answered(slack, attempt, room, told)
        assert outcome.reason == "Slack 200"
        assert slack.token not in str(outcome.response)
        outcome = await answered(slack, attempt, room, Answer(accept=True, body={"ok": True}))
        assert (outcome.kind, outcome.provider_id) == (DELIVERED, None)


@pytest.mark.parametrize(
    ("answer", "kind", "disable"),
    [
        (Answer(status=404, body="no_service"), REJECTED, True),
        (Answer(status=404, body="<html>404 Not Found"), DEFERRED, False),
        (Answer(status=400, body="<html>400 Bad Request"), DEFERRED, False),
        (Answer(status=403, body={"message": "Forbidden"}), DEFERRED, False),
        (Answer(status=400, body="invalid_payload"), REJECTED, False),
        (Answer(status=200, body="<html>Log in"), UNKNOWN, False),
        (Answer(accept=True, reset=True), UNKNOWN, False),
        (Answer(accept=True, never=True), UNKNOWN, False),
    ],
)
async def test_a_page_does_not_speak_for_a_hook(chats: Chats, answer: Answer, kind: OutcomeKind, disable: bool) -> None:
    async with FakeSlack() as slack:
        hook = {"channel": "slack", "webhook": slack.webhook("room")}
        outcome = await answered(slack, chats.opened(Channel.SLACK), hook, answer)
        assert (outcome.kind, outcome.disable) == (kind, disable)


@pytest.mark.parametrize(("status", "kind"), [(200, UNKNOWN), (302, DEFERRED), (400, DEFERRED), (404, DEFERRED)])
async def test_a_page_does_not_speak_for_a_workflow(chats: Chats, status: int, kind: OutcomeKind) -> None:
    async with FakeTeams() as teams:
        workflow = {"channel": "teams", "url": teams.workflow("sales")}
        page = Answer(status=status, body="<html><h1>404 Not Found</h1></html>")
        outcome = await answered(teams, chats.opened(Channel.TEAMS), workflow, page)
        assert (outcome.kind, outcome.disable) == (kind, False)


async def test_a_hook_that_repeats_its_url_tells_nobody(chats: Chats) -> None:
    async with FakeTeams() as teams:
        url = f"{teams.workflow('sales')}&sig=s1gnature-of-the-workflow"
        told = Answer(status=400, body=f"cannot parse {url}")
        outcome = await answered(teams, chats.opened(Channel.TEAMS), {"channel": "teams", "url": url}, told)
        assert "s1gnature" not in str(outcome.response)


@pytest.mark.parametrize(
    ("body", "provider_id"),
    [
        ({"ok": True}, None),
        ({"ok": True, "result": {"message_id": 5}, "parameters": {"migrate_to_chat_id": -100}}, "5"),
        ({"ok": True, "result": {"message_id": 5}, "description": "can't parse entities"}, "5"),
    ],
)
async def test_telegram_gets_what_it_has_taken_only_once(chats: Chats, body: Any, provider_id: str | None) -> None:
    async with FakeTelegram() as telegram:
        attempt = chats.opened(Channel.TELEGRAM, accounts_of(telegram))
        outcome = await answered(telegram, attempt, to_chat(), Answer(accept=True, body=body))
        sent = outcome.provider_id and outcome.provider_id.partition("@")[0]
        assert (outcome.kind, sent, telegram.requests) == (DELIVERED, provider_id, 1)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(body="<html>"), UNKNOWN),
        (Answer(body={}), UNKNOWN),
        (Answer(status=400, body={"ok": False, "error_code": 10**300, "description": "chat not found"}), REJECTED),
        (Answer(status=400, body={"ok": False, "description": "Bad Request: need administrator rights"}), DEFERRED),
    ],
)
async def test_what_is_no_answer_of_telegram_is_no_refusal(chats: Chats, answer: Answer, kind: OutcomeKind) -> None:
    async with FakeTelegram() as telegram:
        attempt = chats.opened(Channel.TELEGRAM, accounts_of(telegram))
        assert (await answered(telegram, attempt, to_chat(), answer)).kind is kind


async def test_an_id_that_no_chat_can_have_is_not_stored(chats: Chats) -> None:
    async with FakeTelegram() as telegram:
        attempt = chats.opened(Channel.TELEGRAM, accounts_of(telegram))
        description = "Bad Request: group chat was upgraded to a supergroup chat"
        moved = {"ok": False, "description": description, "parameters": {"migrate_to_chat_id": -(10**30)}}
        outcome = await answered(telegram, attempt, to_chat(), Answer(status=400, body=moved))
        assert (outcome.kind, telegram.requests) == (DEFERRED, 1)


async def test_the_token_of_a_bot_is_in_no_response(chats: Chats) -> None:
    async with FakeTelegram() as telegram:
        attempt = chats.opened(Channel.TELEGRAM, accounts_of(telegram))
        told = Answer(status=404, body=f"no method at /bot{telegram.token}/sendMessage")
        assert telegram.token not in str((await answered(telegram, attempt, to_chat(), told)).response)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_a_gateway_does_not_speak_for_telegram(chats: Chats, status: int) -> None:
    async with FakeTelegram() as telegram:
        attempt = chats.opened(Channel.TELEGRAM, accounts_of(telegram))
        outcome = await answered(telegram, attempt, to_chat(), Answer(status=status, body={"message": "Forbidden"}))
        assert (outcome.kind, outcome.fault, outcome.suppress) == (DEFERRED, Fault.PROVIDER, ())


@pytest.mark.parametrize("channel", [Channel.TELEGRAM, Channel.SLACK, Channel.WECOM])
async def test_a_server_that_fails_ends_no_delivery(chats: Chats, channel: Channel) -> None:
    body = {"errcode": 40003, "ok": False, "error_code": 403, "error": "channel_not_found"}
    targets: dict[Channel, dict[str, Any]] = {
        Channel.TELEGRAM: to_chat(),
        Channel.SLACK: {"channel": "slack", "conversation": ROOM},
        Channel.WECOM: {"channel": "wecom", "user": USER},
    }
    fakes = {Channel.TELEGRAM: FakeTelegram, Channel.SLACK: FakeSlack, Channel.WECOM: FakeWecom}
    async with fakes[channel]() as fake:
        attempt = chats.opened(channel, accounts_of(fake))
        outcome = await answered(fake, attempt, targets[channel], Answer(status=502, body=body))
        assert (outcome.kind, outcome.suppress, outcome.disable) == (DEFERRED, (), False)


async def test_telegram_may_write_numbers_as_texts(chats: Chats) -> None:
    async with FakeTelegram() as telegram:
        attempt = chats.opened(Channel.TELEGRAM, accounts_of(telegram))
        flood = Answer(status=429, body={"ok": False, "error_code": "429", "parameters": {"retry_after": "35"}})
        assert (await answered(telegram, attempt, to_chat(), flood)).retry_after == 35
        moved = {"ok": False, "error_code": 400, "parameters": {"migrate_to_chat_id": "-1009"}}
        assert (await answered(telegram, attempt, to_chat(), Answer(status=400, body=moved))).kind is DELIVERED
        assert telegram.contents("-1009")


@pytest.mark.parametrize("listed", ["zhang.san", " ZHANG.SAN ", "li.si|zhang.san", ["zhang.san"], "li.si, Zhang.San"])
async def test_wecom_may_spell_a_member_otherwise(chats: Chats, listed: Any) -> None:
    async with FakeWecom() as wecom:
        attempt = chats.opened(Channel.WECOM, accounts_of(wecom))
        member = {"channel": "wecom", "user": USER}
        outcome = await answered(wecom, attempt, member, Answer(body={"errcode": 0, "invaliduser": listed}))
        assert (outcome.kind, len(outcome.suppress)) == (REJECTED, 1)


async def test_the_old_answer_of_a_feishu_bot_is_success(chats: Chats) -> None:
    async with FakeFeishu() as feishu:
        bot = {"channel": "feishu", "webhook": feishu.bot("room")}
        said = Answer(accept=True, body={"StatusCode": 0, "StatusMessage": "success"})
        assert (await answered(feishu, chats.opened(Channel.FEISHU), bot, said)).kind is DELIVERED


async def test_the_gateway_of_dingtalk_says_in_a_sub_code_that_a_token_has_died(chats: Chats) -> None:
    async with FakeDingtalk() as dingtalk:
        attempt, user = chats.opened(Channel.DINGTALK, accounts_of(dingtalk)), {"channel": "dingtalk", "user": USER}
        outcome = await answered(dingtalk, attempt, user, Answer(body={"errcode": 88, "sub_code": "40014"}))
        assert (outcome.reason, len(dingtalk.tokens.issued)) == ("DingTalk accepted", 2)
        outcome = await answered(dingtalk, attempt, user, Answer(body={"errcode": 88, "sub_code": "90018"}))
        assert (outcome.kind, outcome.retry_after) == (DEFERRED, 60)


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ({"invalid_user_id_list": 5}, "DingTalk accepted"),
        ({"read_user_id_list": True}, "DingTalk accepted"),
        ({"forbidden_list": [{"code": "143105", "count": 1, "userid": USER}]}, "DingTalk forbidden"),
        ({"read_user_id_list": [USER]}, "DingTalk read"),
    ],
)
async def test_results_of_a_notice_may_have_any_shape(chats: Chats, result: Any, reason: str) -> None:
    async with FakeDingtalk() as dingtalk:
        attempt, user = chats.opened(Channel.DINGTALK, accounts_of(dingtalk)), {"channel": "dingtalk", "user": USER}
        sent = await attempt(request_for(user))
        later = request_for(user, number=2)
        later = replace(later, delivery=later.delivery.model_copy(update={"provider_id": sent.provider_id}))
        dingtalk.results[int(str(sent.provider_id).removeprefix("task/"))] = result
        assert (await attempt(later)).reason == reason


async def test_a_notice_that_retry_now_asks_about_is_not_sent_again(chats: Chats) -> None:
    async with FakeDingtalk() as dingtalk:
        attempt, user = chats.opened(Channel.DINGTALK, accounts_of(dingtalk)), {"channel": "dingtalk", "user": USER}
        sent = await attempt(request_for(user))
        asked = await attempt(request_for(user, number=2, extra=True, provider_id=sent.provider_id))
        assert (asked.reason, asked.provider_id, len(dingtalk.accepted)) == ("DingTalk accepted", sent.provider_id, 1)
        again = await attempt(request_for(user, number=3, schedule_from=2, provider_id=sent.provider_id))
        assert (again.reason, len(dingtalk.accepted)) == ("DingTalk accepted", 2), "a redelivery sends another one"


@pytest.mark.parametrize("fails", [False, True])
async def test_a_notice_counts_as_sent_when_no_attempt_is_left_to_ask(chats: Chats, fails: bool) -> None:
    async with FakeDingtalk() as dingtalk:
        attempt, user = chats.opened(Channel.DINGTALK, accounts_of(dingtalk)), {"channel": "dingtalk", "user": USER}
        sent = await attempt(request_for(user))
        last = request_for(user, number=2, provider_id=sent.provider_id)
        last = replace(last, subscription=last.subscription.model_copy(update={"retry_schedule": (60.0,)}))
        if fails:
            dingtalk.tokens.revoke()
            dingtalk.tokens.script.append(Answer(status=500))
        outcome = await attempt(last)
        assert (outcome.kind, outcome.reason, outcome.provider_id) == (DELIVERED, "DingTalk sent", sent.provider_id)


@pytest.mark.parametrize("channel", [Channel.FEISHU, Channel.WECOM])
async def test_a_message_is_known_after_retry_now_and_a_redelivery_is_another(chats: Chats, channel: Channel) -> None:
    async with FakeFeishu() if channel is Channel.FEISHU else FakeWecom() as fake:
        attempt = chats.opened(channel, accounts_of(fake))
        to = {"user": USER} if channel is Channel.WECOM else {"receive_id": "ou_1"}
        for fields in (
            {},
            {"number": 3, "schedule_from": 1},
            {"number": 4, "schedule_from": 3, "workflow_id": "again"},
        ):
            assert (await attempt(request_for({"channel": str(channel), **to}, **fields))).kind is DELIVERED
        first, later, again = (each.key for each in fake.accepted)
        assert first == later != again


def to_chat() -> dict[str, Any]:
    return {"channel": "telegram", "chat_id": CHAT}
