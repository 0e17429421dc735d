"""Problem responses (RFC 9457): every refused or failed request gets one, with a stable type, and an entry for each bad field."""

import json
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from http import HTTPStatus

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bellwire.errors import (
    BellwireError,
    CursorExpired,
    DeliveryNotFound,
    DeliveryPaused,
    EventConflict,
    EventNotFound,
    NotRecallable,
    SchemaIncompatible,
    SubscriptionNotFound,
)
from bellwire.events import uuid7
from bellwire.service.http_server import MAX_HEAD, Refusal
from starter.gateway.bodies import BodyTooLarge
from starter.operations.problems import Kind, Problem, kind_of, problems_of

log = structlog.get_logger("bellwire")

MEDIA_TYPE = "application/problem+json"


class ProblemType(StrEnum):
    """The types of problems. The text behind the last slash stays the same in all versions; the reference page lists them."""

    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not-found"
    EVENT_NOT_FOUND = "event-not-found"
    DELIVERY_NOT_FOUND = "delivery-not-found"
    SUBSCRIPTION_NOT_FOUND = "subscription-not-found"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    NOT_ACCEPTABLE = "not-acceptable"
    CONFLICT = "conflict"
    EVENT_CONFLICT = "event-conflict"
    SCHEMA_INCOMPATIBLE = "schema-incompatible"
    DELIVERY_PAUSED = "delivery-paused"
    NOT_RECALLABLE = "not-recallable"
    GONE = "gone"
    CURSOR_EXPIRED = "cursor-expired"
    PRECONDITION_FAILED = "precondition-failed"
    PRECONDITION_REQUIRED = "precondition-required"
    TOO_LARGE = "too-large"
    HEAD_TOO_LARGE = "head-too-large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported-media-type"
    IDEMPOTENCY_KEY_REUSED = "idempotency-key-reused"
    RATE_LIMITED = "rate-limited"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


#: Response status and title of each type.
STATUSES: Mapping[ProblemType, tuple[int, str]] = {
    ProblemType.INVALID: (400, "The request is not valid"),
    ProblemType.UNAUTHENTICATED: (401, "The API key is missing or not valid"),
    ProblemType.FORBIDDEN: (403, "The API key does not allow this"),
    ProblemType.NOT_FOUND: (404, "There is no such resource"),
    ProblemType.EVENT_NOT_FOUND: (404, "There is no such event"),
    ProblemType.DELIVERY_NOT_FOUND: (404, "There is no such delivery"),
    ProblemType.SUBSCRIPTION_NOT_FOUND: (404, "There is no such subscription"),
    ProblemType.METHOD_NOT_ALLOWED: (405, "The resource does not support this method"),
    ProblemType.NOT_ACCEPTABLE: (406, "The response has no such media type"),
    ProblemType.CONFLICT: (409, "The request conflicts with what is stored"),
    ProblemType.EVENT_CONFLICT: (409, "The source and id were used for an event with other content"),
    ProblemType.SCHEMA_INCOMPATIBLE: (409, "The schema breaks publishers or subscribers of the version before"),
    ProblemType.DELIVERY_PAUSED: (409, "The delivery is paused"),
    ProblemType.NOT_RECALLABLE: (409, "No channel of the event can take a message back"),
    ProblemType.GONE: (410, "The resource no longer exists"),
    ProblemType.CURSOR_EXPIRED: (410, "Events after the cursor were deleted"),
    ProblemType.PRECONDITION_FAILED: (412, "The resource was changed meanwhile"),
    ProblemType.TOO_LARGE: (413, "The request is too large"),
    ProblemType.UNSUPPORTED_MEDIA_TYPE: (415, "The media type is not supported"),
    ProblemType.IDEMPOTENCY_KEY_REUSED: (422, "The idempotency key was used for another request"),
    ProblemType.PRECONDITION_REQUIRED: (428, "The request must be conditional"),
    ProblemType.RATE_LIMITED: (429, "Too many requests"),
    ProblemType.HEAD_TOO_LARGE: (431, "The head of the request is too large"),
    ProblemType.INTERNAL: (500, "Something failed inside Bellwire"),
    ProblemType.UNAVAILABLE: (503, "Something that the request needs cannot be reached"),
}
#: The general type of each status: the first one.
_OF_STATUS = {status: kind for kind, (status, _) in reversed(list(STATUSES.items()))}
_OF_KIND = {
    Kind.INVALID: ProblemType.INVALID,
    Kind.NOT_FOUND: ProblemType.NOT_FOUND,
    Kind.CONFLICT: ProblemType.CONFLICT,
    Kind.UNAVAILABLE: ProblemType.UNAVAILABLE,
    Kind.FAILED: ProblemType.CONFLICT,
}
#: Errors with a type of their own, so that clients need not read texts.
_OF_ERROR: Mapping[type[BellwireError], ProblemType] = {
    EventNotFound: ProblemType.EVENT_NOT_FOUND,
    DeliveryNotFound: ProblemType.DELIVERY_NOT_FOUND,
    SubscriptionNotFound: ProblemType.SUBSCRIPTION_NOT_FOUND,
    EventConflict: ProblemType.EVENT_CONFLICT,
    SchemaIncompatible: ProblemType.SCHEMA_INCOMPATIBLE,
    DeliveryPaused: ProblemType.DELIVERY_PAUSED,
    NotRecallable: ProblemType.NOT_RECALLABLE,
    CursorExpired: ProblemType.CURSOR_EXPIRED,
}
_FIELD = re.compile(r"[\w.-]{0,100}")
#: Seconds after which a client may try again when something is away.
RETRY_AFTER = 2


