"""Aliyun and Tencent Cloud: codes, templates, lost responses and failover, with fakes over HTTP and a real registry."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs
from temporalio.testing import ActivityEnvironment

from activities.rendering.renderer import Renderer
from activities.sending.channel_sender import ChannelSender
from activities.sms.channel import NO_PROVIDER, SmsChannel
from activities.sms.mainland import aliyun as aliyun_module
from activities.sms.mainland import tencent as tencent_module
from activities.sms.mainland.aliyun import AliyunProvider
from activities.sms.mainland.config import AliyunConfig, TencentConfig
from activities.sms.mainland.meanings import seconds_until
from activities.sms.mainland.signatures import AccessKey
from activities.sms.mainland.tencent import TencentProvider
from activities.sms.provider_config import ProvidersFile
from activities.sms.providers import UNKNOWN_REASON, Provider, Providers
from activities.sms.twilio import TwilioProvider, twilio_client
from bellwire.contract import Chunk, Group
from bellwire.deliveries import DeliveryState, Fault, OutcomeKind
from bellwire.registry import Registry
from bellwire.suppressions import SuppressionReason, by_sender
from bellwire.targets import Channel
from starter.local.receivers.providers import aliyun_sms, tencent_sms
from starter.local.receivers.providers.aliyun_sms import FakeAliyunSms
from starter.local.receivers.providers.fake import Answer
from starter.local.receivers.providers.tencent_sms import FakeTencentSms
from starter.local.receivers.twilio import FakeTwilio, SmsResponse
from tests.factories import event, subscription

TO, NATIONAL, SIGN = "+8613900001234", "13900001234", "贝尔"
SUBSCRIPTION = subscription({"channel": "sms", "to": TO}, id="sub_sms")
HAPPENED = event(id="1")
GROUP = Group(event_key=HAPPENED.key, channel=Channel.SMS, subscription_ids=(SUBSCRIPTION.id,))
LOST = [Answer(accept=True, reset=True), Answer(accept=True, never=True), Answer(accept=True, status=502, body="proxy")]
KINDS = ["aliyun", "tencent"]


class Setting(NamedTuple):
    """Both providers, and a registry with one delivery."""

    registry: Registry
    aliyun: FakeAliyunSms
    tencent: FakeTencentSms
    twilio: FakeTwilio
    session: aiohttp.ClientSession

    def provider(self, kind: str, **changes: Any) -> Provider:
        common: dict[str, Any] = {"sign_name": SIGN, "timeout": 1.0, "absent_after": 0, **changes}
        if kind == "aliyun":
            templates = {HAPPENED.type: {"template": "SMS_1", "params": {"id": "No. {id}", "source": "{source}"}}}
            config: dict[str, Any] = {
                "access_key_id": self.aliyun.access_key_id,
                "access_key_secret": "BELLWIRE_SMS_SECRETS__A",
            }
            config |= {"url": self.aliyun.url, "templates": templates, **common}
            described = AliyunConfig.model_validate(config)
            key = AccessKey(id=self.aliyun.access_key_id, secret=FakeAliyunSms.secret)
            return AliyunProvider(described, self.session, self.registry.attempts, key=key)
        if kind == "tencent":
            config = {"secret_id": self.tencent.secret_id, "secret_key": "BELLWIRE_SMS_SECRETS__T"}
            config |= {"app_id": self.tencent.app_id, "url": self.tencent.url, **common}
            config = {"templates": {"default": {"template": "1110", "params": ["No. {id}", "{source}"]}}, **config}
            tencent = TencentConfig.model_validate(config)
            key = AccessKey(id=self.tencent.secret_id, secret=FakeTencentSms.secret)
            return TencentProvider(tencent, self.session, self.registry.attempts, key=key)
        client = twilio_client(
            self.twilio.account_sid, self.twilio.auth_token, url=self.twilio.url, timeout=1.0, session=self.session
        )
        return TwilioProvider(client, self.registry.attempts, sender="+14155550100")

    def fake(self, kind: str) -> FakeAliyunSms | FakeTencentSms:
        return self.aliyun if kind == "aliyun" else self.tencent

    async def run(self, *kinds: str, attempt: int = 1, **changes: Any) -> Any:
        """One attempt by another worker, which shares no memory with others."""
        providers = Providers([self.provider(kind, **changes) for kind in kinds])
        channel = SmsChannel(self.registry, providers, Renderer(), reconcile_after=0.0, max_segments=10)
        await ActivityEnvironment().run(
            ChannelSender(Channel.SMS, channel.attempt, self.registry, concurrency=5).send,
            Chunk(groups=(GROUP.model_copy(update={"attempt": attempt}),), schedule=(1.0,) * 9),
        )
        return (await self.registry.attempts.list(HAPPENED.key))[attempt - 1]

    async def suppressed(self, *scopes: str) -> dict[str, SuppressionReason]:
        return await self.registry.suppressions.among(Channel.SMS, [TO], subscription_id="another", also_for=scopes)


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    registry = await Registry.open(f"sqlite:///{tmp_path / 'registry.db'}")
    await registry.migrate()
    await registry.subscriptions.create(SUBSCRIPTION)
    await registry.events.accept([HAPPENED], "run")
    await registry.deliveries.add("run", [GROUP])
    async with (
        FakeAliyunSms() as aliyun,
        FakeTencentSms() as tencent,
        FakeTwilio() as twilio,
        aiohttp.ClientSession() as session,
    ):
        yield Setting(registry, aliyun, tencent, twilio, session)
    await registry.close()


async def test_aliyun_gets_named_parameters(setting: Setting) -> None:
    made = await setting.run("aliyun")
    (sms,) = setting.aliyun.accepted
    assert (made.state, made.outcome.reason) == (DeliveryState.DELIVERED, "aliyun OK")
    assert (made.outcome.provider_id, made.outcome.sms.provider) == (sms.id, "aliyun")
    assert (sms.recipient, sms.content["SignName"], sms.content["TemplateCode"]) == (NATIONAL, SIGN, "SMS_1")
    assert sms.content["TemplateParam"] == f'{{"id": "No. 1", "source": "{HAPPENED.source}"}}'


async def test_tencent_gets_ordered_parameters(setting: Setting) -> None:
    made = await setting.run("tencent")
    (sms,) = setting.tencent.accepted
    assert (made.state, made.outcome.reason) == (DeliveryState.DELIVERED, "tencent Ok")
    assert (made.outcome.provider_id, made.outcome.sms.reported_segments) == (sms.id, 2)
    assert sms.content["TemplateParamSet"] == ["No. 1", HAPPENED.source]
    assert (sms.recipient, sms.content["SignName"], sms.content["TemplateId"]) == (TO, SIGN, "1110")


@pytest.mark.parametrize("kind", KINDS)
async def test_unusual_characters_arrive_as_they_were_signed(setting: Setting, kind: str) -> None:
    text = "贝尔 é+~*/%=&?#'\"😀"
    params = {"a": text} if kind == "aliyun" else [text]
    made = await setting.run(kind, sign_name="贝 +~*", templates={"default": {"template": "1", "params": params}})
    assert made.state is DeliveryState.DELIVERED
    content = setting.fake(kind).accepted[0].content
    assert content["SignName"] == "贝 +~*"
    given = json.loads(content["TemplateParam"])["a"] if kind == "aliyun" else content["TemplateParamSet"][0]
    assert given == text


@pytest.mark.parametrize("kind", KINDS)
async def test_wrong_key_is_the_operators_problem_and_does_not_appear(setting: Setting, kind: str) -> None:
    setting.fake(kind).secret = "another-secret"
    with capture_logs() as logs:
        made = await setting.run(kind)
    assert (made.state, made.outcome.fault) == (DeliveryState.WAITING, Fault.OPERATOR)
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["sms.blocked"]
    assert "-secret" not in f"{made!r}{logs}"
    assert setting.fake(kind).accepted == []


def codes() -> list[tuple[str, str, Answer]]:
    of_aliyun = [("aliyun", code, aliyun_sms.refused(code)) for code in aliyun_module.BY_CODE]
    of_numbers = [("tencent", code, tencent_sms.refused(code)) for code in tencent_module.BY_CODE]
    of_requests = [("tencent", code, tencent_sms.failed(code)) for code in tencent_module.BY_CODE]
    return [*of_aliyun, *of_numbers, *of_requests]


@pytest.mark.parametrize(("kind", "code", "answer"), codes())
async def test_each_code_has_its_outcome(setting: Setting, kind: str, code: str, answer: Answer) -> None:
    table = aliyun_module.BY_CODE if kind == "aliyun" else tencent_module.BY_CODE
    setting.fake(kind).script(answer)
    outcome = (await setting.run(kind)).outcome
    assert outcome.kind is table[code].kind
    if outcome.kind is not OutcomeKind.UNKNOWN:
        assert outcome.reason == f"{kind} {code}"
    known = await setting.suppressed(by_sender(SIGN))
    assert known == ({TO: table[code].suppress} if table[code].suppress else {})


@pytest.mark.parametrize(
    ("kind", "answer", "expected"),
    [
        ("aliyun", aliyun_sms.refused("isv.BUSINESS_LIMIT_CONTROL", "触发分钟级流控Permits:1"), 60),
        ("aliyun", aliyun_sms.refused("isv.BUSINESS_LIMIT_CONTROL", "触发小时级流控Permits:5"), 3600),
        ("aliyun", aliyun_sms.refused("isv.BUSINESS_LIMIT_CONTROL", "触发天级流控Permits:10"), None),
        ("tencent", tencent_sms.refused("LimitExceeded.PhoneNumberThirtySecondLimit"), 30),
        ("tencent", tencent_sms.refused("LimitExceeded.PhoneNumberDailyLimit"), None),
        ("tencent", tencent_sms.failed("RequestLimitExceeded"), 1),
    ],
)
async def test_limits_are_waited_for(setting: Setting, kind: str, answer: Answer, expected: float | None) -> None:
    setting.fake(kind).script(answer)
    outcome = (await setting.run(kind)).outcome
    seconds = seconds_until(0, datetime.now(UTC)) if expected is None else expected
    assert outcome.kind is OutcomeKind.DEFERRED
    assert outcome.retry_after == pytest.approx(seconds, abs=30 if expected is None else 0)


async def test_marketing_waits_for_the_morning_in_china(setting: Setting) -> None:
    setting.tencent.script(tencent_sms.refused("FailedOperation.MarketingSendTimeConstraint"))
    made = await setting.run("tencent")
    due = datetime.now(UTC) + timedelta(seconds=made.delay)
    assert abs(due.replace(hour=0, minute=0, second=0) - due) < timedelta(seconds=30)  # 08:00 in Shanghai
    assert (made.state, made.outcome.fault) == (DeliveryState.WAITING, Fault.PROVIDER)


@pytest.mark.parametrize(
    ("kind", "answer", "expected"),
    [
        ("aliyun", aliyun_sms.refused("isv.SOMETHING_NEW"), OutcomeKind.DEFERRED),
        ("aliyun", aliyun_sms.refused("isp.SOMETHING_NEW"), OutcomeKind.UNKNOWN),
        ("aliyun", aliyun_sms.refused("Throttling.User", status=400), OutcomeKind.DEFERRED),
        ("aliyun", aliyun_sms.refused("isv.ACCOUNT_SOMETHING"), OutcomeKind.DEFERRED),
        ("aliyun", aliyun_sms.refused("isv.MOBILE_NUMBER_ILLEGAL", status=502), OutcomeKind.UNKNOWN),
        ("aliyun", Answer(body="OK"), OutcomeKind.UNKNOWN),
        ("aliyun", Answer(body={"Code": "OK"}), OutcomeKind.UNKNOWN),
        ("tencent", tencent_sms.refused("FailedOperation.SomethingNew"), OutcomeKind.UNKNOWN),
        ("tencent", tencent_sms.failed("UnauthorizedOperation.SmsSdkAppIdVerifyFail"), OutcomeKind.DEFERRED),
        ("tencent", Answer(body={"Response": {"SendStatusSet": []}}), OutcomeKind.UNKNOWN),
        ("tencent", Answer(body={"Response": {"SendStatusSet": [{"Code": "Ok"}]}}), OutcomeKind.UNKNOWN),
        ("tencent", Answer(status=500, body="error"), OutcomeKind.UNKNOWN),
    ],
)
async def test_what_is_not_known_is_never_taken_for_a_refusal(
    setting: Setting, kind: str, answer: Answer, expected: OutcomeKind
) -> None:
    setting.fake(kind).script(answer)
    assert (await setting.run(kind)).outcome.kind is expected
    assert not await setting.suppressed()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lost", LOST)
async def test_a_lost_response_is_reconciled_and_nothing_is_sent_again(
    setting: Setting, kind: str, lost: Answer
) -> None:
    fake = setting.fake(kind)
    fake.script(lost)
    first = await setting.run(kind)
    assert (first.state, first.outcome.reason) == (DeliveryState.WAITING, UNKNOWN_REASON)
    second = await setting.run(kind, attempt=2)
    assert (second.state, second.outcome.reason) == (DeliveryState.DELIVERED, f"{kind} has it, reconciled")
    assert (len(fake.accepted), fake.requests, fake.duplicates) == (1, 1, 0)


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_not_listed_yet_stays_unknown_and_goes_to_no_other_provider(setting: Setting, kind: str) -> None:
    setting.aliyun.listed = setting.tencent.reported = False
    fake = setting.fake(kind)
    fake.script(Answer(accept=True, reset=True))
    others = [each for each in (*KINDS, "twilio") if each != kind]
    await setting.run(kind, *others, absent_after=3600)
    second = await setting.run(kind, *others, attempt=2, absent_after=3600)
    assert (second.outcome.kind, second.state) == (OutcomeKind.UNKNOWN, DeliveryState.WAITING)
    assert second.outcome.retry_after == pytest.approx(3600, abs=30)
    setting.aliyun.listed = setting.tencent.reported = True
    assert (await setting.run(kind, *others, attempt=3, absent_after=3600)).state is DeliveryState.DELIVERED
    assert (len(setting.aliyun.accepted) + len(setting.tencent.accepted), setting.twilio.posts) == (1, 0)


async def test_an_unknown_answer_of_twilio_goes_to_neither(setting: Setting) -> None:
    setting.twilio.script(TO, SmsResponse(accept=True, reset=True))
    first = await setting.run("twilio", *KINDS)
    assert (first.state, first.outcome.reason) == (DeliveryState.WAITING, UNKNOWN_REASON)
    second = await setting.run("twilio", *KINDS, attempt=2)
    assert (second.state, second.outcome.sms.provider) == (DeliveryState.DELIVERED, "twilio")
    assert (len(setting.twilio.messages), setting.aliyun.requests, setting.tencent.requests) == (1, 0, 0)


@pytest.mark.parametrize("kind", KINDS)
async def test_what_was_certainly_not_sent_is_sent(setting: Setting, kind: str) -> None:
    fake = setting.fake(kind)
    fake.script(Answer(reset=True))
    await setting.run(kind)
    assert (await setting.run(kind, attempt=2)).state is DeliveryState.DELIVERED
    assert (fake.requests, len(fake.accepted), fake.queries >= 1) == (2, 1, True)


async def test_a_failed_query_says_nothing(setting: Setting) -> None:
    setting.aliyun.script(Answer(reset=True))
    await setting.run("aliyun")
    setting.aliyun.query_script = [aliyun_sms.refused("isp.SYSTEM_ERROR")]
    assert (await setting.run("aliyun", attempt=2)).outcome.kind is OutcomeKind.UNKNOWN
    setting.aliyun.query_script = [Answer(body={"Code": "OK"})]
    assert (await setting.run("aliyun", attempt=3)).outcome.kind is OutcomeKind.UNKNOWN
    assert setting.aliyun.requests == 1


async def test_reports_of_tencent_without_a_context_count(setting: Setting) -> None:
    setting.tencent.with_context = False
    setting.tencent.script(Answer(accept=True, reset=True))
    await setting.run("tencent")
    made = await setting.run("tencent", attempt=2)
    assert (made.state, made.outcome.provider_id) == (DeliveryState.DELIVERED, setting.tencent.accepted[0].id)


async def test_reconciling_finds_a_number_that_does_not_exist(setting: Setting) -> None:
    setting.aliyun.script(Answer(accept=True, reset=True))
    await setting.run("aliyun")
    setting.aliyun.statuses[setting.aliyun.accepted[0].key] = (2, "MK:0001")
    assert (await setting.run("aliyun", attempt=2)).state is DeliveryState.REJECTED
    assert await setting.suppressed() == {TO: SuppressionReason.BOUNCED}


async def test_failover_from_twilio_to_aliyun_to_tencent(setting: Setting) -> None:
    setting.twilio.script(TO, SmsResponse(status=503))
    setting.aliyun.script(aliyun_sms.refused("isv.AMOUNT_NOT_ENOUGH"))
    with capture_logs() as logs:
        made = await setting.run("twilio", "aliyun", "tencent")
    assert (made.state, made.outcome.sms.provider) == (DeliveryState.DELIVERED, "tencent")
    assert [line["provider"] for line in logs if line["event"] == "sms.failed_over"] == ["twilio", "aliyun"]
    assert (len(setting.twilio.messages), len(setting.aliyun.accepted), len(setting.tencent.accepted)) == (0, 0, 1)


@pytest.mark.parametrize(
    ("kind", "code"),
    [("aliyun", "isv.ACCOUNT_ABNORMAL"), ("aliyun", "isv.ACCOUNT_ARREARS"), ("aliyun", "isv.DAY_LIMIT_CONTROL")]
    + [("tencent", f"LimitExceeded.{name}") for name in ("AppDailyLimit", "AppCountryOrRegionInBlacklist")]
    + [("tencent", f"UnauthorizedOperation.{name}") for name in ("RequestIpNotInWhitelist", "SdkAppIdIsDisabled")]
    + [("tencent", "AuthFailure.SignatureExpire"), ("tencent", "InternalError.SigVerificationFail")],
)
async def test_an_account_that_can_send_nothing_is_reported_and_the_next_one_sends(
    setting: Setting, kind: str, code: str
) -> None:
    (other,) = (each for each in KINDS if each != kind)
    setting.fake(kind).script(aliyun_sms.refused(code) if kind == "aliyun" else tencent_sms.failed(code))
    with capture_logs() as logs:
        made = await setting.run(kind, other)
    assert (made.state, made.outcome.sms.provider) == (DeliveryState.DELIVERED, other)
    assert [line["reason"] for line in logs if line["event"] == "sms.failed_over"] == [f"{kind} {code}"]


async def test_a_provider_without_a_template_is_left_out(setting: Setting) -> None:
    other = {"other.type": {"template": "SMS_1"}}
    made = await setting.run("aliyun", "twilio", templates=other)
    assert (made.outcome.sms.provider, setting.aliyun.requests) == ("twilio", 0)


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"templates": {"other.type": {"template": "SMS_1"}}}, "aliyun: no template is mapped to this event type"),
        ({"numbers": ["+852"]}, "aliyun: does not send to this country"),
        ({"templates": {"default": {"template": "1", "params": {"a": "{data.no}"}}}}, "aliyun: data.no is missing"),
    ],
)
async def test_an_sms_that_none_can_send_is_the_operators_problem(
    setting: Setting, changes: dict[str, Any], detail: str
) -> None:
    with capture_logs() as logs:
        made = await setting.run("aliyun", **changes)
    assert (made.state, made.outcome.reason, made.outcome.response) == (DeliveryState.WAITING, NO_PROVIDER, detail)
    assert [line["detail"] for line in logs if line["event"] == "sms.blocked"] == [detail]
    assert setting.aliyun.requests == 0


FILE = """
priority = ["aliyun", "tencent", "twilio"]

