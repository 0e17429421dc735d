"""The exceptions of Bellwire.

BellwireError
├── EventInvalid             also a ValueError
├── EventConflict
├── EventNotFound
├── DeliveryNotFound
├── SubscriptionNotFound
├── SubscriptionInvalid      also a ValueError
├── TemplateInvalid          also a ValueError
├── WaitTimeout              also a TimeoutError
├── TemporalUnavailable
├── RegistryUnavailable
├── NotSetUp
├── KeysInvalid              also a ValueError
├── NotReadable
└── SignatureInvalid         also a ValueError
    ├── SignatureMissing
    ├── SignatureMismatch
    └── TimestampOutsideTolerance

Constructing `Event`, `Subscription` or a target with bad values raises pydantic's `ValidationError` (a ValueError) that
names each field. Everything else that a caller can meet is below; raised without a message, the docstring is the message.
"""

import inspect
from collections.abc import Iterable

from pydantic import ValidationError


class BellwireError(Exception):
    """Something went wrong in Bellwire."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(args or (inspect.getdoc(type(self)),)))


class EventInvalid(BellwireError, ValueError):
    """The event breaks a rule of CloudEvents 1.0; correct the named field and publish again. Nothing was started."""


class EventConflict(BellwireError):
    """Another event with this source and id, but other content, was published before; give the new event an id of its own."""


class EventNotFound(BellwireError):
    """No event with this source and id is known; check both, and that it was published to this namespace."""


class DeliveryNotFound(BellwireError):
    """The event has no delivery for this subscription; `python -m starter events show` lists those it has."""


class SubscriptionNotFound(BellwireError):
    """No subscription has this id; `python -m starter subscriptions` lists those there are."""


class SubscriptionInvalid(BellwireError, ValueError):
    """The subscription breaks a rule; correct the named field and try again. Nothing was stored."""


class TemplateInvalid(BellwireError, ValueError):
    """The template does not exist, does not parse or names a variable that the event lacks."""


class WaitTimeout(BellwireError, TimeoutError):
    """The event has not settled yet; wait longer, or see `status` for what is unsettled and when it is next due."""


class TemporalUnavailable(BellwireError):
    """Temporal cannot be reached; check TEMPORAL_ADDRESS and that the server runs, then publish again (the same id is safe)."""


class RegistryUnavailable(BellwireError):
    """The registry database cannot be reached; check BELLWIRE_REGISTRY_URL and that it runs."""


class NotSetUp(BellwireError):
    """The registry schema or the search attributes are missing; run `python -m starter setup`."""


class KeysInvalid(BellwireError, ValueError):
    """The encryption keys are no list of id:base64; make one with `python -m starter keys new`."""


class NotReadable(BellwireError):
    """It is encrypted, and none of the keys given opens it; give BELLWIRE_ENCRYPTION_KEYS the key that it names."""


class SignatureInvalid(BellwireError, ValueError):
    """The request is not a webhook signed with this secret; answer 400 and do nothing else."""


class SignatureMissing(SignatureInvalid):
    """A webhook-id, webhook-timestamp or webhook-signature header is missing or malformed."""


class SignatureMismatch(SignatureInvalid):
    """No signature matches: the secret is another one, or the body was changed; verify the raw bytes as received."""


class TimestampOutsideTolerance(SignatureInvalid):
    """The webhook-timestamp is too old or too new: a replayed request, or a clock that is off."""


def fields_in_error(error: ValidationError, *, prefix: Iterable[str] = ()) -> str:
    """Each problem of a pydantic error as `field: what is wrong`, joined by "; "."""
    return "; ".join(
        f"{field}: {message}" if field else message for field, message in field_errors(error, prefix=prefix)
    )


def field_errors(error: ValidationError, *, prefix: Iterable[str] = ()) -> list[tuple[str, str]]:
    """Each problem of a pydantic error as (field, what is wrong); inputs are left out, they may be private.

    A rule that spans several fields has no field; its message names them.
    """
    problems = []
    found = error.errors(include_url=False, include_input=False, include_context=False)
    for problem in found:
        if any(
            len(other["loc"]) > len(problem["loc"]) > 0 and other["loc"][: len(problem["loc"])] == problem["loc"]
            for other in found
        ):
            continue  # a container whose item is bad; the item says more
        field = ".".join(str(part) for part in (*prefix, *problem["loc"]))
        problems.append((field, problem["msg"].removeprefix("Value error, ")))
    return problems
