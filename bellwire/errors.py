"""The exceptions of Bellwire.

BellwireError
├── EventInvalid             also a ValueError
├── EventConflict
├── EventNotFound
├── TenantUnknown
├── DeliveryNotFound
├── DeliveryPaused
├── SubscriptionNotFound
├── SubscriptionChanged
├── SubscriptionInvalid      also a ValueError
├── TemplateInvalid          also a ValueError
├── WaitTimeout              also a TimeoutError
├── TemporalUnavailable
├── RegistryUnavailable
├── NotStorable              also a ValueError
├── NotSetUp
├── KeysInvalid              also a ValueError
├── NotReadable
└── SignatureInvalid         also a ValueError
    ├── SignatureMissing
    ├── SignatureMismatch
    └── TimestampOutsideTolerance

Constructing `Subscription` or a target with invalid values raises pydantic's `ValidationError` (a ValueError), which
names each invalid field. All other errors are below. An exception that is raised without a message uses its docstring.
"""

import inspect
from collections.abc import Iterable

from pydantic import ValidationError


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


class SubscriptionNotFound(BellwireError):
    """No subscription has this id; `python -m starter subscriptions` lists them."""


class SubscriptionChanged(BellwireError):
    """The subscription was changed meanwhile; read it again, and make the change to its present version."""


class SubscriptionInvalid(BellwireError, ValueError):
    """The subscription is invalid; correct the named field and try again. Nothing was stored."""


class TemplateInvalid(BellwireError, ValueError):
    """The template does not exist, has a syntax error or uses a variable that the event does not have."""


class WaitTimeout(BellwireError, TimeoutError):
    """The event has not settled in time; wait longer, or see `status` for the unsettled deliveries and when they are due."""


class TemporalUnavailable(BellwireError):
    """Temporal cannot be reached; check TEMPORAL_ADDRESS and that the server runs, then publish again (with the same id)."""


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


def fields_in_error(error: ValidationError, *, prefix: Iterable[str] = ()) -> str:
    """Return the problems of a pydantic error as `field: problem`, joined by "; "."""
    return "; ".join(
        f"{field}: {message}" if field else message for field, message in field_errors(error, prefix=prefix)
    )


def field_errors(error: ValidationError, *, prefix: Iterable[str] = ()) -> list[tuple[str, str]]:
    """Return the problems of a pydantic error as (field, message). Inputs are left out: they may be private.

    A problem of several fields has no field; its message names them.
    """
    problems = []
    found = error.errors(include_url=False, include_input=False, include_context=False)
    for problem in found:
        if any(
            len(other["loc"]) > len(problem["loc"]) > 0 and other["loc"][: len(problem["loc"])] == problem["loc"]
            for other in found
        ):
            continue  # a container with an invalid item: the item's problem is more specific
        field = ".".join(str(part) for part in (*prefix, *problem["loc"]))
        problems.append((field, problem["msg"].removeprefix("Value error, ")))
    return problems
