"""Described SMS providers, against a server that takes SMS over plain HTTP."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr

from activities.sms.http_provider import HttpProvider
from activities.sms.provider_config import (
    Description,
    ProviderConfigs,
    at,
    filled,
)
from activities.sms.providers import LOST_REASON, Sms
from bellwire.deliveries import Fault, OutcomeKind
from bellwire.suppressions import SuppressionReason
from starter.local.receivers.sms_gateway import FakeSmsGateway
from starter.local.receivers.twilio import SmsResponse

TO, SENDER = "+14155550123", "+14155550100"
SECRET = "BELLWIRE_SMS_SECRETS__ACME"
SMS = Sms(delivery_id="dlv_a_b", number=1, to=TO, text='Paid: "{to}" & more')
KEYED = {"idempotency_header": "Idempotency-Key"}
DELIVERED, REJECTED, DEFERRED, UNKNOWN = OutcomeKind


def description(url: str = "https://api.acme.example", **changes: Any) -> dict[str, Any]:
    answer = {"id": "/message/id", "code": "/error/code", "dead": ["7001"], "unsubscribed": ["7002"]}
    return {
        "name": "acme",
        "url": f"{url}/messages",
        "timeout": 0.4,
        "sender": SENDER,
        "auth": {"kind": "bearer", "secret": SECRET},
        "body": {"fields": {"to": "{to}", "from": "{sender}", "text": "{text}", "ref": "{reference}"}},
        "answer": {**answer, **changes.pop("answer", {})},
        **changes,
    }


def looked_up(url: str, **changes: Any) -> dict[str, Any]:
    return {"lookup": {"url": f"{url}/messages?ref={{reference}}", "id": "/messages/0/id", **changes}}


@pytest.fixture
async def gateway() -> AsyncIterator[FakeSmsGateway]:
    async with FakeSmsGateway() as opened:
        yield opened


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


def provider(
    gateway: FakeSmsGateway, session: aiohttp.ClientSession, *, token: str = "", **changes: Any
) -> HttpProvider:
    described = Description.model_validate(description(gateway.url, **changes))
    return HttpProvider(described, session, secrets={"acme": SecretStr(token or gateway.token)})


@pytest.mark.parametrize("form", ["json", "form"])
async def test_an_sms_is_sent_as_described(gateway: FakeSmsGateway, session: aiohttp.ClientSession, form: str) -> None:
    body = {**description()["body"], "format": form}
    verdict = await provider(gateway, session, body=body, headers={"X-Ref": "{delivery}"}, **KEYED).send(SMS)
    (taken,) = gateway.accepted
    assert (taken.to, taken.sender, taken.text, taken.idempotency_key) == (TO, SENDER, SMS.text, SMS.reference)
    assert (verdict.outcome.kind, verdict.outcome.reason) == (DELIVERED, "acme 202")
    assert verdict.outcome.provider_id == taken.id
    assert (gateway.posts[0]["X-Ref"], gateway.posts[0]["Idempotency-Key"]) == (SMS.delivery_id, SMS.reference)


@pytest.mark.parametrize(
    ("reply", "kind", "reason", "outage", "suppress"),
    [
        (SmsResponse(status=429, retry_after=30), DEFERRED, "acme 429", True, None),
        (SmsResponse(status=500), DEFERRED, "acme 500", True, None),
        (SmsResponse(status=503, retry_after=7), DEFERRED, "acme 503", True, None),
        (SmsResponse(status=502), UNKNOWN, LOST_REASON, False, None),
        (SmsResponse(status=504), UNKNOWN, LOST_REASON, False, None),
        (SmsResponse(status=409), DEFERRED, "acme 409", False, None),
        (SmsResponse(status=422), REJECTED, "acme 422", False, None),
        (SmsResponse(status=400, code=7001), REJECTED, "acme 400 7001", False, SuppressionReason.BOUNCED),
        (SmsResponse(status=403, code=7002), REJECTED, "acme 403 7002", False, SuppressionReason.UNSUBSCRIBED),
        (SmsResponse(status=400, code=4155550123), REJECTED, "acme 400", False, None),
        (SmsResponse(status=404), DEFERRED, "acme 404", False, None),
        (SmsResponse(status=302), DEFERRED, "acme 302", False, None),
        (SmsResponse(accept=True, never=True), UNKNOWN, LOST_REASON, False, None),
        (SmsResponse(accept=True, reset=True), UNKNOWN, LOST_REASON, False, None),
    ],
)
async def test_an_answer_becomes_a_verdict(
    gateway: FakeSmsGateway,
    session: aiohttp.ClientSession,
    reply: SmsResponse,
    kind: OutcomeKind,
    reason: str,
    outage: bool,
    suppress: SuppressionReason | None,
) -> None:
    gateway.script(reply)
    verdict = await provider(gateway, session).send(SMS)
    assert (verdict.outcome.kind, verdict.outcome.reason) == (kind, reason)
    assert (verdict.outage, verdict.suppress) == (outage, suppress)
    assert verdict.outcome.disable == (suppress is SuppressionReason.BOUNCED)
    refused = kind in {REJECTED, DEFERRED} and suppress is not SuppressionReason.BOUNCED
    by = Fault.OPERATOR if reply.status in {302, 404} else Fault.PROVIDER
    assert verdict.outcome.fault is (by if refused else Fault.RECEIVER)
    assert verdict.outcome.retry_after == reply.retry_after
    assert (verdict.obstacle is not None) == (reply.status in {302, 404})


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"state": "ok", "message": {"id": 7}}, DELIVERED),
        ({"state": "no", "error": {"code": "7001"}}, REJECTED),
        ({"state": "later"}, DEFERRED),
        ({"state": "well"}, UNKNOWN),
        ({"state": "ok"}, UNKNOWN),
        ({"state": "ok", "message": {"id": ""}}, UNKNOWN),
        ("<h1>ok</h1>", UNKNOWN),
    ],
)
async def test_a_provider_that_answers_200_to_everything_is_understood_by_what_it_says(
    gateway: FakeSmsGateway, session: aiohttp.ClientSession, body: Any, kind: OutcomeKind
) -> None:
    results = {"accepted_results": ["ok"], "rejected_results": ["no"], "retry_results": ["later"]}
    gateway.script(SmsResponse(status=200), body=body)
    verdict = await provider(gateway, session, answer={"result": "/state", **results}).send(SMS)
    assert verdict.outcome.kind is kind
    assert verdict.suppress is (SuppressionReason.BOUNCED if kind is REJECTED else None)


async def test_a_provider_that_is_gone_was_sent_nothing(session: aiohttp.ClientSession) -> None:
    async with FakeSmsGateway() as gone:
        pass
    verdict = await provider(gone, session).send(SMS)
    assert (verdict.outcome.kind, verdict.outage, verdict.outcome.fault) == (DEFERRED, True, Fault.PROVIDER)
    assert verdict.outcome.reason == "acme unreachable: connect failed"


async def test_wrong_credentials_are_for_the_operator(gateway: FakeSmsGateway, session: aiohttp.ClientSession) -> None:
    verdict = await provider(gateway, session, token="wrong").send(SMS)
    assert (verdict.outcome.kind, verdict.obstacle) == (DEFERRED, "acme 401 bad_token")


async def test_a_lost_sms_is_found_by_its_reference(gateway: FakeSmsGateway, session: aiohttp.ClientSession) -> None:
    acme = provider(gateway, session, **looked_up(gateway.url))
    gateway.script(SmsResponse(accept=True, reset=True))
    assert (await acme.send(SMS)).outcome.kind is UNKNOWN
    found = await acme.find(SMS, datetime.now(UTC))
    assert found is not None
    assert (found.outcome.kind, found.outcome.provider_id) == (DELIVERED, gateway.accepted[0].id)
    other = Sms(delivery_id=SMS.delivery_id, number=2, to=TO, text=SMS.text)
    assert await acme.find(other, datetime.now(UTC)) is None
    assert len(gateway.posts) == 1


@pytest.mark.parametrize(
    "reply", [SmsResponse(status=404), SmsResponse(status=500), SmsResponse(status=401), SmsResponse(status=302)]
)
async def test_a_look_up_that_fails_tells_nothing(
    gateway: FakeSmsGateway, session: aiohttp.ClientSession, reply: SmsResponse
) -> None:
    gateway.script_lookup(reply)
    found = await provider(gateway, session, **looked_up(gateway.url)).find(SMS, datetime.now(UTC))
    assert found is not None
    assert found.outcome.kind is UNKNOWN


async def test_a_status_that_means_that_it_is_absent_is_believed_if_it_is_described(
    gateway: FakeSmsGateway, session: aiohttp.ClientSession
) -> None:
    gateway.script_lookup(SmsResponse(status=404))
    acme = provider(gateway, session, **looked_up(gateway.url, absent=[404]))
    assert await acme.find(SMS, datetime.now(UTC)) is None


@pytest.mark.parametrize("accept", [True, False])
async def test_without_a_look_up_it_is_told_again_under_the_same_key(
    gateway: FakeSmsGateway, session: aiohttp.ClientSession, accept: bool
) -> None:
    acme = provider(gateway, session, **KEYED)
    gateway.script(SmsResponse(accept=accept, reset=True))
    await acme.send(SMS)
    assert acme.repeats
    found = await acme.find(SMS, datetime.now(UTC))
    assert found is not None
    assert (found.outcome.kind, len(gateway.accepted)) == (DELIVERED, 1)


@pytest.mark.parametrize(
    "reply", [SmsResponse(status=503), SmsResponse(status=409), SmsResponse(status=422), SmsResponse(status=429)]
)
async def test_a_refusal_of_the_repetition_says_nothing_about_what_went_before(
    gateway: FakeSmsGateway, session: aiohttp.ClientSession, reply: SmsResponse
) -> None:
    gateway.script(SmsResponse(accept=True, reset=True), reply)
    acme = provider(gateway, session, **KEYED)
    await acme.send(SMS)
    found = await acme.find(SMS, datetime.now(UTC))
    assert found is not None
    assert (found.outcome.kind, found.outage) == (UNKNOWN, False)


async def test_who_can_be_asked_in_no_way_stays_unknown(
    gateway: FakeSmsGateway, session: aiohttp.ClientSession
) -> None:
    found = await provider(gateway, session).find(SMS, datetime.now(UTC))
    assert found is not None
    assert (found.outcome.kind, gateway.posts) == (UNKNOWN, [])


async def test_a_messaging_service_of_twilio_is_no_sender_elsewhere(
    gateway: FakeSmsGateway, session: aiohttp.ClientSession
) -> None:
    acme = provider(gateway, session)
    senders = [None, "Acme", "MG" + "1" * 32]
    named = [Sms(delivery_id="d", number=1, to=TO, text="t", sender=sender) for sender in senders]
    assert [acme.sender_of(sms) for sms in named] == [SENDER, "Acme", SENDER]


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        ({"kind": "bearer"}, "Authorization", "Bearer s3cret"),
        ({"kind": "basic", "username": "ann"}, "Authorization", "Basic YW5uOnMzY3JldA=="),
        ({"kind": "header", "header": "X-Api-Key"}, "X-Api-Key", "s3cret"),
    ],
)
async def test_the_secret_goes_where_it_is_described(
    gateway: FakeSmsGateway, session: aiohttp.ClientSession, auth: dict[str, str], header: str, value: str
) -> None:
    acme = provider(gateway, session, token="s3cret", auth={**auth, "secret": SECRET})
    await acme.send(SMS)
    assert gateway.posts[0][header] == value


@pytest.mark.parametrize("secrets", [{}, {"acme": SecretStr("")}, {"acme": SecretStr("a\nb")}])
async def test_a_secret_that_is_not_there_is_named(
    session: aiohttp.ClientSession, secrets: dict[str, SecretStr]
) -> None:
    with pytest.raises(ValueError, match=SECRET):
        HttpProvider(Description.model_validate(description()), session, secrets=secrets)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": "twilio"}, "name"),
        ({"name": "A b"}, "name"),
        ({"url": "ftp://a"}, "provider.0.url"),
        ({"url": "https://{to}.example/"}, "host without placeholders"),
        ({"method": "GET"}, "method"),
        ({"auth": {"kind": "bearer", "secret": "HOME"}}, "auth.secret: must name an environment variable"),
        ({"auth": {"kind": "basic", "secret": SECRET}}, "username"),
        ({"auth": {"kind": "header", "secret": SECRET}}, "header"),
        ({"body": {"fields": {"to": "{to}"}}}, "{text} must be in it"),
        ({"body": {"fields": {"to": "{to}", "t": "{text} {secret}"}}}, "{secret}: is no placeholder"),
        ({"body": {"format": "form", "fields": {"to": ["{to}", "{text}"]}}}, "must be texts"),
        ({"sender": None}, "sender: {sender} is used"),
        ({"headers": {"X-Text": "{text}"}}, "headers: may hold"),
        ({"headers": {"X Text": "a"}}, "name of a header"),
        ({"answer": {"id": "message.id"}}, "JSON pointer"),
        ({"lookup": {"url": "https://a.example/messages", "id": "/id"}}, "lookup: url: must hold {reference}"),
        ({"idempotency": "X"}, "idempotency"),
    ],
)
def test_a_bad_description_is_refused_with_the_name_of_the_field(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    file = tmp_path / "providers.json"
    file.write_text(json.dumps({"provider": [{**description(), **changes}]}))
    with pytest.raises(ValueError, match="BELLWIRE_SMS_PROVIDERS") as refused:
        ProviderConfigs.read(file)
    assert named in str(refused.value)


def test_the_example_in_the_documentation_is_a_good_description(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "add-an-sms-provider.md").read_text()
    file = tmp_path / "providers.toml"
    file.write_text(page.partition("```toml\n")[2].partition("```")[0])
    read = ProviderConfigs.read(file)
    assert (read.priority, [each.name for each in read.provider]) == (("acme", "twilio"), ["acme"])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("provider = 1", "provider"),
        ("provider = [", "providers.toml"),
        ("provider = []", "provider"),
    ],
)
def test_a_file_that_is_none_is_named(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "providers.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=problem):
        ProviderConfigs.read(file)
    with pytest.raises(ValueError, match="cannot be read"):
        ProviderConfigs.read(tmp_path)


@pytest.mark.parametrize("priority", [["twilio"], ["acme", "other"]])
def test_a_priority_names_every_provider(priority: list[str]) -> None:
    with pytest.raises(ValueError, match="priority: must name each of acme"):
        ProviderConfigs.model_validate({"priority": priority, "provider": [description()]})


def test_what_a_placeholder_stands_for_is_not_filled_again() -> None:
    values = {"to": "+1", "text": "{to} & {", "sender": "", "reference": "", "delivery": ""}
    assert filled({"a": ["{text}", 7, None], "b": {"c": "{to}"}}, values) == {
        "a": ["{to} & {", 7, None],
        "b": {"c": "+1"},
    }
    assert filled("https://a/?t={text}", values, encoded=True) == "https://a/?t=%7Bto%7D%20%26%20%7B"


@pytest.mark.parametrize(
    ("pointer", "found"),
    [("/a/0/b", 1), ("/a/1", None), ("/a/-1", None), ("/a~1b", 2), ("/m~0n", 3), ("/a/0/b/c", None), ("/", None)],
)
def test_json_pointers_are_followed(pointer: str, found: object) -> None:
    assert at({"a": [{"b": 1}], "a/b": 2, "m~n": 3}, pointer) == found