[[aliyun]]
access_key_id = "LTAI1"
access_key_secret = "BELLWIRE_SMS_SECRETS__ALIYUN"
sign_name = "贝尔"

[aliyun.templates."order.paid"]
template = "SMS_154950909"
params = {order = "{data.order}", total = "{data.total} {data.currency}"}

[[tencent]]
secret_id = "AKID1"
secret_key = "BELLWIRE_SMS_SECRETS__TENCENT"
app_id = "1400006666"
sign_name = "贝尔"

[tencent.templates.default]
template = "1110"
params = ["{text}"]
"""


def test_the_file_has_sections_for_both(tmp_path: Path) -> None:
    file = tmp_path / "providers.toml"
    file.write_text(FILE)
    read = ProvidersFile.read(file)
    assert (read.aliyun[0].name, read.tencent[0].templates["default"].params) == ("aliyun", ("{text}",))


@pytest.mark.parametrize(
    ("found", "replacement", "message"),
    [
        ("{data.order}", "{{ data.order }}", "is not a variable"),
        ('"BELLWIRE_SMS_SECRETS__ALIYUN"', '"PATH"', "must name an environment variable"),
        ('priority = ["aliyun", "tencent", "twilio"]', 'priority = ["tencent"]', "must name each of"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path: Path, found: str, replacement: str, message: str) -> None:
    file = tmp_path / "providers.toml"
    file.write_text(FILE.replace(found, replacement))
    with pytest.raises((ValueError, ValidationError), match=message):
        ProvidersFile.read(file)
