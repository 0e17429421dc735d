"""What an endpoint's response means: one table for statuses, and the header by which it ends a delivery."""

from collections.abc import Mapping

from activities.egress.retry_after import asks_to_throttle, retry_after
from bellwire.deliveries import MAX_RESPONSE, Outcome, OutcomeKind

#: Bytes of a response body that are read; MAX_RESPONSE characters of UTF-8 fit. A longer one closes the connection.
RESPONSE_BYTES = 4096

#: The response header by which an endpoint ends the delivery (`abort`, `abort-message`) or disables the whole
#: subscription (`disable`), as with Svix ("Delivery control").
CONTROL_HEADER = "webhook-delivery"
_DISABLE, _ABORT = "disable", ("abort-message", "abort")

#: The one status that ends a delivery: the resource is gone for good (RFC 9110 §15.5.11; Standard Webhooks 1.0.0).
_GONE = 410


def classify_status(status: int) -> OutcomeKind:
    """The outcome of an HTTP status: delivered for 2xx, rejected for 410, deferred for every other.

    A deployment answers 404 for a while, and a firewall 403, so no other status ends a delivery (Standard Webhooks 1.0.0).
    Redirects are not followed.
    """
    if 200 <= status < 300:
        return OutcomeKind.DELIVERED
    return OutcomeKind.REJECTED if status == _GONE else OutcomeKind.DEFERRED


def classify_response(status: int, headers: Mapping[str, str], start: bytes, *, now: float) -> Outcome:
    """The outcome of a response. `start` is the beginning of its body, `now` the Unix time that it arrived."""
    kind, reason = classify_status(status), f"HTTP {status}"
    control = headers.get(CONTROL_HEADER, "").strip().lower()
    if control == _DISABLE or (control in _ABORT and kind is not OutcomeKind.DELIVERED):
        reason = f"{reason}, {CONTROL_HEADER}: {control}"
        kind = kind if kind is OutcomeKind.DELIVERED else OutcomeKind.REJECTED
    wait = retry_after(headers.get("retry-after"), now=now) if kind is OutcomeKind.DEFERRED else None
    return Outcome(
        kind=kind,
        reason=reason,
        retry_after=wait,
        disable=status == _GONE or control == _DISABLE,
        throttle=asks_to_throttle(status, wait),
        response=_readable(start) if headers.get("content-encoding", "identity").lower() == "identity" else None,
    )


def _readable(start: bytes) -> str | None:
    """The first characters as text; None for an empty body."""
    return start.decode(errors="replace")[:MAX_RESPONSE] or None
