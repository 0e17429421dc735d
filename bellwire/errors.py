"""The exceptions of Bellwire.

BellwireError
├── EventInvalid             also a ValueError
├── EventConflict
├── EventNotFound
├── TenantUnknown
├── DeliveryNotFound
├── DeliveryPaused
├── NotRecallable
├── SubscriptionNotFound
├── SubscriptionChanged
├── ReplayNotFound
├── ReplayEnded
├── CursorExpired
├── ApiKeyNotFound
├── SubscriptionInvalid      also a ValueError
├── HandlersConflict
├── SchemaInvalid            also a ValueError
│   └── SchemaIncompatible
├── EventTypeNotFound
├── TemplateInvalid          also a ValueError
├── WaitTimeout              also a TimeoutError
├── TemporalUnavailable
│   └── WorkerUnavailable
├── GatewayUnavailable
├── ApiKeyRefused
├── RequestRefused
├── RegistryUnavailable
├── NotStorable              also a ValueError
├── NotSetUp
├── KeysInvalid              also a ValueError
├── NotReadable
└── SignatureInvalid         also a ValueError
    ├── SignatureMissing
    ├── SignatureMismatch
    └── TimestampOutsideTolerance

`Event(…)` raises EventInvalid, and `Subscription(…)`, a target or a filter SubscriptionInvalid, which name each invalid field. An
exception that is raised without a message uses its docstring.
"""

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self

from pydantic import ValidationError
from pydantic_core import ErrorDetails


