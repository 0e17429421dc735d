"""The bots of groups of WeCom, DingTalk and Feishu, and what is special about each provider."""

from collections.abc import AsyncIterator, Mapping
from urllib.parse import unquote

import pytest

from activities.chat import dingtalk, feishu
from activities.chat.opening import open_chat
from activities.providers.accounts import Accounts
from activities.sending.attempt import ChannelAttempt
from bellwire.deliveries import Outcome, OutcomeKind
from bellwire.errors import SubscriptionInvalid
from bellwire.registry import Registry
from bellwire.targets import Channel, DingtalkTarget, WecomTarget
from starter.local.receivers.providers.dingtalk import FakeDingtalk
from starter.local.receivers.providers.fake import Answer
from starter.local.receivers.providers.feishu import FakeFeishu
from starter.local.receivers.providers.wecom import FakeWecom
from tests.activities.chat.channels import HOSTILE, accounts_of, opened, request_for


@pytest.fixture
async def dingtalk_app(registry: Registry) -> AsyncIterator[tuple[FakeDingtalk, ChannelAttempt]]:
    async with FakeDingtalk() as fake, opened(registry) as parts:
        yield fake, open_chat(accounts_of(fake), parts)[Channel.DINGTALK].attempt


async def post(channel: Channel, target: Mapping[str, object], registry: Registry, **fields: object) -> Outcome:
    async with opened(registry) as parts:
        attempt = open_chat(Accounts(), parts)[channel].attempt
        return await attempt(request_for({"channel": str(channel), **target}, **fields))


async def test_a_robot_of_dingtalk_gets_a_signed_markdown(registry: Registry) -> None:
    async with FakeDingtalk() as fake:
        target = {"webhook": fake.robot("TOKEN"), "secret": "SEC1"}
        outcome = await post(Channel.DINGTALK, target, registry, data={"note": HOSTILE})
        assert (outcome.kind, outcome.reason) == (OutcomeKind.DELIVERED, "DingTalk 0")
        (query,), (message,) = fake.queries, fake.contents("TOKEN")
    assert query["sign"] == unquote(dingtalk.sign("SEC1", int(query["timestamp"])))
    assert message["markdown"]["text"].startswith("#### Order 1 is paid")
    assert "<" not in message["markdown"]["text"]


async def test_a_robot_of_dingtalk_that_is_blocked_waits_ten_minutes(registry: Registry) -> None:
    async with FakeDingtalk() as fake:
        fake.script(Answer(body={"errcode": 130101, "errmsg": "send too fast, exceed 20 times per minute"}))
        outcome = await post(Channel.DINGTALK, {"webhook": fake.robot("TOKEN")}, registry)
    assert (outcome.kind, outcome.retry_after, outcome.throttle) == (OutcomeKind.DEFERRED, 600, True)


async def test_a_bot_of_feishu_gets_a_signed_card(registry: Registry) -> None:
    async with FakeFeishu() as fake:
        target = {"webhook": fake.bot("HOOK"), "secret": "SEC2"}
        outcome = await post(Channel.FEISHU, target, registry, data={"note": HOSTILE})
        assert (outcome.kind, outcome.reason) == (OutcomeKind.DELIVERED, "Feishu 0")
        (message,) = fake.contents("HOOK")
    assert message["sign"] == feishu.sign("SEC2", int(message["timestamp"]))
    assert "<at" not in message["card"]["elements"][0]["content"]


async def test_a_bot_of_wecom_gets_markdown_that_fits(registry: Registry) -> None:
    async with FakeWecom() as fake:
        data = {f"f{number}": "\u4e2d" * 100 for number in range(50)}
        outcome = await post(Channel.WECOM, {"webhook": fake.bot("KEY")}, registry, data=data)
        assert (outcome.kind, outcome.reason) == (OutcomeKind.DELIVERED, "WeCom 0")
        (message,) = fake.contents("KEY")
    assert len(message["markdown"]["content"].encode()) <= 4096


async def test_a_bot_of_wecom_that_was_deleted_disables_its_subscription(registry: Registry) -> None:
    async with FakeWecom() as fake:
        fake.script(Answer(body={"errcode": 93000, "errmsg": "invalid webhook url"}))
        outcome = await post(Channel.WECOM, {"webhook": fake.bot("KEY")}, registry)
    assert (outcome.kind, outcome.disable) == (OutcomeKind.REJECTED, True)