class ApiProblem(Exception):
    """A request is refused with this problem."""

    def __init__(
        self,
        kind: ProblemType,
        detail: str = "",
        *,
        errors: Iterable[Problem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.kind, self.detail, self.errors, self.headers = kind, detail, tuple(errors), dict(headers or {})
        super().__init__(detail or kind)

    @classmethod
    def of(cls, error: BellwireError) -> "ApiProblem":
        """The problem that an error of an operation stands for."""
        problems = problems_of(error)
        with_field = [problem for problem in problems if problem.field or problem.place]
        if kind_of(error) is Kind.INVALID:
            with_field = [named(problem) for problem in problems]
        headers = {"retry-after": str(RETRY_AFTER)} if kind_of(error) is Kind.UNAVAILABLE else {}
        kind = _OF_ERROR.get(type(error), _OF_KIND[kind_of(error)])
        return cls(kind, "\n".join(map(str, problems)), errors=with_field, headers=headers)


def refused(field: str, message: str, *, remedy: str = "", kind: ProblemType = ProblemType.INVALID) -> ApiProblem:
    """A problem of one field of a request, or of one of its headers."""
    problem = Problem(message=message, field=field, remedy=remedy)
    return ApiProblem(kind, str(problem), errors=[problem])


def named(problem: Problem) -> Problem:
    """The problem with a field: errors about several fields have it before the colon of their message only."""
    if problem.field or problem.place:
        return problem
    name, colon, message = problem.message.partition(": ")
    if not colon or not _FIELD.fullmatch(name):
        name, message = "", problem.message
    return Problem(message=message, field=name or "body", remedy=problem.remedy)


def problem_document(problem: ApiProblem, request_id: str | None = None) -> dict[str, object]:
    """The problem as JSON; within a batch, without the id of the request."""
    status, title = STATUSES[problem.kind]
    document: dict[str, object] = {"type": f"/v1/problems/{problem.kind}", "title": title, "status": status}
    if problem.detail:
        document["detail"] = problem.detail
    if problem.errors:
        document["errors"] = [
            {
                "field": f"{error.place}.{error.field}" if error.place and error.field else error.place or error.field,
                "message": error.message,
                **({"remedy": error.remedy} if error.remedy else {}),
            }
            for error in problem.errors
        ]
    if request_id is not None:
        document["request_id"] = request_id
    return document


def problem_response(request: Request, problem: ApiProblem) -> Response:
    return JSONResponse(
        problem_document(problem, request.scope.get("request_id", "")),
        status_code=STATUSES[problem.kind][0],
        headers=problem.headers,
        media_type=MEDIA_TYPE,
    )


#: Header fields that an HTTP parser names in its errors.
_PARSED = ("Content-Length", "Transfer-Encoding", "Host")


def problem_of_parsing(status: int, reason: str) -> Refusal:
    """The problem of a request that is not valid HTTP. It has the id that a request gets otherwise."""
    field = next((name for name in _PARSED if name.lower() in reason.lower()), "request")
    if status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
        message = f"request line and header fields have more than {MAX_HEAD:,} bytes"
        problem = refused("request", message, remedy="send less in them", kind=ProblemType.HEAD_TOO_LARGE)
    else:
        problem = refused(field, f"is not valid HTTP/1.1: {reason[:200]}")
    request_id = uuid7().hex
    return Refusal(
        status=STATUSES[problem.kind][0],
        body=json.dumps(problem_document(problem, request_id)).encode(),
        headers={"content-type": MEDIA_TYPE, "x-request-id": request_id},
    )


def handle_problems(app: FastAPI) -> None:
    """Respond to every exception with a problem."""

    @app.exception_handler(ApiProblem)
    async def known(request: Request, error: ApiProblem) -> Response:
        return problem_response(request, error)

    @app.exception_handler(BellwireError)
    async def failed(request: Request, error: BellwireError) -> Response:
        return problem_response(request, ApiProblem.of(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return problem_response(request, _of_validation(error))

    @app.exception_handler(BodyTooLarge)
    async def too_large(request: Request, error: BodyTooLarge) -> Response:
        return problem_response(request, refused("body", str(error), kind=ProblemType.TOO_LARGE))

    @app.exception_handler(HTTPException)
    async def of_framework(request: Request, error: HTTPException) -> Response:
        kind = _OF_STATUS.get(
            error.status_code, ProblemType.INVALID if error.status_code < 500 else ProblemType.INTERNAL
        )
        detail = error.detail if error.detail != HTTPStatus(error.status_code).phrase else ""
        headers = {"allow": allowed} if (allowed := _allowed(request, error)) else error.headers
        return problem_response(request, ApiProblem(kind, detail, headers=headers))

    @app.exception_handler(ClientDisconnect)
    async def hung_up(request: Request, error: ClientDisconnect) -> Response:  # noqa: ARG001 - nobody gets the response
        return Response(status_code=400)

    @app.exception_handler(Exception)
    async def internal(request: Request, error: Exception) -> Response:
        log.error("request.failed", request_id=request.scope.get("request_id"), path=request.url.path, exc_info=error)
        detail = "The log of the gateway has the cause under this request id."
        return problem_response(request, ApiProblem(ProblemType.INTERNAL, detail))


def _allowed(request: Request, error: HTTPException) -> str:
    """The methods of the path, of all its routes: the framework names those of the first one only. Empty for other errors."""
    if error.status_code != HTTPStatus.METHOD_NOT_ALLOWED:
        return ""
    routes = [route for route in request.app.state.paths if isinstance(route, Route)]
    matching = [route for route in routes if route.path_regex.match(request.url.path)]
    exact = [route for route in matching if route.path == request.url.path]
    return ", ".join(sorted({method for route in exact or matching for method in route.methods or ()}))


def _of_validation(error: RequestValidationError) -> ApiProblem:
    """Name each bad field of a body, or each bad parameter. Inputs are left out: they may be private."""
    errors = []
    for problem in error.errors():
        where, *path = problem["loc"]
        field = ".".join(str(part) for part in path)
        if problem["type"] == "json_invalid":
            errors.append(Problem(message=f"is not valid JSON: {problem['ctx']['error']}", field="body"))
            continue
        message = problem["msg"].removeprefix("Value error, ")
        errors.append(Problem(message=message, field=field or str(where)))
    return ApiProblem(ProblemType.INVALID, "\n".join(map(str, errors)), errors=errors)
