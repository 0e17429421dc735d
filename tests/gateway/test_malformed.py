"""Malformed requests: each one is refused with a problem that names what is wrong, and none is an error of the gateway."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from bellwire.events import uuid7
from bellwire.replays import replay_since
from tests.acceptance.conftest import running_gateway
from tests.gateway.conftest import Served

STRUCTURED, BATCH = b"application/cloudevents+json", b"application/cloudevents-batch+json"

#: Bodies that are not JSON, or not the JSON of any resource, and what they are.
BODIES = {
    "half an object": b'{"a": ',
    "two values": b"{} {}",
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "a byte order mark of UTF-16": '{"a": 1}'.encode("utf-16"),
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "too deep": b"[" * 100_000,
    "too deep, closed": b'{"a": ' * 20_000 + b"1" + b"}" * 20_000,
    "a number of 5,000 digits": b'{"a": ' + b"9" * 5_000 + b"}",
    "a text": b'"text"',
    "a number": b"7",
    "a list": b"[]",
    "true": b"true",
    "NUL": b"\x00",
    "a member with NUL": b'{"a\\u0000": "\\u0000"}',
    "half a surrogate pair": b'{"a": "\\ud800"}',
    "half a surrogate pair as a name": b'{"\\udfff": 1}',
    "an unknown member": b'{"colour": "red"}',
    "3 MB": b'{"a": "' + b"x" * 3_000_000 + b'"}',
}
#: Values for any member. Some are legal in some places.
VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    0.5,
    1e308,
    10**30,
    -(2**63),
    "",
    " ",
    "\x00",
    "\x7f",
    "\ud800",
    "\u202e",
    "x" * 100_000,
    "9" * 30,
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
    "https://[",
    "https://x:99999999/",
    "%",
    "{{",
    "{% for %}",
    [],
    [[]],
    [None],
    ["x"] * 1_000,
    {},
    {"": ""},
    {"a": {"b": [1]}},
    {"type": 7},
]
PATHS = ["%00", "a%00b", "%ff", "%ed%a0%80", "x" * 8_000, "%2e%2e%2f", "%F0%9F%98%80", "-", "%0a", "'", "%25"]
QUERIES = [
    "",
    "%00",
    "%ff",
    "%ed%a0%80",
    "x" * 8_000,
    "-1",
    "0",
    "99999999999999999999999",
    "nan",
    "1e3",
    "%F0%9F%98%80",
    "[]",
]
CURSORS = ["!", "%00", "AA", "_w", "7aCA", "%ff", "x" * 600, "eA==="]
PREFERENCES = [
    b"wait",
    b"wait=",
    b"wait=x",
    b"wait=-1",
    b"wait=1.5",
    b"wait=61",
    b"wait=99999999999999999999",
    b"wait=\xff",
]
ETAGS = [b"", b"1", b"v1", b'"', b'"v"', b'"v-1"', b'"v1', b'"v99999999999999999999999"', b'"v1", "v2"', b"\xff"]
CHARSETS = [b"x", b"\xff", b"utf-16", b"idna", b"base64", b"zlib", b"utf-7", b"unicode_escape", b"undefined"]
KEYS = [b"", b" ", b'"', b"a b", b"\xff", b"k" * 256, b'"a" "b"', "schlüssel".encode()]


class Answer(NamedTuple):
    status: int
    content_type: str
    body: bytes


class Case(NamedTuple):
    """A request that must be refused."""

    name: str
    method: str
    path: str
    body: bytes | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    #: Whether a success is right too: the value may be legal.
    may_succeed: bool = False


async def sent(served: Served, case: Case) -> Answer:
    """Send the request byte by byte as it is: clients' libraries refuse most of them."""
    host = urlsplit(served.url)
    reader, writer = await asyncio.open_connection(host.hostname, host.port)
    headers = [(b"host", b"x"), (b"connection", b"close")]
    if not any(name == b"authorization" for name, _ in case.headers):
        headers.append((b"authorization", b"Bearer " + served.admin.encode()))
    if case.body is not None:
        headers.append((b"content-length", str(len(case.body)).encode()))
        if not any(name == b"content-type" for name, _ in case.headers):
            headers.append((b"content-type", b"application/json"))
    head = b"".join(name + b": " + value + b"\r\n" for name, value in (*headers, *case.headers))
    writer.write(f"{case.method} {case.path} HTTP/1.1\r\n".encode() + head + b"\r\n" + (case.body or b""))
    try:
        async with asyncio.timeout(60):
            received = await reader.read()
    finally:
        writer.transport.abort()
    top, _, body = received.partition(b"\r\n\r\n")
    status, *fields = top.decode("latin-1").split("\r\n")
    types = [
        value.strip() for name, _, value in (field.partition(":") for field in fields) if name.lower() == "content-type"
    ]
    return Answer(int(status.split()[1]) if status else 0, types[0] if types else "", body)


