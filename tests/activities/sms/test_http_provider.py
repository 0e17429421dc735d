"""Configured SMS providers, against a server that accepts SMS over HTTP."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr

from activities.sms.http_provider import HttpProvider
from activities.sms.provider_config import ProviderConfig, ProvidersFile
from activities.sms.providers import UNKNOWN_REASON, Sms
from activities.sms.templating import json_pointer, substitute
from bellwire.deliveries import Fault, OutcomeKind
from bellwire.suppressions import SuppressionReason
from starter.local.receivers.sms_gateway import FakeSmsGateway
from starter.local.receivers.twilio import SmsResponse
from tests.activities.listeners import serving

TO, SENDER = "+14155550123", "+14155550100"
SECRET = "BELLWIRE_SMS_SECRETS__ACME"
SMS = Sms(delivery_id="dlv_a_b", number=1, to=TO, text='Paid: "{to}" & more')
#: Statuses that concern the account or the URL, so that the operator has to act.
ACCOUNT = {302, 401, 402, 403, 404, 405, 406, 407, 451}
KEYED = {"idempotency_header": "Idempotency-Key"}
DELIVERED, REJECTED, DEFERRED, UNKNOWN = OutcomeKind


def config(url: str = "https://api.acme.example", **changes: Any) -> dict[str, Any]:
    response = {"id": "/message/id", "code": "/error/code", "gone": ["7001"], "unsubscribed": ["7002"]}
    return {
        "name": "acme",
        "url": f"{url}/messages",
        "timeout": 1.5,
        "sender": SENDER,
        "auth": {"kind": "bearer", "secret": SECRET},
        "body": {"fields": {"to": "{to}", "from": "{sender}", "text": "{text}", "ref": "{idempotency_key}"}},
        "response": {**response, **changes.pop("response", {})},
        **changes,
    }


def lookup_at(url: str, **changes: Any) -> dict[str, Any]:
    return {"lookup": {"url": f"{url}/messages?ref={{idempotency_key}}", "id": "/messages/0/id", **changes}}


def provider(
    gateway: FakeSmsGateway, session: aiohttp.ClientSession, *, token: str = "", **changes: Any
) -> HttpProvider:
    described = ProviderConfig.model_validate(config(gateway.url, **changes))
    return HttpProvider(described, session, secrets={"acme": SecretStr(token or gateway.token)})


@pytest.mark.parametrize("form", ["json", "form"])
async def test_an_sms_is_sent_as_configured(gateway: FakeSmsGateway, session: aiohttp.ClientSession, form: str) -> None:
    body = {**config()["body"], "format": form}
    result = await provider(gateway, session, body=body, headers={"X-Ref": "{delivery}"}, **KEYED).send(SMS)
    (accepted,) = gateway.accepted
    assert (accepted.to, accepted.sender, accepted.text, accepted.idempotency_key) == (
        TO,
        SENDER,
        SMS.text,
        SMS.idempotency_key,
    )
    assert (result.outcome.kind, result.outcome.reason) == (DELIVERED, "acme 202")
    assert result.outcome.provider_id == accepted.id
    assert (gateway.posts[0]["X-Ref"], gateway.posts[0]["Idempotency-Key"]) == (SMS.delivery_id, SMS.idempotency_key)


@pytest.mark.parametrize(
    ("reply", "kind", "reason", "outage", "suppress"),
    [
        (SmsResponse(status=429, retry_after=30), DEFERRED, "acme 429", True, None),
        (SmsResponse(status=500), DEFERRED, "acme 500", True, None),
        (SmsResponse(status=503, retry_after=7), DEFERRED, "acme 503", True, None),
        (SmsResponse(status=502), UNKNOWN, UNKNOWN_REASON, False, None),
        (SmsResponse(status=504), UNKNOWN, UNKNOWN_REASON, False, None),
        (SmsResponse(status=409), DEFERRED, "acme 409", False, None),
        (SmsResponse(status=422), REJECTED, "acme 422", False, None),
        (SmsResponse(status=400, code=7001), REJECTED, "acme 400 7001", False, SuppressionReason.BOUNCED),
        (SmsResponse(status=403, code=7002), REJECTED, "acme 403 7002", False, SuppressionReason.UNSUBSCRIBED),
        (SmsResponse(status=400, code=4155550123), REJECTED, "acme 400", False, None),
        *((SmsResponse(status=status), DEFERRED, f"acme {status}", False, None) for status in sorted(ACCOUNT - {302})),
        (SmsResponse(status=302), DEFERRED, "acme 302", False, None),
        (SmsResponse(accept=True, never=True), UNKNOWN, UNKNOWN_REASON, False, None),
        (SmsResponse(accept=True, reset=True), UNKNOWN, UNKNOWN_REASON, False, None),
    ],
)
async def test_a_response_is_classified(
    gateway: FakeSmsGateway,
    session: aiohttp.ClientSession,
    reply: SmsResponse,
    kind: OutcomeKind,
    reason: str,
    outage: bool,
    suppress: SuppressionReason | None,
) -> None:
    gateway.script(reply)
    result = await provider(gateway, session).send(SMS)
    assert (result.outcome.kind, result.outcome.reason) == (kind, reason)
    assert (result.outage, result.suppress) == (outage, suppress)
    assert result.outcome.disable == (suppress is SuppressionReason.BOUNCED)
    refused = kind in {REJECTED, DEFERRED} and suppress is not SuppressionReason.BOUNCED
    by_operator = reply.status in ACCOUNT and suppress is None
    by = Fault.OPERATOR if by_operator else Fault.PROVIDER
    assert result.outcome.fault is (by if refused else Fault.RECEIVER)
    assert result.outcome.retry_after == reply.retry_after
    assert (result.operator_problem is not None) == by_operator


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("7001", True),
        ("E-1001", True),
        ("isv.MOBILE_NUMBER_ILLEGAL", True),
        ("Refused.ByRecipient", True),
        ("4155550123", False),
        ("415-555-0123", False),
        ("+1.415.555", False),
        ("Ann", False),
        ("Ann.Example", False),
        ("ann-example", False),
        ("ann@example.com", False),
        (["Ann"], False),
    ],
)
async def test_a_code_that_is_no_code_is_not_shown(
    gateway: FakeSmsGateway, session: aiohttp.ClientSession, code: Any, shown: bool
) -> None:
    gateway.script(SmsResponse(status=400, code=code))
    response = {"unsubscribed": ["Refused.ByRecipient"]}
    outcome = (await provider(gateway, session, response=response).send(SMS)).outcome
    assert outcome.reason == (f"acme 400 {code}" if shown else "acme 400")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"state": "ok", "message": {"id": 7}}, DELIVERED),
        ({"state": "no", "error": {"code": "7001"}}, REJECTED),
        ({"state": "later"}, DEFERRED),
        ({"state": "other"}, UNKNOWN),
        ({"state": "ok"}, UNKNOWN),
        ({"state": "ok", "message": {"id": ""}}, UNKNOWN),
        ("<h1>ok</h1>", UNKNOWN),
    ],
)
async def test_a_provider_that_responds_200_to_everything_is_classified_by_the_body(
    gateway: FakeSmsGateway, session: aiohttp.ClientSession, body: Any, kind: OutcomeKind
) -> None:
    results = {"accepted_results": ["ok"], "rejected_results": ["no"], "retry_results": ["later"]}
    gateway.script(SmsResponse(status=200), body=body)
    result = await provider(gateway, session, response={"result": "/state", **results}).send(SMS)
    assert result.outcome.kind is kind
    assert result.suppress is (SuppressionReason.BOUNCED if kind is REJECTED else None)


async def test_an_unreachable_provider_defers_the_delivery(session: aiohttp.ClientSession) -> None:
    async with FakeSmsGateway() as gone:
        pass
    result = await provider(gone, session).send(SMS)
    assert (result.outcome.kind, result.outage, result.outcome.fault) == (DEFERRED, True, Fault.PROVIDER)
    assert result.outcome.reason == "acme unreachable: connect failed: connection refused"


async def test_wrong_credentials_are_a_problem_for_the_operator(
    gateway: FakeSmsGateway, session: aiohttp.ClientSession
) -> None:
    result = await provider(gateway, session, token="wrong").send(SMS)
    assert (result.outcome.kind, result.operator_problem) == (DEFERRED, "acme 401 bad_token")


async def test_a_lost_sms_is_found_by_its_idempotency_key(
    gateway: FakeSmsGateway, session: aiohttp.ClientSession
) -> None:
    acme = provider(gateway, session, **lookup_at(gateway.url))
    gateway.script(SmsResponse(accept=True, reset=True))
    assert (await acme.send(SMS)).outcome.kind is UNKNOWN
    found = await acme.reconcile(SMS, datetime.now(UTC))
    assert found is not None
    assert (found.outcome.kind, found.outcome.provider_id) == (DELIVERED, gateway.accepted[0].id)
    other = Sms(delivery_id=SMS.delivery_id, number=2, to=TO, text=SMS.text)
    assert await acme.reconcile(other, datetime.now(UTC)) is None
    assert len(gateway.posts) == 1


@pytest.mark.parametrize(
    "reply", [SmsResponse(status=404), SmsResponse(status=500), SmsResponse(status=401), SmsResponse(status=302)]
)
async def test_a_lookup_that_fails_is_unknown(
    gateway: FakeSmsGateway, session: aiohttp.ClientSession, reply: SmsResponse
) -> None:
    gateway.script_lookup(reply)
    found = await provider(gateway, session, **lookup_at(gateway.url)).reconcile(SMS, datetime.now(UTC))
    assert found is not None
    assert found.outcome.kind is UNKNOWN


async def test_a_configured_absent_status_means_that_the_provider_does_not_have_the_sms(
    gateway: FakeSmsGateway, session: aiohttp.ClientSession
) -> None:
    gateway.script_lookup(SmsResponse(status=404))
    acme = provider(gateway, session, **lookup_at(gateway.url, absent=[404]))
    assert await acme.reconcile(SMS, datetime.now(UTC)) is None


@pytest.mark.parametrize("accept", [True, False])
async def test_without_a_lookup_the_sms_is_sent_again_under_the_same_key(
    gateway: FakeSmsGateway, session: aiohttp.ClientSession, accept: bool
) -> None:
    acme = provider(gateway, session, **KEYED)
    gateway.script(SmsResponse(accept=accept, reset=True))
    await acme.send(SMS)
    assert acme.idempotent_resend
    found = await acme.reconcile(SMS, datetime.now(UTC))
    assert found is not None
    assert (found.outcome.kind, len(gateway.accepted)) == (DELIVERED, 1)


@pytest.mark.parametrize(
    "reply", [SmsResponse(status=503), SmsResponse(status=409), SmsResponse(status=422), SmsResponse(status=429)]
)
async def test_a_refusal_of_the_second_request_is_unknown(
    gateway: FakeSmsGateway, session: aiohttp.ClientSession, reply: SmsResponse
) -> None:
    gateway.script(SmsResponse(accept=True, reset=True), reply)
    acme = provider(gateway, session, **KEYED)
    await acme.send(SMS)
    found = await acme.reconcile(SMS, datetime.now(UTC))
    assert found is not None
    assert (found.outcome.kind, found.outage) == (UNKNOWN, False)


async def test_a_provider_that_cannot_be_reconciled_stays_unknown(
    gateway: FakeSmsGateway, session: aiohttp.ClientSession
) -> None:
    found = await provider(gateway, session).reconcile(SMS, datetime.now(UTC))
    assert found is not None
    assert (found.outcome.kind, gateway.posts) == (UNKNOWN, [])


async def test_a_messaging_service_of_twilio_is_not_used_as_a_sender(
    gateway: FakeSmsGateway, session: aiohttp.ClientSession
) -> None:
    acme = provider(gateway, session)
    senders = [None, "Acme", "MG" + "1" * 32]
    messages = [Sms(delivery_id="d", number=1, to=TO, text="t", sender=sender) for sender in senders]
    assert [acme.sender_of(sms) for sms in messages] == [SENDER, "Acme", SENDER]


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        ({"kind": "bearer"}, "Authorization", "Bearer s3cret"),
        ({"kind": "basic", "username": "ann"}, "Authorization", "Basic YW5uOnMzY3JldA=="),
        ({"kind": "header", "header": "X-Api-Key"}, "X-Api-Key", "s3cret"),
    ],
)
async def test_the_secret_is_sent_as_configured(
    gateway: FakeSmsGateway, session: aiohttp.ClientSession, auth: dict[str, str], header: str, value: str
) -> None:
    acme = provider(gateway, session, token="s3cret", auth={**auth, "secret": SECRET})
    await acme.send(SMS)
    assert gateway.posts[0][header] == value


@pytest.mark.parametrize("secrets", [{}, {"acme": SecretStr("")}, {"acme": SecretStr("a\nb")}])
async def test_a_missing_secret_is_named(session: aiohttp.ClientSession, secrets: dict[str, SecretStr]) -> None:
    with pytest.raises(ValueError, match=SECRET):
        HttpProvider(ProviderConfig.model_validate(config()), session, secrets=secrets)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"name": "twilio"}, "name"),
        ({"name": "A b"}, "name"),
        ({"url": "ftp://a"}, "provider.0.url"),
        ({"url": "https://{to}.example/"}, "host without placeholders"),
        ({"method": "GET"}, "method"),
        ({"auth": {"kind": "bearer", "secret": "HOME"}}, "auth.secret: must name an environment variable"),
        ({"auth": {"kind": "basic", "secret": SECRET}}, "username"),
        ({"auth": {"kind": "header", "secret": SECRET}}, "header"),
        ({"body": {"fields": {"to": "{to}"}}}, "must contain {text}"),
        ({"body": {"fields": {"to": "{to}", "t": "{text} {secret}"}}}, "{secret}: is not a valid placeholder"),
        ({"body": {"format": "form", "fields": {"to": ["{to}", "{text}"]}}}, "must be texts"),
        ({"sender": None}, "sender: required, since {sender} is used"),
        ({"headers": {"X-Text": "{text}"}}, "headers: may contain"),
        ({"headers": {"X Text": "a"}}, "name of a header"),
        ({"response": {"id": "message.id"}}, "JSON pointer"),
        ({"lookup": {"url": "https://a.example/messages", "id": "/id"}}, "lookup.url: must contain {idempotency_key}"),
        ({"idempotency": "X"}, "idempotency"),
    ],
)
def test_the_error_for_an_invalid_configuration_names_the_field(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    file = tmp_path / "providers.json"
    file.write_text(json.dumps({"provider": [{**config(), **changes}]}))
    with pytest.raises(ValueError, match="BELLWIRE_SMS_PROVIDERS") as refused:
        ProvidersFile.read(file)
    assert problem in str(refused.value)


def test_the_example_in_the_documentation_is_valid(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "add-an-sms-provider.md").read_text()
    file = tmp_path / "providers.toml"
    file.write_text(page.partition("```toml\n")[2].partition("```")[0])
    read = ProvidersFile.read(file)
    assert (read.priority, [each.name for each in read.provider]) == (("acme", "twilio"), ["acme"])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("provider = 1", "provider"),
        ("provider = [", "providers.toml"),
        ("provider = []", "provider"),
    ],
)
def test_the_error_for_an_invalid_file_names_the_file(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "providers.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=problem):
        ProvidersFile.read(file)
    with pytest.raises(ValueError, match="cannot be read"):
        ProvidersFile.read(tmp_path)


@pytest.mark.parametrize("priority", [["twilio"], ["acme", "other"]])
def test_priority_must_name_every_provider(priority: list[str]) -> None:
    with pytest.raises(ValueError, match="priority: must name each of acme"):
        ProvidersFile.model_validate({"priority": priority, "provider": [config()]})


def test_placeholders_are_substituted_once() -> None:
    values = {"to": "+1", "text": "{to} & {", "sender": "", "idempotency_key": "", "delivery": ""}
    assert substitute({"a": ["{text}", 7, None], "b": {"c": "{to}"}}, values) == {
        "a": ["{to} & {", 7, None],
        "b": {"c": "+1"},
    }
    assert substitute("https://a/?t={text}", values, url_encode=True) == "https://a/?t=%7Bto%7D%20%26%20%7B"


@pytest.mark.parametrize(
    ("pointer", "found"),
    [("/a/0/b", 1), ("/a/1", None), ("/a/-1", None), ("/a~1b", 2), ("/m~0n", 3), ("/a/0/b/c", None), ("/", None)],
)
def test_json_pointers_are_resolved(pointer: str, found: object) -> None:
    assert json_pointer({"a": [{"b": 1}], "a/b": 2, "m~n": 3}, pointer) == found


@pytest.mark.parametrize("query", ["sp=%2Ftriggers%2Fsend&sig=a%2Fb-c_d%3D&x=%3B", "a=1;b=2&c[]=%2c", "x=a+b%20c%2b"])
async def test_the_url_of_a_provider_is_sent_as_it_is_written(session: aiohttp.ClientSession, query: str) -> None:
    targets: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        targets.append(head.split(b" ")[1].decode())
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()

    async with serving(serve) as port:
        url = f"http://127.0.0.1:{port}/v%31/%7Ea%2Fb"
        lookup = {"url": f"{url}?{query}&key={{idempotency_key}}", "id": "/id"}
        described = {**config(lookup=lookup), "url": f"{url}?{query}"}
        acme = HttpProvider(ProviderConfig.model_validate(described), session, secrets={"acme": SecretStr("s")})
        await acme.send(SMS)
        await acme.reconcile(SMS, datetime.now(UTC))
    path = f"/v%31/%7Ea%2Fb?{query}"
    assert targets == [path, f"{path}&key={SMS.idempotency_key}"]