@pytest.mark.parametrize("field", ["invaliduser", "unlicenseduser"])
async def test_a_success_of_wecom_that_leaves_the_member_out_is_none(registry: Registry, field: str) -> None:
    async with FakeWecom() as fake, opened(registry) as parts:
        attempt = open_chat(accounts_of(fake), parts)[Channel.WECOM].attempt
        fake.script(Answer(body={"errcode": 0, field: "ann|bob", "msgid": "1"}))
        outcome = await attempt(request_for({"channel": "wecom", "user": "bob"}))
    assert (outcome.kind is OutcomeKind.DELIVERED, outcome.reason) == (False, f"WeCom {field}")


async def test_equal_texts_of_two_deliveries_differ_and_two_attempts_do_not(registry: Registry) -> None:
    async with FakeWecom() as fake, opened(registry) as parts:
        attempt = open_chat(accounts_of(fake), parts)[Channel.WECOM].attempt
        first = request_for({"channel": "wecom", "user": "bob"})
        await attempt(first)
        await attempt(first)
    assert fake.duplicates == 1


async def test_a_work_notice_is_delivered_once_dingtalk_says_so(
    dingtalk_app: tuple[FakeDingtalk, ChannelAttempt],
) -> None:
    fake, attempt = dingtalk_app
    target = {"channel": "dingtalk", "user": "ann"}
    sent = await attempt(request_for(target))
    assert (sent.kind, sent.reason, sent.provider_id) == (OutcomeKind.DEFERRED, "DingTalk accepted", "task/1")
    asked = await attempt(request_for(target, number=2, provider_id=sent.provider_id))
    assert (asked.kind, asked.provider_id) == (OutcomeKind.DEFERRED, "task/1")
    fake.results[1] = {"unread_user_id_list": ["ann"]}
    done = await attempt(request_for(target, number=3, provider_id=asked.provider_id))
    assert (done.kind, done.reason) == (OutcomeKind.DELIVERED, "DingTalk unread")
    assert len(fake.accepted) == 1


@pytest.mark.parametrize(
    ("field", "reason", "suppressed"),
    [
        ("invalid_user_id_list", "DingTalk invalid", True),
        ("forbidden_user_id_list", "DingTalk forbidden", False),
        ("failed_user_id_list", "DingTalk failed", False),
    ],
)
async def test_a_work_notice_may_fail_later(
    dingtalk_app: tuple[FakeDingtalk, ChannelAttempt], field: str, reason: str, suppressed: bool
) -> None:
    fake, attempt = dingtalk_app
    fake.results[1] = {field: ["ann"]}
    target = {"channel": "dingtalk", "user": "ann"}
    await attempt(request_for(target))
    outcome = await attempt(request_for(target, number=2, provider_id="task/1"))
    assert (outcome.kind, outcome.reason, bool(outcome.suppress)) == (OutcomeKind.REJECTED, reason, suppressed)


async def test_a_work_notice_whose_result_never_comes_is_not_sent_again(
    dingtalk_app: tuple[FakeDingtalk, ChannelAttempt],
) -> None:
    fake, attempt = dingtalk_app
    target = {"channel": "dingtalk", "user": "ann"}
    await attempt(request_for(target))
    outcomes = [await attempt(request_for(target, number=number, provider_id="task/1")) for number in range(2, 6)]
    assert [outcome.reason for outcome in outcomes] == ["DingTalk accepted"] * 3 + ["DingTalk sent"]
    assert len(fake.accepted) == 1


@pytest.mark.parametrize("fields", [{}, {"user": "a", "tag": "b"}, {"webhook": "https://a.example/x", "user": "a"}])
def test_a_target_has_one_address(fields: dict[str, str]) -> None:
    with pytest.raises(SubscriptionInvalid, match="give one of them"):
        WecomTarget(**fields)


def test_a_secret_belongs_to_a_webhook() -> None:
    with pytest.raises(SubscriptionInvalid, match="secret: belongs to a webhook"):
        DingtalkTarget(user="ann", secret="SEC")