def wrong(case: Case, answer: Answer) -> str | None:
    """What is wrong with the answer, as a line for the developer."""
    shown = f"{case.method} {case.path[:60]}: {case.name}: {answer.status} {answer.body[:300]!r}"
    if case.may_succeed and 200 <= answer.status < 300:
        return None
    if not 400 <= answer.status < 500 or answer.status == 429 or answer.content_type != "application/problem+json":
        return shown
    problem = json.loads(answer.body)
    if problem["status"] != answer.status or not problem["title"] or not problem["request_id"]:
        return f"{shown}: not a whole problem"
    if answer.status in {400, 412, 413, 422} and not all(
        each["field"] and each["message"] for each in problem.get("errors") or [{"field": ""}]
    ):
        return f"{shown}: names no field"
    return None


async def operations(served: Served) -> list[tuple[str, str, dict[str, Any]]]:
    document = (await served.call("GET", "/v1/openapi.json", key=None)).json
    return [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


@pytest.fixture(scope="module")
async def served(served: Served, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A gateway without rate limits, which would refuse most requests for another reason."""
    log = tmp_path_factory.mktemp("malformed") / "gateway.log"
    async with running_gateway(served.system, log=log, BELLWIRE_API_RATE="0", BELLWIRE_PUBLISH_RATE="0") as url:
        yield replace(served, url=url)


@pytest.fixture(scope="module")
async def parameters(served: Served) -> dict[str, str]:
    """Of existing resources."""
    subscription = await served.system.hook("/malformed", "gateway.malformed", tenant="acme")
    polled = await served.system.subscribe({"channel": "poll"}, "gateway.malformed.polled", tenant="acme")
    # A channel that takes messages back; without an account, it is exhausted at once.
    chat = {"channel": "slack", "conversation": "C1"}
    await served.system.subscribe(chat, "gateway.malformed", tenant="acme", retry_schedule=())
    replay = replay_since(subscription, datetime.now(UTC))
    await served.system.registry.replays.add(replay)
    event = {
        "specversion": "1.0",
        "id": "malformed",
        "source": "/malformed",
        "type": "gateway.malformed",
        "tenant": "acme",
    }
    headers = {"content-type": "application/cloudevents+json", "prefer": "wait=30"}
    published = await served.call("POST", "/v1/events", event, headers=headers)
    key = published.headers["location"].rpartition("/")[2]
    created = await served.call("POST", "/v1/api-keys", {"scope": "publish"})
    await served.call("POST", "/v1/event-types", {"type": "malformed.type", "schema": {"type": "object"}})
    return {
        "key": key,
        "delivery_id": f"dlv_{key}_{subscription.id}",
        "subscription_id": subscription.id,
        "poll_id": polled.id,
        "replay_id": replay.id,
        "key_id": created.json["id"],
        "name": "webhook",
        "channel": "sms",
        "tenant": "acme",
        "type": "malformed.type",
        "version": "1",
    }


def of_channel(path: str, parameters: dict[str, str]) -> dict[str, str]:
    """The parameters with a subscription of the channel that the operation is for."""
    return {**parameters, "subscription_id": parameters["poll_id"]} if path.endswith("/poll") else parameters


def cases(method: str, template: str, operation: dict[str, Any], parameters: dict[str, str]) -> Iterator[Case]:
    parameters = of_channel(template, parameters)
    path = template
    for name, value in parameters.items():
        path = path.replace(f"{{{name}}}", value)
    if "requestBody" in operation:
        for name, body in BODIES.items():
            yield Case(f"the body is {name}", method, path, body)
        yield Case("the body is another media type", method, path, b"a=1", ((b"content-type", b"text/plain"),))
        yield Case("the media type is not one", method, path, b"{}", ((b"content-type", b"\xff/;;"),))
        yield Case(
            "the charset is unknown",
            method,
            path,
            b"{}",
            ((b"content-type", b"application/json; charset=x\xff"),),
            may_succeed=True,
        )
    for parameter in operation.get("parameters", ()):
        name, where = parameter["name"], parameter["in"]
        if where == "path":
            for value in PATHS:
                yield Case(
                    f"the path has {value[:20]}", method, template.replace(f"{{{name}}}", value).format_map(parameters)
                )
        elif where == "query":
            for value in CURSORS if name == "cursor" else QUERIES:
                yield Case(f"{name}={value[:20]}", method, f"{path}?{name}={value}", may_succeed=name != "cursor")
    if method == "POST" and template != "/v1/events":
        for key in KEYS:
            yield Case(f"the idempotency key is {key[:20]!r}", method, path, b"{}", ((b"idempotency-key", key),))
    for authorization in (b"", b"Bearer", b"Bearer \xff", b"Basic YTpi", b"Bearer bw_", b"Bearer " + b"x" * 4_000):
        yield Case(f"the key is {authorization[:20]!r}", method, path, headers=((b"authorization", authorization),))


def subscription() -> dict[str, Any]:
    return {
        "id": f"sub_{uuid7().hex}",
        "tenant": "acme",
        "types": ["never.published"],
        "filters": [{"exact": {"type": "never.published"}}],
        "target": {"channel": "webhook", "url": "https://hooks.example/orders", "headers": {"x-a": "b"}, "timeout": 5},
        "template": "order.paid",
        "locale": "en",
        "retry_schedule": [1, 2],
        "rate_limit": 5,
        "state": "active",
        "state_reason": None,
        "version": 1,
        "updated_at": "2026-01-01T00:00:00Z",
        "secret": None,
        "asymmetric": False,
    }


def event() -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": str(uuid7()),
        "source": "/malformed",
        "type": "never.published",
        "tenant": "acme",
        "subject": "1",
        "time": "2026-01-01T00:00:00Z",
        "datacontenttype": "application/json",
        "dataschema": "https://schemas.example/1",
        "extension": "text",
        "data": {"order": "42"},
    }


def mail(channel: str, **fields: Any) -> dict[str, Any]:
    return {"tenant": "acme", "types": ["never.published"], "target": {"channel": channel, **fields}}


def valid_bodies() -> dict[str, list[Any]]:
    """Bodies of each operation, to be changed in one place."""
    set_by_the_registry = {"id", "tenant", "state", "state_reason", "version", "updated_at", "secret", "asymmetric"}
    change = {name: value for name, value in subscription().items() if name not in set_by_the_registry}
    details = {"description": "x", "owner": "x", "deprecated": "x", "retry_schedule": [1, 2]}
    version = {"schema": {"type": "object"}, "examples": [{"order": "42"}]}
    suppression = {"address": "malformed@example.com", "channel": "email"}
    return {
        "POST /v1/events": [event()],
        "POST /v1/events/precheck": [event()],
        "POST /v1/events/{key}/cancel": [{"subscription": None}],
        "POST /v1/events/{key}/recall": [{"subscription": None}],
        "POST /v1/subscriptions": [
            subscription(),
            mail("email", to=["ann@example.com"]),
            mail("sms", to="+14155550123"),
        ],
        "POST /v1/subscriptions/simulate": [
            {"tenant": "acme", "types": ["never.published"], "filters": [{"exact": {"type": "a"}}], "last": 5}
        ],
        "PATCH /v1/subscriptions/{subscription_id}": [change, {"templates": {"webhook.json": "{}"}}],
        "POST /v1/subscriptions/{subscription_id}/rotate-secret": [{"overlap": 1, "secret": None}],
        "POST /v1/subscriptions/{subscription_id}/test": [{"event": event()}],
        "POST /v1/subscriptions/{subscription_id}/replays": [
            {"since": "1h", "types": ["never.published"], "rate": 5.0, "failed": False, "dry_run": True}
        ],
        # After the replay, which a paused subscription does not begin.
        "POST /v1/subscriptions/{subscription_id}/pause": [{"reason": "x"}],
        "POST /v1/deliveries/{delivery_id}/redeliver": [{"end_pause": False}],
        "POST /v1/api-keys": [{"scope": "publish", "description": "x", "expires_in": 60}],
        "POST /v1/api-keys/{key_id}/rotate": [{"overlap": 1}],
        "POST /v1/event-types": [{"type": "malformed.type", **details, **version}],
        "PATCH /v1/event-types/{type}": [details],
        "POST /v1/event-types/{type}/versions": [version],
        "POST /v1/suppressions": [suppression],
        "POST /v1/suppressions/lift": [suppression],
        "PUT /v1/limits/{channel}": [{"per_second": 5.0}],
        # Without data, which may be anything, since each preview starts a process.
        "POST /v1/templates/preview": [{"name": "order.paid"}],
    }


def changed(value: Any, into: Any) -> Iterator[tuple[str, Any]]:
    """The value with each of its members replaced, by the place of that."""
    yield "", into
    match value:
        case dict():
            for name, member in value.items():
                for place, other in changed(member, into):
                    yield f"{name}.{place}", {**value, name: other}
        case list():
            for place, other in changed(value[0], into):
                yield f"0.{place}", [other, *value[1:]]


async def refused(served: Served, cases: list[Case], *, at_a_time: int = 16) -> None:
    """Send all of them."""
    slots = asyncio.Semaphore(at_a_time)

    async def check(case: Case) -> str | None:
        async with slots:
            try:
                return wrong(case, await sent(served, case))
            except TimeoutError:
                return f"{case.method} {case.path[:60]}: {case.name}: no response"

    found = [each for each in await asyncio.gather(*map(check, cases)) if each]
    assert not found, f"{len(found)} of {len(cases)}:\n" + "\n".join(found)


async def test_every_body_has_a_valid_one(served: Served, parameters: dict[str, str]) -> None:
    with_body = {f"{method} {path}" for method, path, each in await operations(served) if "requestBody" in each}
    assert with_body == set(valid_bodies())
    for operation, bodies in valid_bodies().items():
        method, _, template = operation.partition(" ")
        headers = {"content-type": "application/cloudevents+json"} if template == "/v1/events" else {}
        for body in bodies:
            response = await served.call(method, template.format_map(parameters), body, headers=headers)
            assert response.status < 300, f"{operation}: {response.body!r}"


@pytest.mark.slow
@pytest.mark.timeout(600)  # hundreds of requests, some of which start a process to check templates
@pytest.mark.parametrize("operation", valid_bodies())
async def test_every_member_of_a_body_is_checked(served: Served, parameters: dict[str, str], operation: str) -> None:
    method, _, template = operation.partition(" ")
    headers = ((b"content-type", STRUCTURED),) if template == "/v1/events" else ()
    path = template.format_map(parameters)
    await refused(
        served,
        [
            Case(f"{place} is {str(into)[:30]!r}", method, path, json.dumps(body).encode(), headers, may_succeed=True)
            for valid in valid_bodies()[operation]
            for into in VALUES
            for place, body in changed(valid, into)
        ],
        # Changes of the same subscription at the same time are conflicts.
        at_a_time=1 if method == "PATCH" else 16,
    )


async def test_publishing_checks_what_headers_and_bodies_have(served: Served) -> None:
    binary = {b"ce-specversion": b"1.0", b"ce-id": b"1", b"ce-source": b"/malformed", b"ce-type": b"never.published"}
    cases = [
        Case(
            f"{name!r}: {value[:20]!r}",
            "POST",
            "/v1/events",
            b"{}",
            tuple({**binary, name: value}.items()),
            may_succeed=True,
        )
        for name in (*binary, b"ce-time", b"ce-subject", b"ce-tenant", b"ce-dataschema")
        for value in (b"", b"%", b"%00", b"%ff", b"%ed%a0%80", b"\xff", b'"', b'"\\', b"x" * 8_000)
    ]
    cases += [
        Case(f"the header {name[:20]!r}", "POST", "/v1/events", b"{}", (*binary.items(), (name, b"1")))
        for name in (b"ce-", b"ce-a_b", b"ce-data", b"ce-" + b"a" * 300, b"ce-specversion", b"ce-datacontenttype")
    ]
    for content_type in (STRUCTURED, BATCH):
        cases += [
            Case(f"{content_type!r}: {name}", "POST", "/v1/events", body, ((b"content-type", content_type),))
            for name, body in BODIES.items()
        ]
        cases += [
            Case(
                f"charset {charset!r}",
                "POST",
                "/v1/events",
                b'{"a": "\\x"}',
                ((b"content-type", content_type + b"; charset=" + charset),),
            )
            for charset in CHARSETS
        ]
    await refused(served, cases)


#: Requests that are not HTTP/1.1, and the status and field of their problem.
NOT_HTTP = [
    (b"GET /v1/channels HTTP/1.1\r\n\r\n", 400, "Host"),
    (b"GET /v1/channels HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400, "Host"),
    (b"GET /v1/channels\xff HTTP/1.1\r\nhost: x\r\n\r\n", 400, "request"),
    (b"GET / v1 HTTP/1.1\r\nhost: x\r\n\r\n", 400, "request"),
    (b"\x16\x03\x01\0\0\r\n\r\n", 400, "request"),
    (b"GET /v1/channels HTTP/1.1\r\nhost: x\r\na b: c\r\n\r\n", 400, "request"),
    (b"GET /v1/channels HTTP/1.1\r\nhost: x\r\na: \0\r\n\r\n", 400, "request"),
    (b"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", 400, "Content-Length"),
    (b"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400, "Content-Length"),
    (b"POST /v1/events HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n", 400, "Transfer-Encoding"),
    (b"POST /v1/events HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nz\r\n", 400, "request"),
    # Without an end: a head that is larger and arrives as a whole is parsed.
    (b"GET /v1/channels?" + b"x" * 20_000, 431, "request"),
    (b"GET /v1/channels HTTP/1.1\r\nhost: x\r\nx-a: " + b"x" * 20_000, 431, "request"),
]


async def test_what_is_not_http_gets_a_problem_too(served: Served) -> None:
    host = urlsplit(served.url)
    for request, status, field in NOT_HTTP:
        reader, writer = await asyncio.open_connection(host.hostname, host.port)
        writer.write(request)
        async with asyncio.timeout(60):
            received = await reader.read()
        writer.transport.abort()
        head, _, body = received.partition(b"\r\n\r\n")
        problem = json.loads(body)
        assert head.startswith(f"HTTP/1.1 {status} ".encode()), request[:60]
        assert b"content-type: application/problem+json" in head
        assert f"x-request-id: {problem['request_id']}".encode() in head
        assert (problem["status"], [error["field"] for error in problem["errors"]]) == (status, [field]), request[:60]


async def test_prefer_and_if_match_are_checked(served: Served, parameters: dict[str, str]) -> None:
    status = f"/v1/events/{parameters['key']}/status"
    subscription = f"/v1/subscriptions/{parameters['subscription_id']}"
    body = json.dumps(event()).encode()
    cases = []
    for value in PREFERENCES:
        headers = ((b"content-type", STRUCTURED), (b"prefer", value))
        cases.append(Case(f"Prefer: {value!r}", "POST", "/v1/events", body, headers))
        cases.append(Case(f"Prefer: {value!r}", "GET", status, None, ((b"prefer", value),)))
    cases += [
        Case(f"If-Match: {value!r}", "PATCH", subscription, b'{"locale": "fr"}', ((b"if-match", value),))
        for value in ETAGS
    ]
    await refused(served, cases)


async def test_every_operation_refuses_malformed_requests(served: Served, parameters: dict[str, str]) -> None:
    found = [
        case
        for method, template, operation in await operations(served)
        if method != "DELETE"
        for case in cases(method, template, operation, parameters)
    ]
    assert len(found) > 900
    await refused(served, found)
