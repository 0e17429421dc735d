"""The SDK over HTTP: the same methods, results and errors as over Temporal."""

import inspect
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from bellwire import Client, Event
from bellwire.errors import (
    ApiKeyRefused,
    DeliveryNotFound,
    EventConflict,
    EventInvalid,
    EventNotFound,
    GatewayUnavailable,
    WaitTimeout,
)
from bellwire.events import uuid7
from bellwire.http.client import HttpClient
from starter.local.processes import free_port
from tests.gateway.conftest import Served


@pytest.fixture
async def client(served: Served) -> AsyncIterator[HttpClient]:
    async with await Client.connect(url=served.url, key=served.admin) as client:
        yield client


def event(kind: str, **fields: object) -> Event:
    return Event.model_validate({"source": "/sdk", "type": kind, **fields})


@pytest.mark.parametrize("name", ["publish", "publish_many", "status", "wait", "cancel", "recall", "retry"])
def test_both_clients_have_the_same_methods(name: str) -> None:
    assert inspect.signature(getattr(HttpClient, name)) == inspect.signature(getattr(Client, name))


async def test_an_event_is_published_followed_and_found_by_the_client_over_temporal(
    served: Served, client: HttpClient
) -> None:
    await served.system.hook("/sdk", "sdk.delivered")
    published = event("sdk.delivered", data={"n": 1})
    receipt = await client.publish(published)
    status = await client.wait(receipt, timeout=30)
    assert (receipt.duplicate, status.settled, status.counts.delivered) == (False, True, 1)
    assert await served.system.client.status(published) == status
    assert (await client.publish(published)).duplicate is True
    with pytest.raises(EventConflict, match="published before with other content"):
        await client.publish(published.model_copy(update={"data": {"n": 2}}))


async def test_many_events_get_receipts_in_their_order(client: HttpClient) -> None:
    events = [event("sdk.many", id=f"many-{number}") for number in range(250)]
    receipts = await client.publish_many(events)
    assert [receipt.event_id for receipt in receipts] == [each.id for each in events]


async def test_a_deprecated_type_is_in_receipts_and_in_the_log_of_the_publisher(
    served: Served, client: HttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    kind = f"sdk.{uuid7().hex}"
    await served.call("POST", "/v1/event-types", {"type": kind, "deprecated": "use sdk.new"})
    receipts = [await client.publish(event(kind)), *await client.publish_many([event(kind), event("sdk.new")])]
    assert [receipt.deprecated for receipt in receipts] == ["use sdk.new", "use sdk.new", None]
    warnings = [record.getMessage() for record in caplog.records if record.name == "bellwire"]
    assert warnings == [f"event type {kind} is deprecated: use sdk.new"]


async def test_waiting_ends_in_time_and_says_what_is_unsettled(served: Served, client: HttpClient) -> None:
    served.system.hooks.script("/sdk-refusing", 500, repeat=True)
    subscription = await served.system.hook("/sdk-refusing", "sdk.refused")
    receipt = await client.publish(event("sdk.refused"))
    with pytest.raises(WaitTimeout, match="not settled within 2s"):
        await client.wait(receipt, timeout=2)
    (unsettled,) = (await client.status(receipt)).unsettled
    assert (unsettled.subscription_id, unsettled.reason) == (subscription.id, "HTTP 500")
    assert await client.retry(receipt, subscription.id)
    await client.cancel(receipt)
    assert (await client.wait(receipt, timeout=30)).counts.cancelled == 1


async def test_errors_are_those_of_the_client_over_temporal(served: Served, client: HttpClient) -> None:
    with pytest.raises(EventNotFound):
        await client.status(("/sdk", "nothing"))
    with pytest.raises(EventNotFound):
        await client.cancel(("/sdk", "nothing"))
    with pytest.raises(DeliveryNotFound):
        await client.retry(("/sdk", "nothing"), "sub")
    async with HttpClient(served.url, "bw_mistyped") as refused:
        with pytest.raises(ApiKeyRefused, match="mistyped"):
            await refused.publish(event("sdk.refused"))
    async with HttpClient(f"http://127.0.0.1:{free_port()}", served.admin) as away:
        with pytest.raises(GatewayUnavailable, match="check the URL"):
            await away.publish(event("sdk.away"))


async def test_a_url_needs_a_key() -> None:
    with pytest.raises(ApiKeyRefused, match="needs `key`"):
        await Client.connect(url="http://127.0.0.1:1")


async def test_an_event_for_later_waits_and_is_cancelled(client: HttpClient) -> None:
    published = event("sdk.later")
    receipt = await client.publish(published, delay="2d")
    assert receipt.deliver_at is not None
    status = await client.status(published)
    assert (status.scheduled, status.settled, status.resolved) == (True, False, False)
    assert status.deliver_at is not None
    assert abs(status.deliver_at - receipt.deliver_at) < timedelta(seconds=5)
    await client.cancel(published)
    status = await client.wait(receipt, timeout=30)
    assert (status.cancelled, status.settled) == (True, True)
    receipts = await client.publish_many([event("sdk.later"), event("sdk.later")], deliver_at=receipt.deliver_at)
    assert [each.deliver_at for each in receipts] == [receipt.deliver_at] * 2
    with pytest.raises(EventInvalid, match="delay: is more than 365d ahead"):
        await client.publish(event("sdk.later"), delay="400d")
