"""What the OpenAPI document says of webhooks is what endpoints get."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator

from activities.webhook.responses import CONTROL_HEADER, classify_response
from bellwire import Event
from bellwire.deliveries import Attempt, Delivery, DeliveryState, Outcome, OutcomeKind
from bellwire.endpoint_health import EndpointHealth
from bellwire.registry.operational_events import (
    OperationalEvent,
    absent_event,
    conflict_event,
    event_of,
    exhausted_event,
)
from bellwire.targets import Channel, WebhookFormat
from docs.generator.http_api import openapi
from starter.local.receivers.webhooks import Received
from tests.activities.webhook.test_body import posted, template
from tests.activities.webhook.test_handshake import WELCOME, Bench
from tests.activities.webhook.test_handshake import bench as bench
from tests.factories import event

DOCUMENT = openapi()
#: Headers that HTTP itself has.
TRANSPORT = {"host", "accept", "accept-encoding", "content-length", "content-type", "connection"}
NOW = datetime(2026, 12, 1, 8, 30, tzinfo=UTC)


def validator(schema: Mapping[str, Any]) -> Draft202012Validator:
    """Of a schema with the components that it refers to."""
    return Draft202012Validator({**schema, "components": DOCUMENT["components"]}, validate_formats=True)


def differences(got: Received, operation: Mapping[str, Any]) -> list[str]:
    """What a request has that its description has not, or the other way round."""
    headers = {name.lower(): value for name, value in got.headers.items()}
    described = {each["name"]: each for each in operation["parameters"] if each["in"] == "header"}
    found = [f"{name} is not described" for name in headers.keys() - described.keys() - TRANSPORT]
    for name, parameter in described.items():
        if name in headers:
            found += [f"{name}: {error.message}" for error in validator(parameter["schema"]).iter_errors(headers[name])]
        elif parameter["required"]:
            found.append(f"{name} is missing")
    if not got.body and not operation["requestBody"]["required"]:
        return found
    content = operation["requestBody"]["content"]
    media = headers["content-type"].partition(";")[0]
    if media not in content and "*/*" not in content:
        return [*found, f"{media} is not described"]
    body = json.loads(got.body) if media.endswith("json") else got.body.decode()
    schema = content.get(media, content.get("*/*"))["schema"]
    return [*found, *(f"{error.instance_path}: {error.message}" for error in validator(schema).iter_errors(body))]


EVENTS: dict[str, dict[str, Any]] = {
    "whole": {
        "subject": "42",
        "dataschema": "https://schemas.example/order",
        "datacontenttype": "application/json",
        "data": {"order": "42", "none": None},
    },
    "without data": {"data": None},
    "of text": {"datacontenttype": "text/plain; charset=utf-8", "data": "größer"},
    "too large for headers": {"subject": "你" * 1000},
}


@pytest.mark.parametrize("form", WebhookFormat)
@pytest.mark.parametrize("name", EVENTS)
async def test_a_sent_request_is_as_described(form: WebhookFormat, name: str, tmp_path: Any) -> None:
    renderer = template(tmp_path, '{"order": {{ id }}}')
    got = await posted(event(**EVENTS[name]), renderer=renderer, format=str(form))
    assert differences(got, DOCUMENT["webhooks"][f"event.{form}"]["post"]) == []


async def test_every_attribute_of_binary_mode_is_described() -> None:
    got = await posted(event(**EVENTS["whole"]), format="cloudevents-binary")
    described = {each["name"] for each in DOCUMENT["webhooks"]["event.cloudevents-binary"]["post"]["parameters"]}
    assert {name for name in described if name.startswith("ce-")} == {
        name for name in got.headers if name.startswith("ce-")
    }


async def test_a_request_that_differs_from_its_description_is_found() -> None:
    got = await posted(event(), format="standard")
    assert differences(got, DOCUMENT["webhooks"]["event.cloudevents"]["post"]) == ["application/json is not described"]
    operation = DOCUMENT["webhooks"]["event.standard"]["post"]
    without = {**operation, "parameters": [each for each in operation["parameters"] if each["name"] != "webhook-id"]}
    assert differences(got, without) == ["webhook-id is not described"]


def operational(kind: OperationalEvent) -> Event:
    """As the registry makes it."""
    match kind:
        case OperationalEvent.FAILING | OperationalEvent.DISABLED:
            health = EndpointHealth(failing_since=NOW, failures=20)
            return event_of(kind, "sub_1", tenant="acme", channel="webhook", reason="HTTP 500", health=health, now=NOW)
        case OperationalEvent.EXHAUSTED:
            published = event()
            delivery = Delivery(
                event_key=published.key,
                subscription_id="sub_1",
                channel=Channel.WEBHOOK,
                state=DeliveryState.EXHAUSTED,
                attempts=10,
                reason="HTTP 500",
                workflow_id="event/1",
                updated_at=NOW,
            )
            last = Attempt(
                event_key=published.key,
                subscription_id="sub_1",
                state=DeliveryState.EXHAUSTED,
                number=10,
                started_at=NOW,
                duration=0.1,
                outcome=Outcome(kind=OutcomeKind.DEFERRED, reason="HTTP 500"),
            )
            return exhausted_event(delivery, published, tenant="acme", last=last)
        case OperationalEvent.CONFLICT:
            return conflict_event(event(), workflow_id="event/1", run_id="1", published_by="event/2", now=NOW)
        case OperationalEvent.HANDLERS_ABSENT:
            return absent_event("accounts", tenant="acme", handlers=["send_welcome"], last_seen=NOW, now=NOW)


@pytest.mark.parametrize("kind", OperationalEvent)
async def test_a_sent_operational_event_is_as_described(kind: OperationalEvent) -> None:
    operation = DOCUMENT["webhooks"][kind]["post"]
    assert differences(await posted(operational(kind)), operation) == []
    assert differences(await posted(event()), operation) != []


async def test_a_sent_request_for_consent_is_as_described(bench: Bench) -> None:
    await bench.subscribe(rate_limit=2)
    bench.hooks.script_options("/hook", WELCOME)
    await bench.attempt()
    asked, delivered = bench.hooks.received
    assert differences(asked, {**DOCUMENT["webhooks"]["consent"]["options"], "requestBody": {"required": False}}) == []
    assert "webhook-request-rate" in asked.headers
    assert differences(delivered, DOCUMENT["webhooks"]["event.cloudevents"]["post"]) == []
    assert "webhook-request-origin" in delivered.headers


def test_a_response_has_the_outcome_that_is_described() -> None:
    responses = DOCUMENT["webhooks"]["event.cloudevents"]["post"]["responses"]
    for status in range(200, 600):
        described = responses.get(str(status)) or responses.get(f"{status // 100}XX") or responses["default"]
        outcome = classify_response(status, {}, b"", now=0)
        assert outcome.kind == described["x-outcome"], status
        assert outcome.disable == ("disabled" in described["description"]), status
        for headers in ({}, {"retry-after": "5"}):
            throttled = classify_response(status, headers, b"", now=0).throttle
            says = "throttled" in described["description"] or described["description"] == "As 429."
            assert throttled == (says and (status != 503 or bool(headers))), status
    for control in responses["default"]["headers"]["WebHook-Delivery"]["schema"]["enum"]:
        refused = classify_response(500, {CONTROL_HEADER: control}, b"", now=0)
        assert refused.kind is OutcomeKind.REJECTED, control


def test_the_document_names_every_format_and_operational_event() -> None:
    expected = {*(f"event.{form}" for form in WebhookFormat), *OperationalEvent, "consent"}
    assert DOCUMENT["webhooks"].keys() == expected
