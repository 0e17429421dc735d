"""WeChat: template, subscription and subscribe messages, against a server that answers as WeChat does."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic import ValidationError

from activities.providers.accounts import WechatAccount
from activities.rendering.renderer import Renderer
from activities.sending.exchanges import keeping_exchanges
from activities.wechat.channel import MAX_CLIENT_ID, WechatChannel, client_id
from activities.wechat.codes import until_next_day
from activities.wechat.tokens import WechatTokens
from bellwire.deliveries import Fault, OutcomeKind
from bellwire.errors import TemplateInvalid
from bellwire.exchanges import KeepExchanges
from bellwire.registry import Registry
from bellwire.registry.providers.wechat_grants import Grantee
from bellwire.sends import SendRequest
from bellwire.suppressions import SuppressionReason
from bellwire.targets import WechatTarget
from starter.local.receivers.providers.fake import Answer
from starter.local.receivers.providers.wechat import FakeWechat
from tests.activities.chat.channels import accounts, opened, request_for
from tests.factories import subscription

OPENID = "oABCD-1234_x"
TARGET = {"channel": "wechat", "openid": OPENID, "template_id": "paid"}
#: 8 h before midnight in China.
NOW = datetime(2026, 11, 29, 8, tzinfo=UTC)


class Opened(NamedTuple):
    fake: FakeWechat
    channel: WechatChannel
    #: The same channel of another worker, with the same registry.
    other: WechatChannel
    account: WechatAccount
    registry: Registry


@pytest.fixture
async def wechat(request: pytest.FixtureRequest, registry: Registry) -> AsyncIterator[Opened]:
    async with FakeWechat() as fake, opened(registry) as parts:
        account = {"app_id": fake.app_id, "secret": "s", "url": fake.url, "timeout": 1, **getattr(request, "param", {})}
        given = accounts({"wechat": account}, s=fake.secret, t=fake.callbacks.token).wechat
        one, other = (WechatChannel(parts, given, clock=lambda: NOW) for _ in range(2))
        yield Opened(fake, one, other, given["default"], registry)


def request(
    target: dict[str, Any] | None = None, *, templates: dict[str, str] | None = None, **fields: Any
) -> SendRequest:
    made = request_for(target or TARGET, **fields)
    if templates is None:
        return made
    return replace(made, subscription=made.subscription.model_copy(update={"templates": templates}))


async def test_a_template_message_has_fields_and_the_deliverys_id(wechat: Opened) -> None:
    outcome = await wechat.channel.attempt(request({**TARGET, "url": "https://shop.example/7"}))
    assert (outcome.kind, outcome.reason) == (OutcomeKind.DELIVERED, "WeChat 0")
    (message,) = wechat.fake.accepted
    assert outcome.provider_id == message.id
    assert message.content["url"] == "https://shop.example/7"
    assert message.content["client_msg_id"] == request().id
    data = message.content["data"]
    assert data["thing1"]["value"].startswith("order.paid") or "42" in data["thing1"]["value"]
    assert set(data) == {"thing1", "time2", "thing3"}
    datetime.strptime(data["time2"]["value"], "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007 - has no zone


@pytest.mark.parametrize(
    ("kind", "more", "locale"),
    [("subscription", {"page": "pages/order?id=7"}, None), ("miniprogram", {"page": "index"}, "en_US")],
)
async def test_kinds_that_need_a_grant_have_no_client_id(
    wechat: Opened, kind: str, more: dict[str, str], locale: str | None
) -> None:
    outcome = await wechat.channel.attempt(request({**TARGET, "kind": kind, **more}))
    assert outcome.kind is OutcomeKind.DELIVERED
    (message,) = wechat.fake.contents(OPENID)
    assert (message["page"], message.get("lang")) == (more["page"], locale)
    assert "client_msg_id" not in message


@pytest.mark.parametrize("locale", ["zh-Hant-TW", "ZH"])
async def test_a_mini_program_is_in_chinese_for_those_who_read_it(wechat: Opened, locale: str) -> None:
    made = request({**TARGET, "kind": "miniprogram"})
    await wechat.channel.attempt(replace(made, subscription=made.subscription.model_copy(update={"locale": locale})))
    assert [message["lang"] for message in wechat.fake.contents(OPENID)] == ["zh_CN"]


def test_a_long_delivery_id_is_hashed() -> None:
    long = "dlv_" + "a" * 90
    assert client_id("dlv_short") == "dlv_short"
    assert len(client_id(long)) <= MAX_CLIENT_ID
    assert client_id(long) != client_id(long + "b")


@pytest.mark.parametrize(
    ("code", "kind", "fault", "suppressed", "wait"),
    [
        (-1, "deferred", "provider", False, None),
        (40003, "rejected", "receiver", True, None),
        (43004, "rejected", "receiver", True, None),
        (48002, "rejected", "receiver", True, None),
        (50002, "rejected", "receiver", True, None),
        (50005, "rejected", "receiver", True, None),
        (43101, "rejected", "operator", False, None),
        (40037, "rejected", "operator", False, None),
        (47003, "rejected", "operator", False, None),
        (48001, "deferred", "operator", False, None),
        (40164, "deferred", "operator", False, None),
        (45011, "deferred", "provider", False, 60),
        (45009, "deferred", "provider", False, 8 * 3600 + 60),
        (43117, "deferred", "provider", False, 300),
        (40241, "deferred", "provider", False, 60),
    ],
)
async def test_a_200_with_a_code_is_no_success(
    wechat: Opened, code: int, kind: str, fault: str, suppressed: bool, wait: float | None
) -> None:
    wechat.fake.script(Answer(body={"errcode": code, "errmsg": f"x {OPENID} rid: 1"}))
    outcome = await wechat.channel.attempt(request())
    assert (outcome.kind, outcome.fault, outcome.retry_after) == (OutcomeKind(kind), Fault(fault), wait)
    assert outcome.reason == f"WeChat {code}"
    assert [each.address for each in outcome.suppress] == ([f"default/{OPENID}"] if suppressed else [])


async def test_a_repeated_message_was_sent_if_the_earlier_answer_was_lost(wechat: Opened) -> None:
    wechat.fake.script(Answer(accept=True, reset=True))
    lost = await wechat.channel.attempt(request())
    assert lost.kind is OutcomeKind.UNKNOWN
    wechat.fake.script(Answer(body={"errcode": 40241, "errmsg": "duplicate"}))
    again = request()
    again = replace(again, number=2, delivery=again.delivery.model_copy(update={"reason": lost.reason}))
    assert (await wechat.channel.attempt(again)).kind is OutcomeKind.DELIVERED


@pytest.mark.parametrize(
    ("reason", "kind"), [("WeChat 0", "delivered"), ("WeChat 200", "delivered"), ("WeChat 200011", "deferred")]
)
async def test_only_an_attempt_that_may_have_sent_makes_a_repetition_a_success(
    wechat: Opened, reason: str, kind: str
) -> None:
    wechat.fake.script(Answer(body={"errcode": 40241}))
    assert (await wechat.channel.attempt(request(number=2, reason=reason))).kind is OutcomeKind(kind)


#: An account with callbacks, so that grants are counted.
counting = pytest.mark.parametrize("wechat", [{"callback_token": "t"}], indirect=True)
SUBSCRIBED = {**TARGET, "kind": "miniprogram"}
GRANTEE = Grantee("default", OPENID, "paid")


@counting
async def test_a_user_without_grants_gets_nothing_until_the_next_one(wechat: Opened) -> None:
    grants, send = wechat.registry.wechat_grants, wechat.channel.attempt
    wechat.fake.grants[OPENID, "paid"] = 1
    await grants.add(GRANTEE, at=NOW)
    assert (await send(request(SUBSCRIBED))).kind is OutcomeKind.DELIVERED
    assert await grants.get(GRANTEE) == 0
    outcome = await send(request(SUBSCRIBED))
    assert (outcome.kind, outcome.reason, outcome.suppress) == (OutcomeKind.REJECTED, "no grant", ())
    assert len(wechat.fake.accepted) == 1
    assert (await send(request())).kind is OutcomeKind.DELIVERED, "a template message needs none"


@counting
async def test_a_user_of_whom_nothing_is_known_is_tried(wechat: Opened) -> None:
    grants, send = wechat.registry.wechat_grants, wechat.channel.attempt
    assert (await send(request(SUBSCRIBED))).kind is OutcomeKind.DELIVERED
    assert await grants.get(GRANTEE) is None
    wechat.fake.grants[OPENID, "paid"] = 0
    assert (await send(request(SUBSCRIBED))).reason == "WeChat 43101"
    assert await grants.get(GRANTEE) == 0
    assert (await send(request(SUBSCRIBED))).reason == "no grant"


@counting
async def test_one_long_term_grant_is_for_all_messages(wechat: Opened) -> None:
    await wechat.registry.wechat_grants.add(GRANTEE, at=NOW)
    for _ in range(3):
        outcome = await wechat.channel.attempt(request({**SUBSCRIBED, "long_term": True}))
        assert outcome.kind is OutcomeKind.DELIVERED


async def test_without_callbacks_a_user_is_tried_each_time(wechat: Opened) -> None:
    wechat.fake.grants[OPENID, "paid"] = 0
    for _ in range(2):
        assert (await wechat.channel.attempt(request(SUBSCRIBED))).reason == "WeChat 43101"
    wechat.fake.grants[OPENID, "paid"] = 1
    assert (await wechat.channel.attempt(request(SUBSCRIBED))).kind is OutcomeKind.DELIVERED


async def test_all_workers_share_one_token_and_none_is_forced(wechat: Opened) -> None:
    both = (wechat.channel, wechat.other)
    await asyncio.gather(*(each.attempt(request()) for each in both for _ in range(5)))
    assert (len(wechat.fake.accepted), len(wechat.fake.tokens.issued), wechat.fake.forced) == (10, 1, 0)


async def test_a_token_that_dies_is_replaced_once_by_force_without_costing_an_attempt(wechat: Opened) -> None:
    both = (wechat.channel, wechat.other)
    await asyncio.gather(*(each.attempt(request()) for each in both))
    wechat.fake.tokens.revoke()  # stable_token goes on answering with it
    outcomes = await asyncio.gather(*(each.attempt(request()) for each in (*both, *both)))
    assert {outcome.reason for outcome in outcomes} == {"WeChat 0"}
    assert (len(wechat.fake.tokens.issued), wechat.fake.forced) == (2, 1)


async def test_tokens_that_die_all_the_time_do_not_use_up_the_days_quota(wechat: Opened) -> None:
    for _ in range(5):
        await wechat.channel.attempt(request())
        wechat.fake.tokens.revoke()
    outcome = await wechat.channel.attempt(request())
    assert (outcome.kind, outcome.fault) == (OutcomeKind.DEFERRED, Fault.OPERATOR)
    assert outcome.reason == "WeChat token: WeChat rejects its own token"
    assert wechat.fake.forced == 1


async def test_a_token_is_forced_again_after_a_while(wechat: Opened) -> None:
    times = iter([0.0, 100.0, 5000.0])
    async with opened(wechat.registry) as parts:
        tokens = WechatTokens(parts.session, wechat.account, clock=lambda: next(times))
        tokens.rejected = (await tokens.issue()).token
        tokens.rejected = (await tokens.issue()).token
        with pytest.raises(Exception, match="rejects its own token"):
            await tokens.issue()
        assert (await tokens.issue()).token != tokens.rejected
    assert wechat.fake.forced == 2


async def test_an_account_that_gets_the_name_of_another_gets_a_token_of_its_own(wechat: Opened) -> None:
    await wechat.channel.attempt(request())
    async with FakeWechat() as fake, opened(wechat.registry) as parts:
        fake.app_id = "wxanother"
        given = accounts({"wechat": {"app_id": fake.app_id, "secret": "s", "url": fake.url}}, s=fake.secret).wechat
        outcome = await WechatChannel(parts, given).attempt(request())
        assert (outcome.kind, fake.tokens.requests) == (OutcomeKind.DELIVERED, 1)
        assert not set(fake.tokens.issued) & set(wechat.fake.tokens.issued)


async def test_a_wrong_secret_is_the_operators_to_fix(wechat: Opened) -> None:
    wechat.fake.secret = "another"
    outcome = await wechat.channel.attempt(request())
    assert (outcome.kind, outcome.fault, outcome.reason) == (
        OutcomeKind.DEFERRED,
        Fault.OPERATOR,
        "WeChat token: WeChat 40125",
    )


async def test_an_account_that_the_file_lacks_is_the_operators_to_add(wechat: Opened) -> None:
    outcome = await wechat.channel.attempt(request({**TARGET, "account": "other"}))
    assert (outcome.kind, outcome.reason) == (OutcomeKind.DEFERRED, "no WeChat account other")


async def test_a_suppressed_user_gets_nothing(wechat: Opened) -> None:
    suppressed = {f"default/{OPENID}": SuppressionReason.BOUNCED}
    outcome = await wechat.channel.attempt(replace(request(), suppressed=suppressed))
    assert outcome.reason == "recipient suppressed: bounced"
    assert wechat.fake.requests == 0


async def test_nothing_secret_is_shown(wechat: Opened) -> None:
    keep = keeping_exchanges(wechat.channel.attempt, KeepExchanges.ALL)
    first = await keep(request())
    wechat.fake.script(Answer(body={"errcode": 48001, "errmsg": f"access_token={wechat.fake.tokens.issued[0]}"}))
    second = await keep(request())
    shown = f"{first!r}{second.model_dump_json(exclude={'response'})}{first.exchanges}{second.exchanges}"
    assert first.exchanges
    assert wechat.fake.secret not in shown
    assert wechat.fake.tokens.issued[0] not in shown


FIELDS = {
    "thing1": ("一" * 25, "一" * 19 + "…"),
    "thing2": ("two\nlines", "two lines"),
    "thing3": (None, "-"),
    "phrase4": ("配送中请稍候", "配送中请稍"),
    "character_string5": ("A" * 40, "A" * 29 + "..."),
    "name6": ("张" * 12, "张" * 9 + "…"),
    "name7": ("x" * 30, "x" * 19 + "…"),
    "number8": (42, "42"),
    "time9": ("2026-11-29T16:00:00Z", "2026-11-30 00:00:00"),
    "date10": ("2026年11月29日", "2026年11月29日"),
    "amount11": ("¥19.90", "¥19.90"),
}


async def test_values_are_cut_by_the_type_of_their_field(wechat: Opened) -> None:
    source = "{" + ", ".join(f'"{name}": {{{{ data.{name} }}}}' for name in FIELDS) + "}"
    data = {name: given for name, (given, _) in FIELDS.items()}
    outcome = await wechat.channel.attempt(request(templates={"wechat.json": source}, data=data))
    assert outcome.reason == "WeChat 0"
    (message,) = wechat.fake.contents(OPENID)
    assert message["data"] == {name: {"value": expected} for name, (_, expected) in FIELDS.items()}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ('{"amount1": {{ data.order * 20 }}}', "amount1 has more than the 16 characters"),
        ('{"{{ 1 }}x": 1}', "template wechat.json"),
        ('{"thing1": {{ data }}}', "thing1 must be a text or a number"),
        ("[1]", "must write an object"),
    ],
)
async def test_a_field_that_cannot_be_cut_is_not_sent(wechat: Opened, source: str, reason: str) -> None:
    outcome = await wechat.channel.attempt(request(templates={"wechat.json": source}))
    assert outcome.kind is OutcomeKind.DEFERRED
    assert reason in outcome.reason
    assert wechat.fake.requests == 0


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('{"thong1": {{ data.order }}}', "unknown field 'thong1'"),
        ('{"thing": 1}', "unknown field 'thing'"),
        ('{"phrase1": "已经付款完成了"}', "phrase1 has 7 characters, WeChat allows 5"),
        ('{"name1": "张张张张张张张张张张张"}', "name1 has 11 characters, WeChat allows 10"),
        ('{"name1": "xxxxxxxxxxxxxxxxxxxxx"}', "name1 has 21 characters, WeChat allows 20"),
        ('{% if data.a %}{"thing1": {{ data.x }}}{% else %}{"thong1": 1}{% endif %}', "unknown field 'thong1'"),
    ],
)
def test_a_template_is_checked_when_it_is_made(source: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        subscription(TARGET, templates={"wechat.json": source})


def test_a_template_may_be_written_with_escapes() -> None:
    longest = {"phrase1": "已付款完成", "name2": "张" * 10, "thing3": "😀" * 20}
    subscription(TARGET, templates={"wechat.json": json.dumps(longest)})
    with pytest.raises(ValidationError, match="phrase1 has 6 characters"):
        subscription(TARGET, templates={"wechat.json": json.dumps({"phrase1": "已经付款完成"})})


@pytest.mark.parametrize(
    "more",
    [
        {"openid": "a b"},
        {"kind": "miniprogram", "url": "https://x.example"},
        {"kind": "template", "page": "index"},
        {"kind": "subscription", "page": "index", "url": "https://x.example"},
    ],
)
def test_a_target_that_wechat_would_refuse_is_invalid(more: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        subscription({**TARGET, **more})


def test_the_quota_begins_again_at_midnight_in_china() -> None:
    assert until_next_day(datetime(2026, 11, 29, 15, 59, tzinfo=UTC)) == 120
    assert until_next_day(datetime(2026, 11, 29, 16, 0, tzinfo=UTC)) == 86_460


def test_a_template_of_the_operator_is_checked_at_start(tmp_path: Path) -> None:
    (tmp_path / "order.paid").mkdir()
    (tmp_path / "order.paid" / "wechat.json").write_text('{"thong1": {{ data.order }}}')
    with pytest.raises(TemplateInvalid, match=r"order\.paid/wechat\.json: unknown field 'thong1'"):
        Renderer(tmp_path).check()


def test_the_address_tells_accounts_apart() -> None:
    assert WechatTarget(openid="o1", template_id="t", account="shop").address == "shop/o1"
