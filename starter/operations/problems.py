"""Problem: why an operation was refused or failed, in parts that the command line and HTTP can both show.

OperationError            the operation failed
└── InputInvalid          also a ValueError: the input is not usable, and nothing was started or stored
"""

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby

from pydantic import ValidationError

from bellwire.errors import (
    ApiKeyNotFound,
    BellwireError,
    CursorExpired,
    DeliveryNotFound,
    DeliveryPaused,
    EventConflict,
    EventInvalid,
    EventNotFound,
    EventTypeNotFound,
    Known,
    NotRecallable,
    NotSetUp,
    NotStorable,
    RegistryUnavailable,
    ReplayEnded,
    ReplayNotFound,
    SchemaIncompatible,
    SchemaInvalid,
    SubscriptionChanged,
    SubscriptionInvalid,
    SubscriptionNotFound,
    TemplateInvalid,
    TemporalUnavailable,
    field_errors,
)


class Kind(StrEnum):
    """What sort of problem an error is: the command line derives its exit status from it, HTTP its response status."""

    INVALID = "invalid"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    #: Something that the operation needs cannot be reached; it may succeed later.
    UNAVAILABLE = "unavailable"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One reason why an operation was refused or failed."""

    message: str
    #: The field of the input that is wrong, such as `target.url`; empty if the problem is not about one field.
    field: str = ""
    #: What to do about it; empty if the message says it.
    remedy: str = ""
    #: The item of an input of many, such as "line 3"; empty for an input of one.
    place: str = ""

    def __str__(self) -> str:
        field = f"{self.field}: " if self.field else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{field}{self.message}{remedy}"


class OperationError(BellwireError):
    """The operation failed."""

    kind = Kind.FAILED

    def __init__(self, message: str = "", *, field: str = "", remedy: str = "") -> None:
        message = message or inspect.getdoc(type(self)) or ""
        self.problems: Sequence[Problem] = (Problem(message=message, field=field, remedy=remedy),)
        super().__init__(text_of(self.problems))


class InputInvalid(OperationError, ValueError):
    """The input is not usable. Nothing was started or stored."""

    kind = Kind.INVALID

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> "InputInvalid":
        """One error for several problems."""
        error = cls()
        error.problems = tuple(problems)
        error.args = (text_of(error.problems),)
        return error


#: What the errors of `bellwire` are. Any other one is a failure.
_KINDS: dict[type[BellwireError], Kind] = {
    EventInvalid: Kind.INVALID,
    SubscriptionInvalid: Kind.INVALID,
    TemplateInvalid: Kind.INVALID,
    SchemaIncompatible: Kind.CONFLICT,
    SchemaInvalid: Kind.INVALID,
    EventNotFound: Kind.NOT_FOUND,
    EventTypeNotFound: Kind.NOT_FOUND,
    DeliveryNotFound: Kind.NOT_FOUND,
    SubscriptionNotFound: Kind.NOT_FOUND,
    ApiKeyNotFound: Kind.NOT_FOUND,
    EventConflict: Kind.CONFLICT,
    DeliveryPaused: Kind.CONFLICT,
    NotRecallable: Kind.CONFLICT,
    SubscriptionChanged: Kind.CONFLICT,
    ReplayEnded: Kind.CONFLICT,
    ReplayNotFound: Kind.NOT_FOUND,
    CursorExpired: Kind.CONFLICT,
    TemporalUnavailable: Kind.UNAVAILABLE,
    NotStorable: Kind.INVALID,
    RegistryUnavailable: Kind.UNAVAILABLE,
    NotSetUp: Kind.UNAVAILABLE,
}


def kind_of(error: BellwireError) -> Kind:
    """What sort of problem an error is."""
    if isinstance(error, OperationError):
        return error.kind
    return next((kind for cause, kind in _KINDS.items() if isinstance(error, cause)), Kind.FAILED)


def problems_of(error: Exception, *, place: str = "", known: Known = lambda _: ()) -> list[Problem]:
    """The problems that an error stands for, each at this place of the input. `known` are the fields of the input."""
    if isinstance(error, OperationError):
        return [replace(problem, place=place) if place else problem for problem in error.problems]
    if isinstance(error, SchemaInvalid) and error.problems:
        return [Problem(message=message, field=where, place=place) for where, message in error.problems]
    if isinstance(error, ValidationError):
        return [
            Problem(message=message, field=field, place=place) for field, message in field_errors(error, known=known)
        ]
    return [Problem(message=str(error), place=place)]


def text_of(problems: Iterable[Problem], name: Callable[[str], str] = str) -> str:
    """A line for each problem, those of one place together. `name` gives the reader's name of a field outside any place."""
    lines = []
    for place, here in groupby(problems, key=lambda problem: problem.place):
        if place:
            lines.append(f"{place}: {'; '.join(map(str, here))}")
        else:
            lines += [str(replace(problem, field=name(problem.field))) for problem in here]
    return "\n".join(lines)
