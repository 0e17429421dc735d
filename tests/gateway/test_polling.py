"""Polling over HTTP: an app reads the events of its subscription by cursors, while others publish."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bellwire import Client, Event, Subscription
from bellwire.errors import CursorExpired, RequestRefused
from bellwire.events import uuid7
from starter.operations.delivery.polling import FeedCursor
from tests.acceptance.conftest import running_gateway
from tests.gateway.conftest import Served
from tests.gateway.test_command import run, started


def kind() -> str:
    return f"polled.{uuid7().hex}"


async def subscribe(served: Served, event_type: str, **fields: Any) -> Subscription:
    return await served.system.subscribe({"channel": "poll"}, event_type, **fields)


async def publish(served: Served, event_type: str, *ids: str, **fields: Any) -> list[Event]:
    """Publish one after another, and wait until each is in the feed."""
    events = [
        Event.model_validate({"source": "/poll", "type": event_type, "id": f"{event_type}-{each}", **fields})
        for each in ids
    ]
    for event in events:
        status = await served.system.client.wait(await served.system.client.publish(event), timeout=30)
        assert status.counts.delivered == 1
    return events


async def test_a_cursor_goes_on_where_it_was_and_stays_valid(served: Served) -> None:
    event_type = kind()
    subscription = await subscribe(served, event_type)
    path = f"/v1/subscriptions/{subscription.id}/poll"
    empty = await served.call("GET", path)
    assert (empty.status, empty.json["events"], empty.json["more"]) == (200, [], False)
    events = await publish(served, event_type, "1", "2", "3", data={"n": 1})
    first = await served.call("GET", f"{path}?limit=2")
    assert first.json["more"] is True
    assert first.json["events"] == [
        {**event.structured(), "deliveryid": f"dlv_{event.key}_{subscription.id}"} for event in events[:2]
    ]
    second = await served.call("GET", f"{path}?limit=2&cursor={first.json['cursor']}")
    assert ([event["id"] for event in second.json["events"]], second.json["more"]) == ([events[2].id], False)
    again = await served.call("GET", f"{path}?limit=2&cursor={first.json['cursor']}")
    assert again.json == second.json
    at_the_end = await served.call("GET", f"{path}?cursor={second.json['cursor']}")
    assert (at_the_end.json["events"], at_the_end.json["cursor"]) == ([], second.json["cursor"])
    from_empty = await served.call("GET", f"{path}?cursor={empty.json['cursor']}")
    assert [event["id"] for event in from_empty.json["events"]] == [event.id for event in events]
    latest = (await served.call("GET", f"{path}?cursor=latest")).json
    assert (latest["events"], latest["cursor"]) == ([], second.json["cursor"])


async def test_a_request_that_waits_gets_the_next_event(served: Served) -> None:
    event_type = kind()
    subscription = await subscribe(served, event_type)
    path = f"/v1/subscriptions/{subscription.id}/poll"
    waiting = [asyncio.create_task(served.call("GET", f"{path}?wait=30{more}")) for more in ("", "&cursor=latest")]
    (event,) = await publish(served, event_type, "1")
    async with asyncio.timeout(20):
        for response in await asyncio.gather(*waiting):
            assert [each["id"] for each in response.json["events"]] == [event.id]
    nothing = await served.call("GET", f"{path}?cursor=latest&wait=1")
    assert (nothing.status, nothing.json["events"]) == (200, [])


async def test_cursors_that_are_not_of_this_feed_are_refused(served: Served) -> None:
    event_type = kind()
    subscription, other = await subscribe(served, event_type), await subscribe(served, f"{event_type}.other")
    await publish(served, event_type, "1")
    path = f"/v1/subscriptions/{subscription.id}/poll"
    cursor = (await served.call("GET", path)).json["cursor"]
    _, feed_id, position, *_ = FeedCursor.parse(cursor)
    foreign = await served.call("GET", f"/v1/subscriptions/{other.id}/poll?cursor={cursor}")
    assert (foreign.status, foreign.json["errors"][0]["field"]) == (400, "cursor")
    assert "another subscription" in foreign.json["detail"]
    for bad in ("x", cursor[:-1], cursor + "A", "bGF0ZXN0", "%F0%9F%98%80"):
        refused = await served.call("GET", f"{path}?cursor={bad}")
        assert (refused.status, refused.json["errors"][0]["field"]) == (400, "cursor"), bad
    for expired in (
        FeedCursor(subscription.id, "00000000", position),
        FeedCursor(subscription.id, "", position),
        FeedCursor(subscription.id, feed_id, position + 1),
    ):
        gone = await served.call("GET", f"{path}?cursor={expired}")
        assert (gone.status, gone.json["type"]) == (410, "/v1/problems/cursor-expired"), expired
        assert "cursor=latest" in gone.json["detail"]
    hook = await served.system.hook(f"/{event_type}", f"{event_type}.hook")
    not_polled = await served.call("GET", f"/v1/subscriptions/{hook.id}/poll")
    assert (not_polled.status, "channel webhook" in not_polled.json["detail"]) == (409, True)


async def test_a_cursor_from_before_what_was_purged_expires(served: Served) -> None:
    event_type = kind()
    subscription = await subscribe(served, event_type)
    path = f"/v1/subscriptions/{subscription.id}/poll"
    start = (await served.call("GET", path)).json["cursor"]
    await publish(served, event_type, "1")
    reached = (await served.call("GET", path)).json["cursor"]
    await served.system.registry.retention.purge(datetime.now(UTC))
    (event,) = await publish(served, event_type, "2")
    expired = await served.call("GET", f"{path}?cursor={start}")
    assert (expired.status, expired.json["type"]) == (410, "/v1/problems/cursor-expired")
    for cursor in (reached, ""):
        page = (await served.call("GET", f"{path}?cursor={cursor}")).json
        assert [each["id"] for each in page["events"]] == [event.id]


async def test_a_reader_gets_each_event_while_gateways_come_and_go(served: Served, tmp_path: Path) -> None:
    """The cursor is all that a reader needs: no gateway knows of it."""
    event_type, number = kind(), 60
    subscription = await subscribe(served, event_type)
    events = [
        Event.model_validate({"source": "/poll", "type": event_type, "id": f"{event_type}-{each}"})
        for each in range(number)
    ]
    publishing = asyncio.create_task(served.system.client.publish_many(events[: number // 2]))
    found, cursor = list[str](), ""
    for restart in range(3):
        async with (
            running_gateway(served.system, log=tmp_path / f"{restart}.log") as url,
            await Client.connect(url=url, key=served.admin) as client,
        ):
            page = await client.poll(subscription.id, cursor, limit=7, wait=5)
            found += [each.event.id for each in page.events]
            cursor = page.cursor
    await publishing
    await served.system.client.publish_many(events[number // 2 :])
    async with await Client.connect(url=served.url, key=served.admin) as client, asyncio.timeout(60):
        while len(found) < number:
            page = await client.poll(subscription.id, cursor, limit=7, wait=10)
            found += [each.event.id for each in page.events]
            cursor = page.cursor
    assert sorted(found) == sorted(event.id for event in events)


async def test_a_stopping_gateway_ends_requests_that_wait(served: Served, tmp_path: Path) -> None:
    subscription = await subscribe(served, kind())
    headers = {"authorization": f"Bearer {served.admin}"}
    async with running_gateway(served.system, log=tmp_path / "gateway.log") as url:
        async with served.session.get(f"{url}/v1/subscriptions/{subscription.id}/poll", headers=headers) as response:
            cursor = (await response.json())["cursor"]
        path = f"{url}/v1/subscriptions/{subscription.id}/poll?wait=30&cursor={cursor}"
        waiting = asyncio.create_task(served.session.get(path, headers=headers))
        for _ in range(3):
            # The gateway takes requests in their order.
            async with served.session.get(f"{url}/ready") as ready:
                assert ready.status == 200
        assert not waiting.done()
    async with asyncio.timeout(5):
        response = await waiting
        assert (response.status, (await response.json())["events"]) == (200, [])


async def test_a_test_send_reaches_the_reader_and_a_pause_does_not(served: Served) -> None:
    event_type = kind()
    subscription = await subscribe(served, event_type)
    path = f"/v1/subscriptions/{subscription.id}"
    tested = await served.call("POST", f"{path}/test", {"event": {"type": event_type, "data": {"n": 7}}})
    assert (tested.status, tested.json["outcome"]) == (200, "delivered"), tested.body
    (event,) = (await served.call("GET", f"{path}/poll")).json["events"]
    assert event["data"] == {"n": 7}
    await served.call("POST", f"{path}/pause")
    assert (await served.call("GET", f"{path}/poll")).json["events"] == [event]
    await served.call("POST", f"{path}/resume")
    (published,) = await publish(served, event_type, "1")
    redelivery = f"/v1/deliveries/dlv_{published.key}_{subscription.id}/redeliver"
    assert (await served.call("POST", redelivery)).status == 202
    cursor = (await served.call("GET", f"{path}/poll?limit=2")).json["cursor"]
    again = (await served.call("GET", f"{path}/poll?wait=20&cursor={cursor}")).json["events"]
    assert [each["id"] for each in again] == [published.id]


async def test_the_client_polls(served: Served) -> None:
    event_type = kind()
    subscription = await subscribe(served, event_type)
    events = await publish(served, event_type, "1", "2", subject="s", data={"n": 1})
    async with await Client.connect(url=served.url, key=served.admin) as client:
        page = await client.poll(subscription.id)
        assert [each.event for each in page.events] == events
        assert page.events[0].delivery_id == f"dlv_{events[0].key}_{subscription.id}"
        with pytest.raises(CursorExpired, match="poll without a cursor"):
            await client.poll(subscription.id, str(FeedCursor(subscription.id, "00000000", 1)))
        with pytest.raises(RequestRefused, match="no subscription nobody exists"):
            await client.poll("nobody")


async def test_the_command_prints_events_and_keeps_its_cursor(served: Served, tmp_path: Path) -> None:
    event_type = kind()
    created = await run(served, "subscribe", "--type", event_type, "--poll", "--json")
    assert created.status == 0, created.errors
    subscription = created.json["id"]
    file = tmp_path / "cursor"
    events = await publish(served, event_type, "1", "2")
    done = await run(served, "poll", subscription, "--limit", "1", "--cursor-file", str(file))
    assert ([json.loads(line)["id"] for line in done.output.splitlines()], done.status) == ([events[0].id], 0)
    done = await run(served, "poll", subscription, "--cursor-file", str(file))
    assert [json.loads(line)["id"] for line in done.output.splitlines()] == [events[1].id]
    latest = await run(served, "poll", subscription, "--cursor", "latest")
    assert (latest.output, "Continue with --cursor" in latest.errors) == ("", True)
    following = await started(served.url, served.admin, "poll", subscription, "--follow", "--cursor-file", str(file))
    try:
        (third,) = await publish(served, event_type, "3")
        async with asyncio.timeout(30):
            assert json.loads(await following.stdout.readline())["id"] == third.id
    finally:
        following.terminate()
        await following.wait()
    refused = await run(served, "poll", subscription, "--cursor", "x")
    assert (refused.status, "cursor: is not a cursor" in refused.errors) == (2, True)
