"""Answers that no document of the providers has: of proxies, of other versions, and of servers that misbehave."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from activities.chat.opening import open_chat
from activities.providers.accounts import Accounts
from activities.providers.parts import ProviderParts
from activities.sending.attempt import ChannelAttempt
from bellwire.deliveries import Outcome, OutcomeKind
from bellwire.registry import Registry
from bellwire.targets import Channel
from starter.local.receivers.providers.dingtalk import FakeDingtalk
from starter.local.receivers.providers.fake import Answer, FakeProvider
from starter.local.receivers.providers.feishu import FakeFeishu
from starter.local.receivers.providers.slack import FakeSlack
from starter.local.receivers.providers.teams import FakeTeams
from starter.local.receivers.providers.telegram import FakeTelegram
from starter.local.receivers.providers.wecom import FakeWecom
from tests.activities.chat.channels import accounts, opened, request_for

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
async def chats(tmp_path: Path) -> AsyncIterator[Chats]:
    registry = await Registry.open(f"sqlite:///{tmp_path}/registry.db")
    await registry.migrate()
    async with opened(registry) as parts:
        yield Chats(parts)
    await registry.close()


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
        given = accounts({"slack": {"token": "bot", "url": slack.api, "timeout": 1}}, bot=slack.token)
        room = {"channel": "slack", "conversation": ROOM}
        assert (await answered(slack, chats.opened(Channel.SLACK, given), room, answer)).kind is kind


async def test_what_slack_writes_is_shown_without_credentials(chats: Chats) -> None:
    async with FakeSlack() as slack:
        given = accounts({"slack": {"token": "bot", "url": slack.api, "timeout": 1}}, bot=slack.token)
        room = {"channel": "slack", "conversation": ROOM}
        attempt = chats.opened(Channel.SLACK, given)
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


async def test_a_page_does_not_speak_for_a_workflow(chats: Chats) -> None:
    async with FakeTeams() as teams:
        workflow = {"channel": "teams", "url": teams.workflow("sales")}
        page = Answer(status=404, body="<html><h1>404 Not Found</h1></html>")
        outcome = await answered(teams, chats.opened(Channel.TEAMS), workflow, page)
        assert (outcome.kind, outcome.disable) == (DEFERRED, False)


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
        attempt = chats.opened(Channel.TELEGRAM, telegram_account(telegram))
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
        attempt = chats.opened(Channel.TELEGRAM, telegram_account(telegram))
        assert (await answered(telegram, attempt, to_chat(), answer)).kind is kind


async def test_an_id_that_no_chat_can_have_is_not_stored(chats: Chats) -> None:
    async with FakeTelegram() as telegram:
        attempt = chats.opened(Channel.TELEGRAM, telegram_account(telegram))
        description = "Bad Request: group chat was upgraded to a supergroup chat"
        moved = {"ok": False, "description": description, "parameters": {"migrate_to_chat_id": -(10**30)}}
        outcome = await answered(telegram, attempt, to_chat(), Answer(status=400, body=moved))
        assert (outcome.kind, telegram.requests) == (DEFERRED, 1)


async def test_the_token_of_a_bot_is_in_no_response(chats: Chats) -> None:
    async with FakeTelegram() as telegram:
        attempt = chats.opened(Channel.TELEGRAM, telegram_account(telegram))
        told = Answer(status=404, body=f"no method at /bot{telegram.token}/sendMessage")
        assert telegram.token not in str((await answered(telegram, attempt, to_chat(), told)).response)


@pytest.mark.parametrize("listed", ["zhang.san", " ZHANG.SAN ", "li.si|zhang.san", ["zhang.san"], "li.si, Zhang.San"])
async def test_wecom_may_spell_a_member_otherwise(chats: Chats, listed: Any) -> None:
    async with FakeWecom() as wecom:
        account = {"corp_id": "ww1", "agent_id": 1, "secret": "s", "url": wecom.url, "timeout": 1}
        attempt = chats.opened(Channel.WECOM, accounts({"wecom": account}, s=wecom.secret))
        member = {"channel": "wecom", "user": USER}
        outcome = await answered(wecom, attempt, member, Answer(body={"errcode": 0, "invaliduser": listed}))
        assert (outcome.kind, len(outcome.suppress)) == (REJECTED, 1)


async def test_the_old_answer_of_a_feishu_bot_is_success(chats: Chats) -> None:
    async with FakeFeishu() as feishu:
        bot = {"channel": "feishu", "webhook": feishu.bot("room")}
        said = Answer(accept=True, body={"StatusCode": 0, "StatusMessage": "success"})
        assert (await answered(feishu, chats.opened(Channel.FEISHU), bot, said)).kind is DELIVERED


def ding(chats: Chats, fake: FakeDingtalk) -> ChannelAttempt:
    account = {"app_key": "ding1", "app_secret": "s", "agent_id": 123, "url": fake.url, "timeout": 1}
    return chats.opened(Channel.DINGTALK, accounts({"dingtalk": account}, s=fake.app_secret))


async def test_the_gateway_of_dingtalk_says_in_a_sub_code_that_a_token_has_died(chats: Chats) -> None:
    async with FakeDingtalk() as dingtalk:
        attempt, user = ding(chats, dingtalk), {"channel": "dingtalk", "user": USER}
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
        attempt, user = ding(chats, dingtalk), {"channel": "dingtalk", "user": USER}
        sent = await attempt(request_for(user))
        later = request_for(user, number=2)
        later = replace(later, delivery=later.delivery.model_copy(update={"provider_id": sent.provider_id}))
        dingtalk.results[int(str(sent.provider_id).removeprefix("task/"))] = result
        assert (await attempt(later)).reason == reason


def telegram_account(telegram: FakeTelegram) -> Accounts:
    return accounts({"telegram": {"token": "bot", "url": telegram.url, "timeout": 1}}, bot=telegram.token)


def to_chat() -> dict[str, Any]:
    return {"channel": "telegram", "chat_id": CHAT}
