"""What a failed HTTP request comes to: one table for every request to an untrusted address."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

import aiohttp
import structlog

from activities.egress.causes import cause_of, is_tls_failure
from activities.egress.forward_proxy import proxy_failure
from activities.egress.policy import Dialled, EgressRefused
from bellwire.deliveries import Fault, Outcome, OutcomeKind

log = structlog.get_logger("bellwire")

#: The reason of every failed request to an address that only the operator allows. One text for all failures, or tenants
#: could learn from the differences which ports are open in a private network.
REDACTED_REASON = "request failed"

#: The outcome of each exception of the HTTP client; the first row that matches counts. A failed connect and a failed handshake
#: also say why (see `causes`), unless it would tell tenants which ports of a private network are open.
FAILURES: tuple[tuple[type[BaseException], OutcomeKind, str], ...] = (
    (aiohttp.RedirectClientError, OutcomeKind.DEFERRED, "redirect"),
    (aiohttp.TooManyRedirects, OutcomeKind.DEFERRED, "redirect"),
    (aiohttp.InvalidURL, OutcomeKind.REJECTED, "invalid URL"),
    (aiohttp.NonHttpUrlClientError, OutcomeKind.REJECTED, "invalid URL"),
    (UnicodeError, OutcomeKind.REJECTED, "invalid URL"),  # a host name that IDNA cannot encode
    (aiohttp.ClientSSLError, OutcomeKind.DEFERRED, "TLS failed"),
    (aiohttp.ServerFingerprintMismatch, OutcomeKind.DEFERRED, "TLS failed"),
    (aiohttp.ConnectionTimeoutError, OutcomeKind.DEFERRED, "connect failed"),
    (TimeoutError, OutcomeKind.DEFERRED, "timeout"),
    (aiohttp.ClientConnectorDNSError, OutcomeKind.DEFERRED, "name not resolved"),
    (aiohttp.ClientConnectorError, OutcomeKind.DEFERRED, "connect failed"),
    (aiohttp.ClientConnectionError, OutcomeKind.DEFERRED, "connection lost"),
    (aiohttp.ClientPayloadError, OutcomeKind.DEFERRED, "incomplete response"),
    (aiohttp.ClientHttpProxyError, OutcomeKind.DEFERRED, "connect failed"),  # the proxy could not reach the host
    (aiohttp.UploadAbortedError, OutcomeKind.DEFERRED, "connection lost"),
    (aiohttp.ClientResponseError, OutcomeKind.DEFERRED, "invalid response"),
    (aiohttp.ClientError, OutcomeKind.DEFERRED, "request failed"),
    (OSError, OutcomeKind.DEFERRED, "connection lost"),
)
#: Every exception that the HTTP client raises for a failed request.
CLIENT_ERRORS = (aiohttp.ClientError, OSError, UnicodeError)
#: Those that it raises before it sends the request.
_BEFORE_SENDING = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL, UnicodeError)


def classify_error(error: BaseException) -> Outcome:
    """The outcome of a request that raised one of CLIENT_ERRORS: no response, an incomplete one, or invalid HTTP."""
    if isinstance(error.__cause__, EgressRefused):
        return Outcome(kind=OutcomeKind.DEFERRED, reason=error.__cause__.reason)
    if failure := proxy_failure(error):
        return Outcome(kind=OutcomeKind.DEFERRED, reason=failure, fault=Fault.OPERATOR)
    kind, reason = next((kind, reason) for kinds, kind, reason in FAILURES if isinstance(error, kinds))
    cause = cause_of(error)
    if cause is not None and reason == "TLS failed":
        return Outcome(kind=kind, reason=f"TLS failed: {cause}")
    if cause is not None and reason == "connect failed":
        return Outcome(kind=kind, reason=f"connect failed: {cause}")
    if cause is not None and reason == "connection lost" and is_tls_failure(error):
        return Outcome(kind=kind, reason=f"connection lost: {cause}")
    return Outcome(kind=kind, reason=reason)


def classify_sent(error: BaseException) -> Outcome:
    """The same for a request that must not arrive twice: unknown, if it may have arrived."""
    outcome = classify_error(error)
    may_have_arrived = (
        outcome.kind is OutcomeKind.DEFERRED and not is_before_sending(error) and not proxy_failure(error)
    )
    return outcome.model_copy(update={"kind": OutcomeKind.UNKNOWN}) if may_have_arrived else outcome


def _without_cause(outcome: Outcome) -> Outcome:
    """The outcome with its cause for the operator only."""
    for plain in ("TLS failed", "connect failed", "connection lost"):
        if outcome.reason.startswith(f"{plain}: "):
            return outcome.model_copy(update={"reason": plain, "cause": outcome.reason})
    return outcome


def is_before_sending(error: BaseException) -> bool:
    """Whether nothing of the request was sent."""
    return isinstance(error, _BEFORE_SENDING) and not isinstance(error, aiohttp.RedirectClientError)


def redact(outcome: Outcome, error: BaseException, dialled: Dialled, *, delivery: str) -> Outcome:
    """The outcome as tenants may see it. For the operator, it keeps the reason that a private network hides from them."""
    if proxy_failure(error):
        log.error("egress.proxy_failed", delivery=delivery, reason=outcome.reason)
    if dialled.private:
        return hide(outcome, delivery=delivery)
    return _without_cause(outcome) if dialled.unknown else outcome


def hide(outcome: Outcome, *, delivery: str) -> Outcome:
    """The outcome without its reason, which only the operator sees: as its cause, and in the log."""
    log.info("egress.private_request_failed", delivery=delivery, reason=outcome.reason)
    return outcome.model_copy(update={"reason": REDACTED_REASON, "cause": outcome.reason})


def _user_agent() -> str:
    try:
        return f"Bellwire/{version('bellwire')}"
    except PackageNotFoundError:  # a checkout that was not installed
        return "Bellwire/0"


#: Headers of every request to an untrusted address: bodies are not decompressed.
COMMON_HEADERS: Mapping[str, str] = {"accept-encoding": "identity", "user-agent": _user_agent()}
