"""The webhook channel: one signed HTTP POST per attempt, and the one table that says what an answer comes to.

The request is Standard Webhooks 1.0.0 around a CloudEvents 1.0 event, or around what else `activities.webhook.body` makes.
Nothing that a receiver does raises: it is an Outcome, whose reason is one of the fixed texts below or `HTTP` and the
status.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

import aiohttp
import structlog
from temporalio import activity

from activities.egress.forward_proxy import proxy_fault
from activities.egress.policy import (
    Dialled,
    Egress,
    EgressRefused,
    timeouts,
)
from activities.egress.retry_after import THROTTLING, retry_after
from activities.rendering.renderer import Renderer
from activities.sending.in_flight import InFlightAttempts
from activities.sending.loop import send
from activities.webhook.body import body_of
from activities.webhook.handshake import Handshakes
from bellwire import webhooks
from bellwire.contract import Chunk, ChunkResult
from bellwire.deliveries import MAX_ANSWER, MAX_REASON, Due, Outcome, OutcomeKind
from bellwire.errors import TemplateInvalid
from bellwire.keys import certificates
from bellwire.registry import Registry
from bellwire.subscriptions import Channel, WebhookTarget

log = structlog.get_logger("bellwire")

#: Bytes of an answer that are read; MAX_ANSWER characters of UTF-8 fit. Of a longer one the connection is closed.
ANSWER_BYTES = 4096

#: What a request comes to, without an answer, at an address that only the operator allows: one text for all failures, or
#: tenants could learn from them what listens in a private network.
REDACTED_REASON = "request failed"

#: TLS contexts with a client's certificate that are kept; each has a megabyte and takes 25 ms to make.
CONTEXTS = 64

#: The answer header by which a receiver says that this delivery, or the whole subscription, is not to be tried again
#: (as with Svix, "Delivery control"), and what it may say.
CONTROL_HEADER = "webhook-delivery"
_DISABLE, _ABORT = "disable", ("abort-message", "abort")

#: Client errors that a later attempt may not meet: timeout, conflict, too early, too many requests.
_PASSING = frozenset({408, 409, 425, 429})

#: What each failure of the client comes to; the first row that fits counts. A dial that failed says no more than
#: that, or the text would tell which ports of a host are open.
_FAILURES: tuple[tuple[type[BaseException], OutcomeKind, str], ...] = (
    (aiohttp.RedirectClientError, OutcomeKind.DEFERRED, "redirect"),
    (aiohttp.TooManyRedirects, OutcomeKind.DEFERRED, "redirect"),
    (aiohttp.InvalidURL, OutcomeKind.REJECTED, "invalid URL"),
    (aiohttp.NonHttpUrlClientError, OutcomeKind.REJECTED, "invalid URL"),
    (UnicodeError, OutcomeKind.REJECTED, "invalid URL"),  # a host name that IDNA cannot say
    (aiohttp.ClientSSLError, OutcomeKind.DEFERRED, "TLS failed"),
    (aiohttp.ServerFingerprintMismatch, OutcomeKind.DEFERRED, "TLS failed"),
    (aiohttp.ConnectionTimeoutError, OutcomeKind.DEFERRED, "connect failed"),
    (TimeoutError, OutcomeKind.DEFERRED, "timeout"),
    (aiohttp.ClientConnectorDNSError, OutcomeKind.DEFERRED, "name not resolved"),
    (aiohttp.ClientConnectorError, OutcomeKind.DEFERRED, "connect failed"),
    (aiohttp.ClientConnectionError, OutcomeKind.DEFERRED, "connection lost"),
    (aiohttp.ClientPayloadError, OutcomeKind.DEFERRED, "half an answer"),
    (aiohttp.ClientHttpProxyError, OutcomeKind.DEFERRED, "connect failed"),  # the proxy tried
    (aiohttp.UploadAbortedError, OutcomeKind.DEFERRED, "connection lost"),
    (aiohttp.ClientResponseError, OutcomeKind.DEFERRED, "garbage answer"),
    (aiohttp.ClientError, OutcomeKind.DEFERRED, "request failed"),
    (OSError, OutcomeKind.DEFERRED, "connection lost"),
)
#: All that the client may raise.
CAUGHT = (aiohttp.ClientError, OSError, UnicodeError)


def _user_agent() -> str:
    try:
        return f"Bellwire/{version('bellwire')}"
    except PackageNotFoundError:  # a checkout that was not installed
        return "Bellwire/0"


USER_AGENT = _user_agent()


class WebhookChannel:
    """Posts events to strangers' URLs. `timeout` is in seconds, from dialling to the end of the answer.

    `origin` is the domain name in which receivers are asked for their consent that want to be.
    """

    def __init__(
        self,
        registry: Registry,
        session: aiohttp.ClientSession,
        egress: Egress,
        *,
        timeout: float,
        concurrency: int,
        origin: str | None = None,
        renderer: Renderer | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        #: Attempts that go on although the workflow task that began them has not waited.
        self.in_flight = InFlightAttempts(registry)
        self._registry = registry
        self._session = session
        self._egress = egress
        self._timeouts = timeouts(timeout)
        self._concurrency = concurrency
        self._renderer = renderer or Renderer()
        self._clock = clock
        self._handshakes = Handshakes(registry, origin=origin, failed=failed, clock=clock)

    @activity.defn
    async def send_webhook(self, chunk: Chunk) -> ChunkResult:
        """Attempt each delivery of the chunk that is not settled, by HTTP POST."""
        return await send(
            chunk,
            channel=Channel.WEBHOOK,
            registry=self._registry,
            attempt=self.attempt,
            concurrency=self._concurrency,
            in_flight=self.in_flight,
        )

    async def attempt(self, due: Due) -> Outcome:
        """One POST. Its answer counts once it is whole, or its first ANSWER_BYTES are; before, it is a failure that
        may pass.

        A target whose URL itself breaks the egress policy is rejected, since waiting does not help. A name that
        resolves to a refused address is deferred, since names come to mean something else.
        """
        target = due.subscription.target
        assert isinstance(target, WebhookTarget)
        now = int(self._clock())
        try:
            url = self._egress.checked(target.url)
            body = await body_of(due, target, self._renderer)
            secrets = [secret.get_secret_value() for secret in due.secrets]
            signature = webhooks.sign(secrets, due.delivery.id, now, body.content)
        except EgressRefused as refusal:
            return Outcome(kind=OutcomeKind.REJECTED, reason=refusal.reason)
        except TemplateInvalid as error:
            log.error("template.failed", delivery=due.delivery.id, reason=str(error))  # noqa: TRY400 - it says where
            return _ours(str(error))
        except ValueError:
            # The registry's or the operator's fault, and no reason to fail the other deliveries of the chunk.
            return _ours("no valid signing secret")
        try:
            tls = await _tls(target)
        except ValueError:
            return _ours("no valid client certificate")
        headers = {
            **{name: value.get_secret_value() for name, value in target.headers.items()},
            **body.headers,
            "accept-encoding": "identity",
            "user-agent": USER_AGENT,
            webhooks.ID_HEADER: due.delivery.id,
            webhooks.TIMESTAMP_HEADER: str(now),
            webhooks.SIGNATURE_HEADER: signature,
        }
        dialled = self._egress.dialling()
        try:
            if target.handshake:
                unwelcome = await self._handshakes.refusal(due, url, self._session, headers, self._timeouts)
                if unwelcome is not None:
                    return unwelcome
            async with self._session.post(
                url,
                data=body.content,
                headers=headers,
                skip_auto_headers=("content-type",),
                allow_redirects=False,
                timeout=timeouts(target.timeout) if target.timeout else self._timeouts,
                ssl=tls,
            ) as response:
                self._egress.check_forwarded(response)
                start = await _start_of(response)
                return self._answered(response.status, response.headers, b"" if dialled.inside else start)
        except CAUGHT as error:
            return _told(failed(error), error, due, dialled)

    def _answered(self, status: int, headers: Mapping[str, str], start: bytes) -> Outcome:
        kind, reason = judge_status(status), f"HTTP {status}"
        asked = headers.get(CONTROL_HEADER, "").strip().lower()
        if asked == _DISABLE or (asked in _ABORT and kind is not OutcomeKind.DELIVERED):
            reason = f"{reason}, {CONTROL_HEADER}: {asked}"
            kind = kind if kind is OutcomeKind.DELIVERED else OutcomeKind.REJECTED
        wait = retry_after(headers.get("retry-after"), now=self._clock()) if kind is OutcomeKind.DEFERRED else None
        return Outcome(
            kind=kind,
            reason=reason,
            retry_after=wait,
            disable=status == 410 or asked == _DISABLE,
            throttle=status in THROTTLING,
            answer=_readable(start) if headers.get("content-encoding", "identity").lower() == "identity" else None,
        )


def judge_status(status: int) -> OutcomeKind:
    """What an HTTP status comes to. A redirect is not followed; it is a failure that may pass, as with a deployment."""
    if 200 <= status < 300:
        return OutcomeKind.DELIVERED
    if 400 <= status < 500 and status not in _PASSING:
        return OutcomeKind.REJECTED
    return OutcomeKind.DEFERRED


def failed(error: BaseException) -> Outcome:
    """What a failure of the client comes to: no answer, half an answer, or none that is HTTP."""
    if isinstance(error.__cause__, EgressRefused):
        return Outcome(kind=OutcomeKind.DEFERRED, reason=error.__cause__.reason)
    if fault := proxy_fault(error):
        return Outcome(kind=OutcomeKind.DEFERRED, reason=fault)
    kind, reason = next((kind, reason) for kinds, kind, reason in _FAILURES if isinstance(error, kinds))
    return Outcome(kind=kind, reason=reason)


def _ours(reason: str) -> Outcome:
    return Outcome(kind=OutcomeKind.DEFERRED, reason=reason[:MAX_REASON], ours=True)


def _told(outcome: Outcome, error: BaseException, due: Due, dialled: Dialled) -> Outcome:
    """The outcome as tenants may read it; what the operator has to know besides goes into the log."""
    if proxy_fault(error):
        log.error("egress.obstructed", delivery=due.delivery.id, reason=outcome.reason)
    if not dialled.inside:
        return outcome
    log.info("webhook.failed_inside", delivery=due.delivery.id, reason=outcome.reason)
    return outcome.model_copy(update={"reason": REDACTED_REASON})


async def _tls(target: WebhookTarget) -> ssl.SSLContext | bool:
    """How to speak TLS with the target: as with any, or with its own certificate. Raises ValueError if that is not usable."""
    if target.client_certificate is None:
        return True
    return await asyncio.to_thread(_context, target.client_certificate.get_secret_value())


#: Connections are shared by requests of one context only, so those of two certificates never meet.
_context = lru_cache(CONTEXTS)(certificates.context)


async def _start_of(response: aiohttp.ClientResponse) -> bytes:
    """The body up to ANSWER_BYTES. If there is more, leaving the response closes the connection."""
    start = b""
    while len(start) < ANSWER_BYTES and (block := await response.content.read(ANSWER_BYTES - len(start))):
        start += block
    return start


def _readable(start: bytes) -> str | None:
    """The first characters as text without NUL, which PostgreSQL cannot hold; None for nothing."""
    return start.decode(errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")[:MAX_ANSWER] or None
