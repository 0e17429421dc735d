"""HttpClient: publishes events and follows them through Bellwire's HTTP API. It needs `pip install bellwire[http]`."""

import asyncio
import json
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp

from bellwire import contract
from bellwire.contract import Recalled
from bellwire.deliveries import Counts, Failed, Unsettled, delivery_id, parse_delivery_id
from bellwire.errors import (
    ApiKeyRefused,
    CursorExpired,
    DeliveryNotFound,
    DeliveryPaused,
    EventConflict,
    EventInvalid,
    EventNotFound,
    GatewayUnavailable,
    NotRecallable,
    RequestRefused,
    WaitTimeout,
)
from bellwire.events import Event, event_key
from bellwire.formats.durations import format_duration
from bellwire.formats.timestamps import format_timestamp, parse_timestamp
from bellwire.http.polled import Polled, polled
from bellwire.receipts import DeprecationLog, EventReference, Receipt, Status, address_of
from bellwire.temporal.start_times import Delay, DeliverAt, start_time

#: Seconds for one request, beside those that it asks the gateway to wait.
REQUEST_TIMEOUT = 30.0
#: Attempts of a request that did not reach the gateway, or that it could not handle for now, and seconds before the second one.
ATTEMPTS, BACKOFF = 4, 0.25
#: Seconds that one request waits for an event to settle; the gateway allows no more.
WAIT_SLICE = 30
#: Requests of `publish_many` at a time.
CONCURRENCY = 4
#: Longest Retry-After that a request waits for before it fails.
MAX_RETRY_AFTER = 20.0