class BellwireError(Exception):
    """Base class of all errors of Bellwire."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(args or (inspect.getdoc(type(self)),)))


class EventInvalid(BellwireError, ValueError):
    """The event is not a valid CloudEvents 1.0 event; correct the named field and publish again. Nothing was started."""


class EventConflict(BellwireError):
    """An event with this source and id, but other content, was published before; give the new event another id."""


class EventNotFound(BellwireError):
    """No event has this source and id; check both, and that it was published to this namespace."""


class TenantUnknown(BellwireError):
    """The event was refused: its tenant never had a subscription. Correct `tenant`, and publish the event with a new id."""


class DeliveryNotFound(BellwireError):
    """The event has no delivery for this subscription; `python -m starter events show` lists its deliveries."""


class DeliveryPaused(BellwireError):
    """The delivery is paused, so it was not attempted; resume it, or retry it with `end_pause` (`--end-pause`)."""


class NotRecallable(BellwireError):
    """No channel of the event can take a message back; cancel the event to stop what is not sent, or publish a correction."""

    @classmethod
    def of(cls, channels: Iterable[str]) -> Self:
        """The error for an event with these channels."""
        return cls(
            f"no channel of the event can take a message back ({', '.join(channels)}); cancel the event to stop what is not "
            "sent, or publish a correction"
        )


class SubscriptionNotFound(BellwireError):
    """No subscription has this id; `python -m starter subscriptions` lists them."""

    @classmethod
    def of(cls, subscription_id: str) -> Self:
        """The error for this id."""
        return cls(f"no subscription {subscription_id} exists; `python -m starter subscriptions` lists them")


class SubscriptionChanged(BellwireError):
    """The subscription was changed meanwhile; read it again, and make the change to its present version."""


class ReplayNotFound(BellwireError):
    """No replay has this id; `python -m starter replay list` shows those of a subscription."""


class ReplayEnded(BellwireError):
    """The replay is not in a state that allows this; start another one."""


class CursorExpired(BellwireError):
    """Events after this cursor were deleted; poll without a cursor, from the oldest event that is kept, or with `latest`."""


class ApiKeyNotFound(BellwireError):
    """No API key has this id; `python -m starter api-keys list` lists them."""


class SubscriptionInvalid(BellwireError, ValueError):
    """The subscription is invalid; correct the named field and try again. Nothing was stored."""


class HandlersConflict(BellwireError):
    """Another application runs handlers under this service name; choose another service, or run with `replace=True`."""


class SchemaInvalid(BellwireError, ValueError):
    """The schema is not JSON Schema 2020-12, refers to something outside itself, or is too large; correct the named place."""

    #: What is wrong, as places and messages.
    problems: Sequence[tuple[str, str]] = ()

    @classmethod
    def of(cls, problems: Iterable[tuple[str, str]]) -> Self:
        """One error for several problems."""
        problems = tuple(problems)
        error = cls("; ".join(f"{place}: {message}" for place, message in problems))
        error.problems = problems
        return error


class SchemaIncompatible(SchemaInvalid):
    """The schema breaks publishers or subscribers of the version before; change the named places, or force it."""


class EventTypeNotFound(BellwireError):
    """The catalog has no such event type; `python -m starter types list` lists them."""

    @classmethod
    def of(cls, name: str) -> Self:
        """The error for this type."""
        return cls(f"the catalog has no event type {name[:80]}; `python -m starter types list` lists the types")


class TemplateInvalid(BellwireError, ValueError):
    """The template does not exist, has a syntax error or uses a variable that the event does not have."""


class WaitTimeout(BellwireError, TimeoutError):
    """The event has not settled in time; wait longer, or see `status` for the unsettled deliveries and when they are due."""

    #: Of `wait_many`: the Status of each event so far, in the order of the events; None where it is not known.
    statuses: Sequence[Any] = ()


class TemporalUnavailable(BellwireError):
    """Temporal cannot be reached; check TEMPORAL_ADDRESS and that the server runs, then publish again (with the same id)."""


class WorkerUnavailable(TemporalUnavailable):
    """No worker polls the task queue `bellwire`, so workflows cannot respond; start `python worker.py`."""


class GatewayUnavailable(BellwireError):
    """The gateway cannot be reached, or cannot reach what it needs; check its URL, then try again (with the same ids)."""


class ApiKeyRefused(BellwireError):
    """The API key is mistyped, revoked or expired, or its scope does not allow this; check BELLWIRE_KEY."""


class RequestRefused(BellwireError):
    """The gateway refused the request; its message says why."""


class RegistryUnavailable(BellwireError):
    """The registry database cannot be reached; check BELLWIRE_REGISTRY_URL and that it runs."""


class NotStorable(BellwireError, ValueError):
    """The registry cannot store a value: text with NUL or a lone surrogate, or a number out of range; correct the value."""


class NotSetUp(BellwireError):
    """The registry schema or the search attributes are missing; run `python -m starter setup`."""


class KeysInvalid(BellwireError, ValueError):
    """The encryption keys are not a list of id:base64; generate one with `python -m starter keys new`."""


class NotReadable(BellwireError):
    """The data is encrypted with a key that is not given; add the named key to BELLWIRE_ENCRYPTION_KEYS."""


class SignatureInvalid(BellwireError, ValueError):
    """The request is not a webhook signed with this secret; respond with 400 and do nothing else."""


class SignatureMissing(SignatureInvalid):
    """A webhook-id, webhook-timestamp or webhook-signature header is missing or malformed."""


class SignatureMismatch(SignatureInvalid):
    """No signature matches: the secret is another one, or the body was changed; verify the raw body as received."""


class TimestampOutsideTolerance(SignatureInvalid):
    """The webhook-timestamp is too old or too new: the request was replayed, or a clock is wrong."""


#: Where a problem is: names, and positions in lists.
Place = tuple[int | str, ...]
#: By the place of a field that is not known, the fields that are known there.
Known = Callable[[Place], Iterable[str]]


def fields_in_error(error: ValidationError, *, prefix: Iterable[str] = (), known: Known = lambda _: ()) -> str:
    """Return the problems of a pydantic error as `field: problem`, joined by "; "."""
    return "; ".join(
        f"{field}: {message}" if field else message
        for field, message in field_errors(error, prefix=prefix, known=known)
    )


def field_errors(
    error: ValidationError, *, prefix: Iterable[str] = (), known: Known = lambda _: ()
) -> list[tuple[str, str]]:
    """Return the problems of a pydantic error as (field, message), in Bellwire's words. Inputs are left out: they may be private.

    A problem of several fields has no field; its message names them. `known` gives the fields that a misspelt one may be.
    """
    problems = []
    found = error.errors(include_url=False)
    for problem in found:
        if any(
            len(other["loc"]) > len(problem["loc"]) > 0 and other["loc"][: len(problem["loc"])] == problem["loc"]
            for other in found
        ):
            continue  # a container with an invalid item: the item's problem is more specific
        message = problem_text(problem)
        named = _NAMED.fullmatch(message) if problem["type"] == "value_error" else None
        field = ".".join((*prefix, *_path(problem["loc"]), *([named[1]] if named else [])))
        message = named[2] if named else message
        if problem["type"] == "extra_forbidden":
            close = difflib.get_close_matches(str(problem["loc"][-1]), list(known(problem["loc"])), n=1, cutoff=0.7)
            message += f"; did you mean {close[0]}?" if close else "; leave it out"
        elif problem["type"] == "union_tag_invalid":
            tag, tags = problem["ctx"]["tag"], re.findall("[a-z_]+", problem["ctx"]["expected_tags"])
            close = difflib.get_close_matches(str(tag).strip().lower(), tags, n=1, cutoff=0.7)
            message += f"; did you mean {close[0]}?" if close else ""
        problems.append((field, message))
    return problems


def _path(place: Place) -> Iterator[str]:
    """The place as a reader knows it.

    Pydantic names a filter twice, as the choice and as its field, marks keys, and names choices of a union: the channel after
    `target`, and what is in parentheses.
    """
    previous = None
    for part in place:
        if part == previous in _DIALECTS or (previous == "target" and part != "[key]"):
            previous = None
        elif part != "[key]" and not str(part).startswith("("):
            yield str(part).removesuffix("_")
            previous = part


#: What a model says of one of its fields, in relation to others.
_NAMED = re.compile(r"([a-z][a-z_]*): (.+)", re.DOTALL)
_DIALECTS = {"exact", "prefix", "suffix", "all", "any", "not", "sql", "data"}

#: Messages by pydantic's error type. Their fields are those of the error's context.
_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is not a known field",
    "string_type": "must be a string",
    "string_unicode": "contains a lone surrogate, which is not Unicode text; fix the text",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "too_short": "must have at least {min_length} items, not {actual_length}",
    "too_long": "must have at most {max_length} items",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be an object, with names and values",
    "mapping_type": "must be an object, with names and values",
    "model_type": "must be an object, with names and values",
    "model_attributes_type": "must be an object, with names and values",
    "datetime_type": "must be a time, such as 2026-11-23T08:00:00Z",
    "datetime_parsing": "must be a time, such as 2026-11-23T08:00:00Z",
    "datetime_from_date_parsing": "must be a time, such as 2026-11-23T08:00:00Z",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number that is not so large",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "path_type": "must be a path",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be greater than or equal to {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be less than or equal to {le}",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "union_tag_not_found": "has no {discriminator}, which says what it is; give one",
    "union_tag_invalid": "has an unknown {discriminator}; write one of {expected_tags}",
    "json_invalid": "is not valid JSON: {error}",
    "json_type": "must be JSON text",
    "none_required": "must be null",
}


def _plain(value: object) -> object:
    """A bound as people write it, and the choices of a union by their names."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.startswith("<"):
        return ", ".join(re.findall(r"'([^']*)'", value))
    return value


def problem_text(problem: ErrorDetails) -> str:
    """The message of one problem of a pydantic error, which follows the name of the field."""
    kind = problem["type"]
    if kind in {"too_short", "too_long"} and isinstance(problem.get("input"), str):
        kind = f"string_{kind}"  # pydantic counts items where text is checked after other rules
    words = _WORDS.get(kind)
    given = problem.get("input")
    if kind == "string_type" and isinstance(given, int | float) and not isinstance(given, bool):
        return f"{words}; write the number in quotes"
    if words is not None:
        text = words.format_map({name: _plain(value) for name, value in problem.get("ctx", {}).items()})
        return text.replace("at least 1 characters", "at least 1 character").replace(
            "at least 1 items", "at least 1 item"
        )
    text = problem["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    for pydantic, own in (("Input should be", "must be"), ("Input should", "must"), ("value is not", "is not")):
        text = own + text.removeprefix(pydantic) if text.startswith(pydantic) else text
    return text if problem["type"] in {"value_error", "assertion_error"} else text[:1].lower() + text[1:]
