"""Malformed requests: each one is refused with a problem that names what is wrong, and none is an error of the gateway."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.gateway.conftest import Served

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
#: Values of a member that no schema allows, beside those of another type.
TEXTS = ["\x00", "\ud800", "x" * 100_000]
PATHS = ["%00", "a%00b", "%ff", "%ed%a0%80", "x" * 8_000, "%2e%2e%2f", "%F0%9F%98%80", "-", "%0a", "'", "%25"]
QUERIES = ["", "%00", "%ff", "%ed%a0%80", "x" * 8_000, "-1", "0", "99999999999999999999999", "nan", "1e3", "%F0%9F%98%80", "[]"]
CURSORS = ["!", "%00", "AA", "_w", "7aCA", "%ff", "x" * 600, "eA==="]
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
    types = [value.strip() for name, _, value in (field.partition(":") for field in fields) if name.lower() == "content-type"]
    return Answer(int(status.split()[1]) if status else 0, types[0] if types else "", body)


def wrong(case: Case, answer: Answer) -> str | None:
    """What is wrong with the answer, as a line for the developer."""
    shown = f"{case.method} {case.path[:60]}: {case.name}: {answer.status} {answer.body[:300]!r}"
    if case.may_succeed and 200 <= answer.status < 300:
        return None
    if not 400 <= answer.status < 500 or answer.content_type != "application/problem+json":
        return shown
    problem = json.loads(answer.body)
    if problem["status"] != answer.status or not problem["title"] or not problem["request_id"]:
        return f"{shown}: not a whole problem"
    if answer.status in {400, 412, 413, 422} and not all(each["field"] and each["message"] for each in problem.get("errors") or [{"field": ""}]):
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
async def parameters(served: Served) -> dict[str, str]:
    """Of existing resources."""
    subscription = await served.system.hook("/malformed", "gateway.malformed", tenant="acme")
    event = {"specversion": "1.0", "id": "malformed", "source": "/malformed", "type": "gateway.malformed", "tenant": "acme"}
    headers = {"content-type": "application/cloudevents+json", "prefer": "wait=30"}
    published = await served.call("POST", "/v1/events", event, headers=headers)
    key = published.headers["location"].rpartition("/")[2]
    created = await served.call("POST", "/v1/api-keys", {"scope": "publish"})
    return {
        "key": key,
        "delivery_id": f"dlv_{key}_{subscription.id}",
        "subscription_id": subscription.id,
        "key_id": created.json["id"],
        "name": "webhook",
    }


def cases(method: str, template: str, operation: dict[str, Any], parameters: dict[str, str]) -> Iterator[Case]:
    path = template
    for name, value in parameters.items():
        path = path.replace(f"{{{name}}}", value)
    if "requestBody" in operation:
        draft = template == "/v1/events/precheck"
        for name, body in BODIES.items():
            yield Case(f"the body is {name}", method, path, body)
        yield Case("the body is another media type", method, path, b"a=1", ((b"content-type", b"text/plain"),))
        yield Case("the media type is not one", method, path, b"{}", ((b"content-type", b"\xff/;;"),))
        yield Case("the charset is unknown", method, path, b"{}", ((b"content-type", b"application/json; charset=x\xff"),), may_succeed=True)
        del draft
    for parameter in operation.get("parameters", ()):
        name, where = parameter["name"], parameter["in"]
        if where == "path":
            for value in PATHS:
                yield Case(f"the path has {value[:20]}", method, template.replace(f"{{{name}}}", value).format_map(parameters))
        elif where == "query":
            for value in CURSORS if name == "cursor" else QUERIES:
                yield Case(f"{name}={value[:20]}", method, f"{path}?{name}={value}", may_succeed=name != "cursor")
    if method == "POST" and template != "/v1/events":
        for value in KEYS:
            yield Case(f"the idempotency key is {value[:20]!r}", method, path, b"{}", ((b"idempotency-key", value),))
    for value in (b"", b"Bearer", b"Bearer \xff", b"Basic YTpi", b"Bearer bw_", b"Bearer " + b"x" * 4_000):
        yield Case(f"the key is {value[:20]!r}", method, path, headers=((b"authorization", value),))


async def test_every_operation_refuses_malformed_requests(served: Served, parameters: dict[str, str]) -> None:
    found, number = [], 0
    for method, template, operation in await operations(served):
        if method == "DELETE":
            continue
        for case in cases(method, template, operation, parameters):
            number += 1
            if problem := wrong(case, await sent(served, case)):
                found.append(problem)
    assert not found, f"{len(found)} of {number}:\n" + "\n".join(found)
    assert number > 500