class HttpClient:
    """Publishes events and follows them over HTTP, with the methods of `Client`.

    ```python
    async with await Client.connect(url="https://events.example", key="bw_…") as client:
        receipt = await client.publish(Event(source="/shop", type="order.paid", data={"order": "42"}))
        status = await client.wait(receipt, timeout=30)
    ```
    """

    def __init__(self, url: str, key: str, *, session: aiohttp.ClientSession | None = None) -> None:
        self._url = url.rstrip("/")
        self._headers = {"authorization": f"Bearer {key}"}
        self._deprecations = DeprecationLog()
        self._session = session or aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT), cookie_jar=aiohttp.DummyCookieJar()
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def publish(
        self, event: Event, *, delay: Delay | None = None, deliver_at: DeliverAt | None = None
    ) -> Receipt:
        """Publish one event. Once this returns, the event is durable. Publishing it again is safe and returns `duplicate`.

        `delay` and `deliver_at` are those of `Client.publish`: it is delivered later, or EventInvalid is raised.

        Raises EventConflict if its (source, id) was used for other content, ApiKeyRefused, RequestRefused, and
        GatewayUnavailable if the gateway did not accept it within several attempts. It may be stored then; publish it again.
        """
        body = event.to_json().encode()
        found = await self._request(
            "POST",
            "/v1/events",
            body=body,
            content_type="application/cloudevents+json",
            query=_start(delay, deliver_at),
        )
        return self._receipt(event, found)

    async def publish_many(
        self, events: Iterable[Event], *, delay: Delay | None = None, deliver_at: DeliverAt | None = None
    ) -> list[Receipt]:
        """Publish events, up to 100 in a request. The receipts are in the order of the events.

        Raises as `publish`, for the first event that was not accepted; others may have been published, so publish the same
        events again.
        """
        events, query = list(events), _start(delay, deliver_at)
        slots = asyncio.Semaphore(CONCURRENCY)

        async def send(batch: list[Event]) -> list[Receipt]:
            body = b"[" + b",".join(event.to_json().encode() for event in batch) + b"]"
            async with slots:
                items = await self._request(
                    "POST",
                    "/v1/events",
                    body=body,
                    content_type="application/cloudevents-batch+json",
                    query=query,
                )
            for item in items:
                if "problem" in item:
                    raise _error_of(item["problem"])
            return [self._receipt(event, item) for event, item in zip(batch, items, strict=True)]

        receipts = await asyncio.gather(*map(send, _batches(events)))
        return [receipt for batch in receipts for receipt in batch]

    def _receipt(self, event: Event, found: Mapping[str, Any]) -> Receipt:
        """The receipt of an event. A deprecated type is logged, once."""
        receipt = _receipt(found)
        self._deprecations.note(event.type, receipt.deprecated)
        return receipt

    async def status(self, event: EventReference) -> Status:
        """The event's status now. Raises EventNotFound, EventConflict, ApiKeyRefused, GatewayUnavailable."""
        return await self._status(event, wait=0)

    async def wait(self, event: EventReference, timeout: float | None = None) -> Status:
        """Wait until every delivery of the event is settled, for up to `timeout` seconds, or without limit if None.

        Raises WaitTimeout and what `status` raises.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            status = await self._status(event, wait=_seconds_until(end))
            if status.settled:
                return status
            if end is not None and time.monotonic() >= end:
                assert timeout is not None
                text = f"not settled within {format_duration(timeout)}; see `status` for what is unsettled"
                raise WaitTimeout(text)

    async def cancel(self, event: EventReference, subscription_id: str | None = None) -> None:
        """Stop delivering the event, to one subscription or to all: unsettled deliveries settle as cancelled.

        One that was published for later is never delivered. What was sent stays sent. Raises EventNotFound, DeliveryNotFound,
        ApiKeyRefused, GatewayUnavailable.
        """
        source, event_id, _ = address_of(event)
        body = json.dumps({"subscription": subscription_id}).encode()
        path = f"/v1/events/{event_key(source, event_id)}/cancel"
        query = {} if subscription_id else {"source": source, "id": event_id}
        await self._request("POST", path, body=body, content_type="application/json", query=query)

    async def recall(
        self, event: EventReference, subscription_id: str | None = None, *, timeout: float | None = None
    ) -> Recalled:
        """Take the event's messages back, from one subscription or from all. What is not sent is cancelled.

        One that runs is joined, and a repeated one asks again for what was not taken back. Raises WaitTimeout after `timeout`
        seconds, while the recall goes on; NotRecallable, EventNotFound, DeliveryNotFound, ApiKeyRefused, GatewayUnavailable.
        """
        source, event_id, _ = address_of(event)
        body = json.dumps({"subscription": subscription_id}).encode()
        path = f"/v1/events/{event_key(source, event_id)}/recall"
        query = {} if subscription_id else {"source": source, "id": event_id}
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            wait = _seconds_until(end)
            found = await self._request(
                "POST",
                path,
                body=body,
                content_type="application/json",
                query=query,
                headers={"prefer": f"wait={wait}"} if wait else {},
                timeout=REQUEST_TIMEOUT + wait,
            )
            if found["ended"]:
                return _recalled(found)
            if end is not None and time.monotonic() >= end:
                raise WaitTimeout("the recall has not ended in time; it goes on, and a repeated one joins it")

    async def retry(self, event: EventReference, subscription_id: str, *, end_pause: bool = False) -> str:
        """Attempt the event's delivery for this subscription now, and return the id of the workflow that attempts it.

        Raises DeliveryNotFound, DeliveryPaused, ApiKeyRefused, GatewayUnavailable.
        """
        source, event_id, _ = address_of(event)
        name = quote(delivery_id(event_key(source, event_id), subscription_id), safe="")
        body = b'{"end_pause": true}' if end_pause else b"{}"
        found = await self._request(
            "POST", f"/v1/deliveries/{name}/redeliver", body=body, content_type="application/json"
        )
        return str(found["workflow_id"])

    async def poll(self, subscription_id: str, cursor: str = "", *, limit: int = 100, wait: int = 0) -> Polled:
        """The next events of a subscription of the channel `poll`; if there are none, those that come within `wait` seconds.

        Process the events, store `cursor` of the result, and pass it to the next call: the same cursor returns the same events
        again. Without one, begins with the oldest event that is kept; with `latest`, with what comes from now on. `wait` is at
        most 30. Raises CursorExpired, ApiKeyRefused, RequestRefused, GatewayUnavailable.
        """
        path = f"/v1/subscriptions/{quote(subscription_id, safe='')}/poll"
        query = {"cursor": cursor, "limit": str(limit), "wait": str(wait)}
        return polled(await self._request("GET", path, query=query, timeout=REQUEST_TIMEOUT + wait))

    async def _status(self, event: EventReference, *, wait: int) -> Status:
        source, event_id, _ = address_of(event)
        path = f"/v1/events/{event_key(source, event_id)}/status"
        query, prefer = {"source": source, "id": event_id}, {"prefer": f"wait={wait}"} if wait else {}
        return _status(await self._request("GET", path, query=query, headers=prefer, timeout=REQUEST_TIMEOUT + wait))

    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        content_type: str = "",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = REQUEST_TIMEOUT,
    ) -> Any:
        """The JSON of a response. Requests are repeated, since each of them may be executed twice without harm."""
        given = {**self._headers, **(headers or {}), **({"content-type": content_type} if content_type else {})}
        reason, delay = "", BACKOFF
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with self._session.request(
                    method,
                    self._url + path,
                    data=body,
                    params=query,
                    headers=given,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=timeout),
                ) as response:
                    if response.status < 300:
                        return await response.json(content_type=None)
                    problem = await _problem(response)
                    if response.status not in {429, 502, 503, 504}:
                        raise _error_of(problem)
                    reason = f"HTTP {response.status}: {problem.get('detail') or problem.get('title', '')}"
                    delay = max(delay, _retry_after(response))
            except (aiohttp.ClientError, TimeoutError) as error:
                reason = str(error) or type(error).__name__
            if attempt < ATTEMPTS and delay <= MAX_RETRY_AFTER:
                await asyncio.sleep(delay)
                delay *= 2
        raise GatewayUnavailable(
            f"{self._url} did not respond: {reason}; check the URL and the gateway, then try again"
        )


def _seconds_until(end: float | None) -> int:
    """How long one request waits."""
    left = WAIT_SLICE if end is None else end - time.monotonic()
    return max(0, min(WAIT_SLICE, round(left)))


def _start(delay: Delay | None, deliver_at: DeliverAt | None) -> dict[str, str]:
    """The query of a request that publishes events for later. Raises EventInvalid."""
    starts_at = start_time(delay, deliver_at)
    return {} if starts_at is None else {"deliver_at": format_timestamp(starts_at)}


def _batches(events: list[Event]) -> Iterable[list[Event]]:
    batch, size = list[Event](), 0
    for event in events:
        bytes_of_event = len(event.to_json().encode())
        if batch and (len(batch) == contract.MAX_EVENTS or size + bytes_of_event > contract.MAX_PUBLICATION_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(event)
        size += bytes_of_event
    if batch:
        yield batch


async def _problem(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """The problem of a response; one made of its status if it is none of Bellwire's, such as a proxy's page."""
    try:
        found = await response.json(content_type=None)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"status": response.status, "title": response.reason or ""}


def _retry_after(response: aiohttp.ClientResponse) -> float:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() else 0.0


def _error_of(problem: Mapping[str, Any]) -> Exception:
    """The error that a problem stands for."""
    kind = str(problem.get("type", "")).rpartition("/")[2]
    text = str(problem.get("detail") or problem.get("title") or f"HTTP {problem.get('status')}")
    match kind:
        case "invalid":
            return EventInvalid(text)
        case "event-not-found":
            return EventNotFound(text)
        case "delivery-not-found":
            return DeliveryNotFound(text)
        case "cursor-expired":
            return CursorExpired(text)
        case "event-conflict":
            return EventConflict(text)
        case "delivery-paused":
            return DeliveryPaused(text)
        case "not-recallable":
            return NotRecallable(text)
        case "unauthenticated" | "forbidden":
            return ApiKeyRefused(text)
        case "unavailable":
            return GatewayUnavailable(text)
        case _:
            return RequestRefused(f"HTTP {problem.get('status')}: {text}")


def _receipt(found: Mapping[str, Any]) -> Receipt:
    return Receipt(
        source=found["source"],
        event_id=found["id"],
        workflow_id=found["workflow_id"],
        duplicate=found["duplicate"],
        deprecated=found.get("deprecated"),
        deliver_at=parse_timestamp(found["deliver_at"]) if "deliver_at" in found else None,
    )


#: Names of fields of the API, and of the models here, where they differ.
_FIELDS = {"subscription": "subscription_id", "due_at": "due"}


def _status(found: Mapping[str, Any]) -> Status:
    return Status(
        source=found["source"],
        id=found["id"],
        workflow_id=found["workflow_id"],
        counts=Counts.model_validate(found["counts"]),
        settled=found["settled"],
        scheduled=found["scheduled"],
        resolved=not found["scheduled"],
        deliver_at=parse_timestamp(found["deliver_at"]) if found["deliver_at"] else None,
        cancelled=found["cancelled"],
        unsettled=tuple(Unsettled.model_validate(_delivery(each)) for each in found["unsettled"]),
        failed=tuple(Failed.model_validate(_delivery(each)) for each in found["failed"]),
    )


def _recalled(found: Mapping[str, Any]) -> Recalled:
    deliveries = [{"subscription_id": each["subscription"], **each} for each in found["deliveries"]]
    return Recalled.model_validate({"results": found["results"], "deliveries": deliveries})


def _delivery(found: Mapping[str, Any]) -> dict[str, Any]:
    key = parse_delivery_id(found["delivery"])
    assert key, found["delivery"]
    return {"event_key": key.event_key, **{_FIELDS.get(name, name): value for name, value in found.items()}}
