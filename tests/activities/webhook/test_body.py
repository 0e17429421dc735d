"""Webhook bodies as real endpoints receive them, signed in every format."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from activities.rendering.renderer import Renderer
from activities.webhook.body import JSON, STRUCTURED, body_of
from bellwire.deliveries import OutcomeKind
from bellwire.events import Event
from bellwire.targets import Channel, WebhookTarget
from bellwire.webhooks import generate_secret, verify
from starter.local.receivers.webhooks import Received, WebhookReceiver
from tests.activities.webhook.test_webhook import channel
from tests.factories import event, send_request, subscription


async def posted(published: Event, *, renderer: Renderer | None = None, **target: Any) -> Received:
    """The request of one attempt, its signature verified by an independent library."""
    secret = generate_secret()
    async with WebhookReceiver() as hooks, channel(renderer=renderer) as webhook:
        hooks.expect("/", secret)
        subscribed = subscription({"channel": "webhook", "url": hooks.url(), **target})
        outcome = await webhook.attempt(send_request(subscribed, published, secret=secret))
        assert outcome.kind is OutcomeKind.DELIVERED, outcome
        (got,) = hooks.received
    assert got.verified
    verify(secret, got.headers, got.body)
    return got


def attributes(got: Received) -> dict[str, str]:
    """The attributes in the headers of a binary-mode request, by the HTTP binding §3.1.3.2."""
    found = {name.removeprefix("ce-"): value for name, value in got.headers.items() if name.startswith("ce-")}
    for value in found.values():
        assert all("!" <= character <= "~" and character != '"' for character in value), value
    return {name: unquote(value, errors="strict") for name, value in found.items()}


async def test_default_format_is_structured_cloudevents() -> None:
    published = event(subject="42")
    for got in (await posted(published), await posted(published, format="cloudevents")):
        assert got.headers["content-type"] == STRUCTURED
        assert got.event == published.structured()
        assert attributes(got) == {}


async def test_binary_mode_sends_data_as_body_and_attributes_as_headers() -> None:
    published = event(
        subject='Größe "42" 100% 你好 😀',
        dataschema="https://schemas.example/order%20paid",
        tenant="acme",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        sampled=True,
        sequence=-7,
        data={"text": "naïve", "list": [1, None]},
    )
    got = await posted(published, format="cloudevents-binary")
    assert json.loads(got.body) == published.data
    assert got.headers["content-type"] == "application/json"
    expected = {name: published.attribute(name) for name in published.structured() if name != "data"}
    assert attributes(got) == expected
    assert attributes(got)["sampled"] == "true"
    assert got.headers["ce-subject"].startswith("Gr%C3%B6%C3%9Fe%20%2242%22%20100%25%20%E4%BD%A0")
    assert got.headers["ce-specversion"] == "1.0"
    assert "ce-datacontenttype" not in got.headers


@pytest.mark.parametrize(
    ("fields", "content_type", "body"),
    [
        ({"data": None}, None, b""),
        ({"data": None, "datacontenttype": "application/json"}, "application/json", b""),
        ({"data": "text"}, "application/json", b'"text"'),
        (
            {"data": "größer", "datacontenttype": "text/plain; charset=utf-8"},
            "text/plain; charset=utf-8",
            "größer".encode(),
        ),
        ({"data": "text", "datacontenttype": "application/vnd.shop+json"}, "application/vnd.shop+json", b'"text"'),
        ({"data": [1], "datacontenttype": "text/plain"}, "text/plain", b"[1]"),
        ({"data": False}, "application/json", b"false"),
        ({"data": 1.5}, "application/json", b"1.5"),
    ],
)
async def test_binary_mode_sends_every_kind_of_data(
    fields: dict[str, Any], content_type: str | None, body: bytes
) -> None:
    got = await posted(event(**fields), format="cloudevents-binary")
    assert (got.headers.get("content-type"), got.body) == (content_type, body)
    assert attributes(got)["type"] == "order.paid"


@pytest.mark.parametrize(
    "fields",
    [
        {"datacontenttype": "no media type"},
        {"datacontenttype": "text/größe"},
        {"datacontenttype": "/"},
        {"note": "x" * 7000},
        {"subject": "你" * 1000},
    ],
)
async def test_event_that_does_not_fit_into_headers_is_sent_structured(fields: dict[str, Any]) -> None:
    published = event(**fields)
    got = await posted(published, format="cloudevents-binary")
    assert got.headers["content-type"] == STRUCTURED
    assert got.event == published.structured()
    assert attributes(got) == {}


async def test_standard_format_has_type_timestamp_and_data() -> None:
    published = event(subject="left out")
    got = await posted(published, format="standard")
    assert got.headers["content-type"] == JSON
    assert got.event == {"type": "order.paid", "timestamp": published.structured()["time"], "data": published.data}
    assert list(got.event) == ["type", "timestamp", "data"]
    assert (await posted(event(data=None), format="standard")).event["data"] == {}


def template(folder: Path, text: str, *, name: str = "order.paid", part: str = "webhook.json") -> Renderer:
    file = folder / name / part
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    renderer = Renderer(folder)
    renderer.check()
    return renderer


async def test_template_renders_the_body(tmp_path: Path) -> None:
    renderer = template(
        tmp_path,
        '{# a comment #}\n{"id": {{ id }}, "text": {{ "Order " ~ data.order }}, "all": {{ data }}, "who": {{ tenant }}}\n',
    )
    published = event(data={"order": '4"2', "text": "</script> 你好\u2028", "paid": True, "note": None})
    got = await posted(published, renderer=renderer, format="template")
    assert got.headers["content-type"] == JSON
    assert got.event == {"id": published.id, "text": 'Order 4"2', "all": published.data, "who": "acme"}
    assert "你好".encode() in got.body


async def test_template_and_locale_of_the_subscription_are_used(tmp_path: Path) -> None:
    template(tmp_path, '{"lang": "any"}', name="chat")
    renderer = template(tmp_path, '{"lang": "zh"}', name="chat/zh-CN")
    async with WebhookReceiver() as hooks, channel(renderer=renderer) as webhook:
        for locale in ("zh-CN", "en"):
            target = {"channel": "webhook", "url": hooks.url(), "format": "template"}
            subscribed = subscription(target, template="chat", locale=locale)
            await webhook.attempt(send_request(subscribed, secret=generate_secret()))
        assert [got.event["lang"] for got in hooks.received] == ["zh", "any"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            '{"a": {{ data.total }} 1}',
            "template order.paid/webhook.json: the result is not JSON: line 1: Expecting ',' delimiter",
        ),
        ('{"a": "Order {{ data.total }}"}', "template order.paid/webhook.json: the result is not JSON: line 1: "),
        ("{{ data.nothing }}", "template order.paid/webhook.json line 1: nothing is missing"),
        ('{"a":\n {{ data.total.nothing }}}', "template order.paid/webhook.json line 2: nothing is missing"),
        ("", "template order.paid/webhook.json: the result is not JSON: line 1: Expecting value"),
        ("NaN", "template order.paid/webhook.json: the result is not JSON"),
        ("[" * 100_000, "template order.paid/webhook.json: the result is not JSON"),
        (
            '{% for a in range(99999) %}{{ "aaaa" }},{% endfor %}',
            "template order.paid/webhook.json: too large: the result has more than",
        ),
        (None, "template default/webhook.json does not exist"),
    ],
)
async def test_template_that_renders_invalid_json_is_deferred_until_fixed(
    text: str | None, reason: str, tmp_path: Path
) -> None:
    renderer = Renderer() if text is None else template(tmp_path, text)
    async with WebhookReceiver() as hooks, channel(renderer=renderer) as webhook:
        target = {"channel": "webhook", "url": hooks.url(), "format": "template"}
        outcome = await webhook.attempt(send_request(subscription(target), secret=generate_secret()))
        assert hooks.received == []
    assert outcome.kind is OutcomeKind.DEFERRED
    assert outcome.reason.startswith(reason)
    assert "19.90" not in outcome.reason


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("{{ data.name }}", '", "admin": true, "x": "'),
        ("{{ data.name | tojson }}", '", "admin": true, "x": "'),
        ("{{ data.name | upper }}", '", "ADMIN": TRUE, "X": "'),
        ('{{ data.name ~ "!" }}', '", "admin": true, "x": "!'),
        ("{% macro said(text) %}{{ text }}{% endmacro %}{{ said(data.name) }}", '", "admin": true, "x": "'),
        ("{% include '_name.json' %}", '", "admin": true, "x": "'),
    ],
)
async def test_event_data_never_becomes_json_structure(expression: str, value: str, tmp_path: Path) -> None:
    (tmp_path / "order.paid").mkdir()
    (tmp_path / "_name.json").write_text("{{ data.name }}")
    renderer = template(tmp_path, f'{{"name": {expression}}}')
    published = event(data={"name": '", "admin": true, "x": "'})
    assert (await posted(published, renderer=renderer, format="template")).event == {"name": value}


def test_webhook_template_part_is_only_for_webhooks(tmp_path: Path) -> None:
    renderer = template(tmp_path, "{}", name="a")
    assert [kind for kind in Channel if renderer.has("a", kind)] == [Channel.WEBHOOK]


@pytest.mark.parametrize(
    ("media_type", "data", "content"),
    [
        ("text/plain; charset=ISO-8859-1", "é", b"\xe9"),
        ('text/plain; format=flowed;charset="iso-8859-1"', "é", b"\xe9"),
        ("text/csv;charset=windows-1252", "€", b"\x80"),
        ("text/plain; charset=utf-16", "é", "é".encode("utf-16")),
        ("text/plain; charset=GB18030", "你好", "你好".encode("gb18030")),
        ("text/plain; CHARSET=UTF-8", "é", "é".encode()),
        ('text/plain; x="charset=latin-1"', "é", "é".encode()),
        ("text/plain", "é", "é".encode()),
        ("application/json", {"a": "é"}, '{"a":"é"}'.encode()),
        ("application/json; charset=utf8", {"a": "é"}, '{"a":"é"}'.encode()),
        ("application/json; charset=iso-8859-1", {"a": "é"}, b'{"a":"\\u00e9"}'),
    ],
)
async def test_data_in_binary_mode_has_the_charset_of_its_media_type(
    media_type: str, data: Any, content: bytes
) -> None:
    target = {"channel": "webhook", "url": "https://app.example/", "format": "cloudevents-binary"}
    request = send_request(subscription(target), event(datacontenttype=media_type, data=data))
    assert isinstance(request.subscription.target, WebhookTarget)
    body = await body_of(request, request.subscription.target, Renderer())
    assert (body.content, body.headers["content-type"]) == (content, media_type)


@pytest.mark.parametrize(
    ("media_type", "data"),
    [
        ("text/plain; charset=us-ascii", "é"),
        ("text/plain; charset=iso-8859-1", "€"),
        ("text/plain; charset=klingon", "a"),
        ("text/plain; charset=base64", "a"),
        ("text/plain; charset=unicode-escape", "a"),
        ("application/json; charset=utf-16", {"a": "é"}),
        ("application/vnd.acme+json; charset=klingon", [1]),
        *(("text/plain; x=" + "a" * length, "a") for length in (6 * 1024, 9000, 100_000)),
    ],
)
async def test_event_that_does_not_fit_binary_mode_is_sent_as_one_object(media_type: str, data: Any) -> None:
    target = {"channel": "webhook", "url": "https://app.example/", "format": "cloudevents-binary"}
    happened = event(datacontenttype=media_type, data=data)
    request = send_request(subscription(target), happened)
    assert isinstance(request.subscription.target, WebhookTarget)
    body = await body_of(request, request.subscription.target, Renderer())
    assert body.headers == {"content-type": STRUCTURED}
    assert json.loads(body.content) == happened.structured()
