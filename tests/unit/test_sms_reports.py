"""Receipts and replies that Aliyun and Tencent Cloud call back with, honest and hostile, to a gateway with a real registry."""

import asyncio
import io
import socket
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
import uvicorn
from pydantic import ValidationError
from structlog.testing import capture_logs

from bellwire.contract import Group
from bellwire.deliveries import Attempt, DeliveryState, Outcome, OutcomeKind
from bellwire.registry import Registry
from bellwire.service.settings import Settings
from bellwire.sms.mainland import CHINA
from bellwire.sms.receipts import SmsReceipt
from bellwire.suppressions import EVERYWHERE, Suppression, SuppressionReason, by_sender
from bellwire.targets import Channel
from starter.gateway.app import application
from starter.gateway.sms_reports import MAX_BODY, PAGE
from starter.local.receivers.providers.aliyun_sms import FakeAliyunSms
from starter.local.receivers.providers.fake import Received
from starter.local.receivers.providers.tencent_sms import FakeTencentSms
from tests.factories import event, subscription

SECRET = "s3cr3t-of-the-callbacks"
TO, NATIONAL = "+8613900001234", "13900001234"
EVENT = event(id="1")
SUBSCRIPTION = subscription({"channel": "sms", "to": TO}, id="sub_sms")
KINDS = ["aliyun", "tencent"]
OK = {"aliyun": {"code": 0, "msg": "OK"}, "tencent": {"result": 0, "errmsg": "OK"}}
UNKNOWN = {"aliyun": {"code": 1, "msg": "unknown SMS"}, "tencent": {"result": 1, "errmsg": "unknown SMS"}}


class Called(NamedTuple):
    """A gateway with its registry, and an SMS of each provider."""

    registry: Registry
    url: str
    session: aiohttp.ClientSession

    def receipt(self, kind: str, *, sms_id: str = "biz-1", **fields: Any) -> dict[str, Any]:
        if kind == "aliyun":
            return FakeAliyunSms().receipt(Received(recipient=NATIONAL, content={}, id=sms_id), **fields)
        return FakeTencentSms().receipt(Received(recipient=TO, content={}, id=sms_id), **fields)

    async def report(self, kind: str, *receipts: dict[str, Any], secret: str = SECRET) -> tuple[int, Any]:
        url = f"{self.url}/callbacks/sms/{kind}/{secret}"
        fake = FakeAliyunSms() if kind == "aliyun" else FakeTencentSms()
        return await fake.send_receipt(url, *receipts)

    async def report_status(self, kind: str, *receipts: dict[str, Any]) -> int:
        async with self.session.post(f"{self.url}/callbacks/sms/{kind}/{SECRET}", json=receipts) as response:
            return response.status

    async def reply(self, kind: str, text: str, *, at: datetime | None = None, **fields: Any) -> tuple[int, Any]:
        """Somebody answers an SMS of the sign name 贝尔, at this time by the provider's clock."""
        fake = FakeAliyunSms() if kind == "aliyun" else FakeTencentSms()
        if at is not None:
            in_china = at.astimezone(CHINA).strftime("%Y-%m-%d %H:%M:%S")
            fields |= {"send_time": in_china} if kind == "aliyun" else {"time": int(at.timestamp())}
        return await fake.send_reply(f"{self.url}/callbacks/sms/{kind}/{SECRET}", fake.reply(NATIONAL, text, **fields))

    async def record_attempt(self, *provider_ids: str) -> None:
        """One attempt that each of these ids is recorded with."""
        now = datetime.now(UTC)
        attempts = [
            Attempt(
                event_key=EVENT.key,
                subscription_id=SUBSCRIPTION.id,
                number=number,
                started_at=now,
                duration=0.1,
                state=DeliveryState.DELIVERED,
                outcome=Outcome(kind=OutcomeKind.DELIVERED, reason="aliyun OK", provider_id=provider_id),
            )
            for number, provider_id in enumerate(provider_ids or ("biz-1",), 1)
        ]
        await self.registry.attempts.record(attempts)

    async def stored(self) -> SmsReceipt | None:
        found = await self.registry.sms_receipts.of_deliveries(await self.registry.deliveries.list(event_key=EVENT.key))
        return next(iter(found.values()), None)

    async def suppressed(self, *scopes: str) -> dict[str, SuppressionReason]:
        return await self.registry.suppressions.among(Channel.SMS, [TO], subscription_id="another", also_for=scopes)


