"""WeCom, DingTalk and Feishu: applications with access tokens, against servers that answer as the providers do."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from activities.chat.opening import open_chat
from activities.sending.attempt import ChannelAttempt
from activities.sending.exchanges import keeping_exchanges
from bellwire.deliveries import Fault, OutcomeKind
from bellwire.exchanges import KeepExchanges
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.suppressions import SuppressionReason
from bellwire.targets import Channel
from starter.local.receivers.providers.dingtalk import FakeDingtalk
from starter.local.receivers.providers.fake import Answer, FakeProvider
from starter.local.receivers.providers.feishu import FakeFeishu
from starter.local.receivers.providers.wecom import FakeWecom
from tests.activities.chat.channels import HOSTILE, accounts_of, opened, request_for

USER = "user-42"
TARGETS: dict[str, dict[str, Any]] = {
    "wecom": {"channel": "wecom", "user": USER},
    "dingtalk": {"channel": "dingtalk", "user": USER},
    "feishu": {"channel": "feishu", "receive_id": USER},
}
FAKES: dict[str, type[FakeProvider]] = {"wecom": FakeWecom, "dingtalk": FakeDingtalk, "feishu": FakeFeishu}
#: What an accepted message is called in a reason, by provider.
ACCEPTED = {"wecom": "WeCom 0", "dingtalk": "DingTalk accepted", "feishu": "Feishu 0"}
CODE_FIELD = {"wecom": "errcode", "dingtalk": "errcode", "feishu": "code"}


class Opened(NamedTuple):
    name: str
    fake: Any
    attempt: ChannelAttempt
    #: The same channel of another worker, with the same registry.
    other: ChannelAttempt

    def request(self, **fields: Any) -> SendRequest:
        return request_for(TARGETS[self.name], **fields)


@pytest.fixture(params=sorted(FAKES))
async def chat(request: pytest.FixtureRequest, registry: Registry) -> AsyncIterator[Opened]:
    async with FAKES[request.param]() as fake, opened(registry) as parts:
        one, other = (open_chat(accounts_of(fake), parts)[Channel(request.param)].attempt for _ in range(2))
        yield Opened(request.param, fake, one, other)


async def test_a_message_is_sent_with_the_token_of_the_account(chat: Opened) -> None:
    outcome = await chat.attempt(chat.request())
    assert outcome.reason == ACCEPTED[chat.name]
    assert outcome.provider_id
    assert len(chat.fake.contents(USER)) == 1
    assert "42" in str(chat.fake.contents(USER)[0])


async def test_all_workers_share_one_token(chat: Opened) -> None:
    await asyncio.gather(*(attempt(chat.request()) for attempt in (chat.attempt, chat.other) for _ in range(5)))
    assert len(chat.fake.accepted) == 10
    assert len(chat.fake.tokens.issued) == 1


async def test_a_token_that_dies_is_replaced_once_without_costing_an_attempt(chat: Opened) -> None:
    await asyncio.gather(chat.attempt(chat.request()), chat.other(chat.request()))
    chat.fake.tokens.revoke()
    outcomes = await asyncio.gather(*(each(chat.request()) for each in (chat.attempt, chat.other, chat.attempt)))
    assert {outcome.reason for outcome in outcomes} == {ACCEPTED[chat.name]}
    assert len(chat.fake.tokens.issued) == 2


@pytest.mark.parametrize("answer", [Answer(never=True), Answer(status=500)])
async def test_a_lost_request_for_a_token_has_sent_nothing(chat: Opened, answer: Answer) -> None:
    chat.fake.tokens.script.append(answer)
    outcome = await chat.attempt(chat.request())
    assert (outcome.kind, outcome.fault) == (OutcomeKind.DEFERRED, Fault.PROVIDER)
    assert (await chat.other(chat.request())).reason == ACCEPTED[chat.name]
    assert len(chat.fake.accepted) == 1


@pytest.mark.parametrize("code", [None, "0"])
async def test_the_code_of_a_token_may_be_written_otherwise(chat: Opened, code: str | None) -> None:
    named = "tenant_access_token" if chat.name == "feishu" else "access_token"
    token, code_field = chat.fake.tokens.issue(), CODE_FIELD[chat.name]
    chat.fake.tokens.script.append(Answer(body={code_field: code, named: token, "expires_in": "7200"}))
    assert (await chat.attempt(chat.request())).reason == ACCEPTED[chat.name]


async def test_a_wrong_secret_may_have_its_code_as_a_text(chat: Opened) -> None:
    chat.fake.tokens.script.append(Answer(body={CODE_FIELD[chat.name]: "40013"}))
    outcome = await chat.attempt(chat.request())
    assert (outcome.kind, outcome.fault) == (OutcomeKind.DEFERRED, Fault.OPERATOR)


async def test_too_many_requests_for_a_token_pass(chat: Opened) -> None:
    code = {"wecom": 45009, "dingtalk": 90018, "feishu": 99991400}[chat.name]
    chat.fake.tokens.script.append(Answer(body={CODE_FIELD[chat.name]: code}))
    outcome = await chat.attempt(chat.request())
    assert (outcome.kind, outcome.fault, str(code) in outcome.reason) == (OutcomeKind.DEFERRED, Fault.PROVIDER, True)
    assert outcome.retry_after is not None


async def test_a_wrong_secret_is_the_operators_to_fix(chat: Opened) -> None:
    if chat.name == "wecom":
        chat.fake.secret = "another"
    else:
        chat.fake.app_secret = "another"
    outcome = await chat.attempt(chat.request())
    assert (outcome.kind, outcome.fault) == (OutcomeKind.DEFERRED, Fault.OPERATOR)
    assert chat.fake.accepted == []


@pytest.mark.parametrize("answer", [Answer(accept=True, reset=True), Answer(accept=True, never=True)])
async def test_a_lost_answer_is_unknown(chat: Opened, answer: Answer) -> None:
    chat.fake.script(answer)
    assert (await chat.attempt(chat.request())).kind is OutcomeKind.UNKNOWN


@pytest.mark.parametrize("answer", [Answer(status=502, body="<html>Bad gateway"), Answer(status=500, body="")])
async def test_an_outage_is_deferred(chat: Opened, answer: Answer) -> None:
    chat.fake.script(answer)
    outcome = await chat.attempt(chat.request())
    assert (outcome.kind, outcome.fault) == (OutcomeKind.DEFERRED, Fault.PROVIDER)


@pytest.mark.parametrize(
    ("name", "code", "kind", "fault"),
    [
        ("wecom", 60111, "rejected", "receiver"),
        ("wecom", 81013, "rejected", "receiver"),
        ("wecom", 45009, "deferred", "provider"),
        ("wecom", 45002, "rejected", "operator"),
        ("wecom", 60020, "deferred", "operator"),
        ("dingtalk", 33012, "rejected", "receiver"),
        ("dingtalk", 143103, "deferred", "provider"),
        ("dingtalk", 88, "deferred", "operator"),
        ("feishu", 230013, "rejected", "receiver"),
        ("feishu", 230020, "deferred", "provider"),
        ("feishu", 230006, "deferred", "operator"),
    ],
)
async def test_a_200_with_another_code_is_no_success(chat: Opened, name: str, code: int, kind: str, fault: str) -> None:
    if name != chat.name:
        return
    chat.fake.script(Answer(body={CODE_FIELD[name]: code, "errmsg": "x", "msg": "x"}))
    outcome = await chat.attempt(chat.request())
    assert (outcome.kind, outcome.fault) == (OutcomeKind(kind), Fault(fault))
    assert [each.address for each in outcome.suppress] == ([f"default/{USER}"] if fault == "receiver" else [])


async def test_nothing_secret_is_shown(chat: Opened) -> None:
    keep = keeping_exchanges(chat.attempt, KeepExchanges.ALL)
    first = await keep(chat.request())
    chat.fake.script(Answer(body={CODE_FIELD[chat.name]: 88, "errmsg": chat.fake.tokens.issued[0]}))
    second = await keep(chat.request())
    shown = "".join(
        f"{outcome.model_dump_json(exclude={'response'})}{outcome.exchanges}" for outcome in (first, second)
    )
    secret = chat.fake.secret if chat.name == "wecom" else chat.fake.app_secret
    assert secret not in shown
    assert chat.fake.tokens.issued[0] not in first.model_dump_json() + str(first.exchanges)


async def test_a_suppressed_member_gets_nothing(chat: Opened) -> None:
    suppressed = {f"default/{USER}": SuppressionReason.OPERATOR}
    outcome = await chat.attempt(replace(chat.request(), suppressed=suppressed))
    assert outcome.reason == "recipient suppressed: operator"
    assert chat.fake.requests == 0


async def test_data_of_an_event_pings_nobody(chat: Opened) -> None:
    await chat.attempt(chat.request(data={"order": HOSTILE, "note": HOSTILE}))
    (message,) = chat.fake.contents(USER)
    if chat.name == "wecom":  # plain text, in which nothing pings
        assert message["msgtype"] == "text"
    else:
        text = str(message.get("card", message)["elements" if chat.name == "feishu" else "msg"])
        assert "<at" not in text
        assert "](https" not in text
