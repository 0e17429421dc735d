"""POST /v1/events: publishes events. A plain route without a framework's parsing, since it is the one that must be fast."""

import asyncio
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bellwire import contract
from bellwire.client import Client
from bellwire.errors import BellwireError, WaitTimeout
from bellwire.events import Event
from bellwire.formats.timestamps import format_timestamp
from bellwire.receipts import Receipt, Status
from starter.gateway.api.callers import KeyVerifier
from starter.gateway.api.cloud_events import Mode, event_of, mode_of, read_batch, read_event
from starter.gateway.api.prefer import seconds_to_wait
from starter.gateway.api.problems import ApiProblem, ProblemType, problem_document, refused
from starter.gateway.api.rate_limits import RateLimits
from starter.gateway.bodies import read_body
from starter.operations.catalog.checking import PublishedTypes
from starter.operations.delivery.publishing import delivery_time
from starter.operations.problems import Problem

PUBLISH = "/v1/events"
#: Bytes of a request: a batch of MAX_EVENTS, and its brackets.
MAX_BODY = contract.MAX_PUBLICATION_BYTES + 64 * 1024


class Publishing:
    """Publishes through a client whose concurrent calls share workflows."""

    def __init__(self, client: Client, verifier: KeyVerifier, limits: RateLimits, types: PublishedTypes) -> None:
        self._client = client
        self._verifier = verifier
        self._limits = limits
        self._types = types

    def routes(self) -> list[Route]:
        return [Route(PUBLISH, self.publish, methods=["POST"])]

    async def publish(self, request: Request) -> Response:
        """202 with a receipt once the event is durable; with `Prefer: wait=N`, 200 once its deliveries have settled."""
        caller = await self._verifier.caller(request)
        if not caller.scope.can_publish:
            raise ApiProblem(
                ProblemType.FORBIDDEN, f"needs a key with the scope publish or admin; this one has {caller.scope}"
            )
        mode = mode_of(request.headers)
        wait = seconds_to_wait(",".join(request.headers.getlist("prefer")))
        deliver_at = _delivery_time(request)
        body = await read_body(request, MAX_BODY)
        if mode is Mode.BATCH:
            items = read_batch(request.headers, body)
            self._limits.take_events(caller, len(items), request.scope)
            return await self._publish_batch(items, wait, deliver_at)
        self._limits.take_events(caller, 1, request.scope)
        event = read_event(request.headers, mode, body)
        result = await self._publish_one(event, wait, deliver_at)
        return JSONResponse(
            result,
            status_code=200 if result.get("settled") else 202,
            headers={"location": f"/v1/events/{event.key}", **_applied(wait)},
        )

    async def _publish_batch(self, items: list[Any], wait: int, deliver_at: datetime | None) -> Response:
        """One result per item, in their order: a receipt, or the problem of a bad item, which does not affect the others."""
        if not items:
            raise refused("body", "has no events")
        if len(items) > contract.MAX_EVENTS:
            message = f"has {len(items):,} events, the limit of a batch is {contract.MAX_EVENTS}"
            raise refused("body", message, kind=ProblemType.TOO_LARGE)

        async def result_of(item: Any) -> dict[str, Any]:
            try:
                return await self._publish_one(event_of(item), wait, deliver_at)
            except ApiProblem as problem:
                return {"problem": problem_document(problem)}
            except BellwireError as error:
                return {"problem": problem_document(ApiProblem.of(error))}

        results = await asyncio.gather(*map(result_of, items))
        settled = all(result.get("settled") for result in results)
        return JSONResponse(results, status_code=200 if settled else 202, headers=_applied(wait))

    async def _publish_one(self, event: Event, wait: int, deliver_at: datetime | None) -> dict[str, Any]:
        await self._check(event)
        # Before it is published: an accepted event must not fail for a notice.
        deprecated = await self._types.deprecation(event.type)
        receipt = await self._client.publish(event, deliver_at=deliver_at)
        result = _receipt(receipt)
        if deprecated is not None:
            result["deprecated"] = deprecated
        if wait and (status := await self._settled(receipt, wait)):
            result |= {"settled": True, "counts": status.counts.model_dump(mode="json")}
        return result

    async def _check(self, event: Event) -> None:
        """Raise ApiProblem with each part of the event that its type does not allow."""
        if problems := await self._types.problems(event):
            errors = [Problem(message=each.message, field=each.field) for each in problems]
            raise ApiProblem(ProblemType.INVALID, "; ".join(map(str, errors)), errors=errors)

    async def _settled(self, receipt: Receipt, seconds: int) -> Status | None:
        try:
            return await self._client.wait(receipt, timeout=seconds)
        except WaitTimeout:
            return None


def _delivery_time(request: Request) -> datetime | None:
    """When the events of a request are to be delivered, by its query; None: at once. Raises ApiProblem."""
    given = {}
    for name in ("delay", "deliver_at"):
        values = request.query_params.getlist(name)
        if len(values) > 1:
            raise refused(name, "is given twice", remedy="send one")
        given[name] = values[0] if values else None
    return delivery_time(given["delay"], given["deliver_at"])


def _receipt(receipt: Receipt) -> dict[str, Any]:
    later = {"deliver_at": format_timestamp(receipt.deliver_at)} if receipt.deliver_at else {}
    return {
        "source": receipt.source,
        "id": receipt.event_id,
        "workflow_id": receipt.workflow_id,
        "duplicate": receipt.duplicate,
        **later,
    }


def _applied(wait: int) -> dict[str, str]:
    return {"preference-applied": f"wait={wait}"} if wait else {}