@pytest.fixture
def callbacks(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Further settings of the callbacks."""
    return getattr(request, "param", {})


@pytest.fixture
async def called(tmp_path: Path, callbacks: dict[str, Any]) -> AsyncIterator[Called]:
    registry = await Registry.open(f"sqlite:///{tmp_path}/registry.db")
    await registry.migrate()
    await registry.subscriptions.create(SUBSCRIPTION)
    await registry.events.accept([EVENT], "run")
    group = Group(event_key=EVENT.key, channel=Channel.SMS, subscription_ids=(SUBSCRIPTION.id,))
    await registry.deliveries.add("run", [group])
    settings = Settings(sms_callback_secret=SECRET, **callbacks)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        config = uvicorn.Config(application(settings, registry), log_config=None, access_log=False, lifespan="off")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve([listening]))
        async with aiohttp.ClientSession() as session:
            yield Called(registry, url, session)
        server.should_exit = True
        await serving
    await registry.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_receipt_is_recorded_and_answered_as_the_provider_wants(called: Called, kind: str) -> None:
    await called.record_attempt()
    assert await called.report(kind, called.receipt(kind)) == (200, OK[kind])
    found = await called.stored()
    assert found is not None
    assert (found.status, found.provider_id, found.code) == ("delivered", "biz-1", None)


@pytest.mark.parametrize("kind", KINDS)
async def test_repeated_and_late_callbacks_are_harmless(called: Called, kind: str) -> None:
    await called.record_attempt()
    await called.report(kind, called.receipt(kind))
    first = await called.stored()
    assert await called.report(kind, called.receipt(kind), called.receipt(kind)) == (200, OK[kind])
    assert await called.report(kind, called.receipt(kind, code="MK:0001")) == (200, OK[kind])
    assert (await called.stored(), await called.suppressed()) == (first, {})


@pytest.mark.parametrize("kind", KINDS)
async def test_receipt_that_comes_before_its_attempt_is_recorded_comes_again(called: Called, kind: str) -> None:
    assert await called.report(kind, called.receipt(kind)) == (200, UNKNOWN[kind])
    await called.record_attempt()
    assert await called.report(kind, called.receipt(kind)) == (200, OK[kind])
    assert await called.stored() is not None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("code", "suppressed"), [("MK:0001", True), ("UNDELIV", False), ("MK:0010", False)])
async def test_only_a_number_that_does_not_exist_is_suppressed(
    called: Called, kind: str, code: str, suppressed: bool
) -> None:
    await called.record_attempt()
    await called.report(kind, called.receipt(kind, code=code))
    found = await called.stored()
    assert found is not None
    assert (found.status, found.code) == ("undelivered", code)
    assert await called.suppressed() == ({TO: SuppressionReason.BOUNCED} if suppressed else {})


async def test_reconciled_sms_of_aliyun_is_found_by_its_out_id(called: Called) -> None:
    await called.record_attempt("out-1")
    receipt = called.receipt("aliyun", out_id="out-1")
    assert await called.report("aliyun", receipt) == (200, OK["aliyun"])
    assert await called.stored() is not None


@pytest.mark.parametrize("kind", KINDS)
async def test_a_receipt_among_many_of_other_accounts_is_recorded(called: Called, kind: str) -> None:
    await called.record_attempt()
    others = [called.receipt(kind, sms_id=f"other-{number}") for number in range(900)]
    assert await called.report(kind, *others, called.receipt(kind)) == (200, UNKNOWN[kind])
    assert await called.stored() is not None


@pytest.mark.parametrize("kind", KINDS)
async def test_receipts_of_many_sms_come_in_one_request(called: Called, kind: str) -> None:
    number = PAGE + 1
    await called.record_attempt(*(f"biz-{sms}" for sms in range(number)))
    receipts = [called.receipt(kind, sms_id=f"biz-{sms}") for sms in range(number)]
    bad: list[Any] = [{}, None, called.receipt(kind, sms_id=""), {**receipts[0], "phone_number": 7, "mobile": 7}]
    with capture_logs() as logs:
        assert await called.report(kind, *receipts[:1], *bad, *receipts[1:]) == (200, OK[kind])
    events = Counter(line["event"] for line in logs)
    assert events == {"sms.receipt_recorded": number, "sms.callback_malformed": 1}
    assert [line["rows"] for line in logs if line["event"] == "sms.callback_malformed"] == [len(bad)]


@pytest.mark.parametrize("kind", KINDS)
async def test_what_could_not_be_recorded_comes_again(called: Called, kind: str, tmp_path: Path) -> None:
    await called.record_attempt()
    with closing(sqlite3.connect(tmp_path / "registry.db")) as database:
        database.execute("ALTER TABLE sms_receipts RENAME TO away")
        assert (await called.report_status(kind, called.receipt(kind))) >= 500
        database.execute("ALTER TABLE away RENAME TO sms_receipts")
    assert await called.report(kind, called.receipt(kind)) == (200, OK[kind])
    assert await called.stored() is not None


@pytest.mark.parametrize("kind", KINDS)
async def test_a_reply_suppresses_for_the_sign_name_and_another_one_lifts(called: Called, kind: str) -> None:
    for text, again in (("TD", "订阅"), ("回复退订", "START"), ("stop", "重新订阅")):
        assert await called.reply(kind, text) == (200, OK[kind])
        assert await called.suppressed(by_sender("贝尔")) == {TO: SuppressionReason.UNSUBSCRIBED}
        assert await called.suppressed(by_sender("another")) == {}
        assert await called.reply(kind, "订单没收到") == (200, OK[kind])
        assert await called.suppressed(by_sender("贝尔")) == {TO: SuppressionReason.UNSUBSCRIBED}
        assert await called.reply(kind, again) == (200, OK[kind])
        assert list(await called.registry.suppressions.list()) == []


@pytest.mark.parametrize("kind", KINDS)
async def test_the_sign_name_may_come_as_in_the_sms_or_not_at_all(called: Called, kind: str) -> None:
    def signed(sign: str | None) -> dict[str, Any]:
        return {"sign_name" if kind == "aliyun" else "sign": sign}

    await called.reply(kind, "TD", **signed("【贝尔】"))
    assert await called.suppressed(by_sender("贝尔")) == {TO: SuppressionReason.UNSUBSCRIBED}
    assert await called.suppressed() == {}
    await called.reply(kind, "TD", **signed(None))
    assert await called.suppressed() == {TO: SuppressionReason.UNSUBSCRIBED}
    await called.reply(kind, "订阅", **signed(""))
    assert await called.suppressed() == {}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_start_that_is_repeated_after_a_later_stop_lifts_nothing(called: Called, kind: str) -> None:
    now = datetime.now(UTC)
    await called.reply(kind, "订阅", at=now - timedelta(minutes=2))
    await called.reply(kind, "TD", at=now - timedelta(minutes=1))
    await called.reply(kind, "订阅", at=now - timedelta(minutes=2))
    assert await called.suppressed(by_sender("贝尔")) == {TO: SuppressionReason.UNSUBSCRIBED}
    await called.reply(kind, "订阅", at=now)
    assert await called.suppressed(by_sender("贝尔")) == {}


@pytest.mark.parametrize("kind", KINDS)
async def test_start_lifts_only_what_stop_suppressed(called: Called, kind: str) -> None:
    for scope in (EVERYWHERE, by_sender("贝尔")):
        reason = SuppressionReason.OPERATOR
        suppression = Suppression(channel=Channel.SMS, address=TO, reason=reason, subscription_id=scope)
        await called.registry.suppressions.add(suppression)
        await called.reply(kind, "订阅")
        assert await called.suppressed(by_sender("贝尔")) == {TO: reason}


@pytest.mark.parametrize("kind", KINDS)
async def test_without_the_secret_there_is_nothing(called: Called, kind: str) -> None:
    await called.record_attempt()
    for secret in ("wrong", SECRET.upper(), f"{SECRET}x", "%C3%A9"):
        assert await called.report(kind, called.receipt(kind, code="MK:0001"), secret=secret) == (404, None)
    assert (await called.stored(), await called.suppressed()) == (None, {})


@pytest.mark.parametrize("kind", KINDS)
async def test_receipt_for_another_number_or_id_is_not_believed(called: Called, kind: str) -> None:
    await called.record_attempt()
    number = {"phone_number": "13900009999"} if kind == "aliyun" else {"mobile": "13900009999"}
    for receipt in (
        called.receipt(kind, code="MK:0001", **number),
        called.receipt(kind, code="MK:0001", sms_id="biz-2"),
    ):
        assert await called.report(kind, receipt) == (200, UNKNOWN[kind])
    assert (await called.stored(), await called.suppressed()) == (None, {})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{}", 200),
        (b"[" * 100_000, 400),
        (b"\xff", 400),
        (b"7", 400),
        (b"[" + b"1," * 1000 + b"1]", 200),
        (b"[" + b" " * MAX_BODY + b"]", 413),
        (b'{"text": "TD"}', 200),
        (b'[{"phone_number": "13900001234", "content": 7}, {"mobile": "1", "nationcode": "86", "text": "TD"}]', 200),
        (b'[{"phone_number": "\\u0000", "content": "TD", "send_time": 7}, {"mobile": [], "text": "TD"}]', 200),
        (b'[1, null, [], {}, {"success": true}, {"report_status": "FAIL", "sid": 7}]', 200),
        (
            b'[{"success": true, "biz_id": "\\u0000", "phone_number": "1"}, {"report_status": "FAIL", "sid": "\\u0000"}]',
            200,
        ),
        (b'[{"success": true, "biz_id": "\\ud800", "phone_number": "\\ud800"}]', 200),
        (b'[{"report_status": ["FAIL"], "sid": "1"}, {"report_status": {}}]', 200),
        (b'[{"report_status": "FAIL", "sid": "\\ud800", "mobile": "1", "nationcode": "\\ud800"}]', 200),
    ],
)
async def test_malformed_callbacks_record_nothing(called: Called, kind: str, body: bytes, status: int) -> None:
    async with called.session.post(f"{called.url}/callbacks/sms/{kind}/{SECRET}", data=io.BytesIO(body)) as response:
        assert response.status == status
    assert (await called.stored(), list(await called.registry.suppressions.list())) == (None, [])


@pytest.mark.parametrize("callbacks", [{"sms_callback_networks": "10.0.0.0/8,192.0.2.7/32"}], indirect=True)
async def test_with_networks_only_they_may_call(called: Called) -> None:
    url, rows = f"{called.url}/callbacks/sms/aliyun/{SECRET}", [called.receipt("aliyun")]
    await called.record_attempt()
    # A proxy on this machine is trusted, and says who called it.
    answers = {"": 404, "203.0.113.5": 404, "nonsense": 404, "::ffff:10.1.2.3": 200, "10.1.2.3": 200, "192.0.2.7": 200}
    for address, status in answers.items():
        headers = {"X-Forwarded-For": address} if address else {}
        async with called.session.post(url, json=rows, headers=headers) as response:
            assert (address, response.status) == (address, status)
        assert (await called.stored() is not None) == (status == 200)


async def test_without_a_secret_in_the_settings_there_are_no_urls(tmp_path: Path) -> None:
    registry = await Registry.open(f"sqlite:///{tmp_path}/registry.db")
    paths = [getattr(route, "path", "") for route in application(Settings(), registry).routes]
    assert not [path for path in paths if path.startswith("/callbacks/sms")]
    await registry.close()


@pytest.mark.parametrize("secret", ["short", "with/slash-and-more-text", "é" * 20])
def test_a_secret_that_is_no_part_of_a_path_is_refused(secret: str) -> None:
    with pytest.raises(ValidationError, match="16 to 128 letters"):
        Settings(sms_callback_secret=secret)
