"""The webhook channel: one signed HTTP POST per attempt.

The request follows Standard Webhooks 1.0.0; `activities.webhook.body` makes its body, by default a CloudEvents 1.0 event.
Whatever an endpoint does becomes an Outcome and never an exception. Its reason is one of the fixed texts of
`activities.egress.failures`, or `HTTP` and the status.
"""

import asyncio
import ssl
import time
from collections.abc import Callable
from functools import lru_cache

import aiohttp
import structlog

from activities.egress.capped import read_start
from activities.egress.failures import CLIENT_ERRORS, COMMON_HEADERS, classify_error, redact
from activities.egress.policy import Egress, EgressRefused, timeouts
from activities.rendering.renderer import Renderer
from activities.webhook.body import body_of
from activities.webhook.handshake import Handshakes
from activities.webhook.responses import RESPONSE_BYTES, classify_response
from bellwire import webhooks
from bellwire.deliveries import MAX_REASON, Fault, Outcome, OutcomeKind
from bellwire.errors import TemplateInvalid
from bellwire.keys import certificates
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.targets import WebhookTarget

log = structlog.get_logger("bellwire")

#: TLS contexts with a client certificate that are cached; each takes a megabyte, and 25 ms to create.
MAX_TLS_CONTEXTS = 64


class WebhookChannel:
    """Posts events to endpoints. `timeout` is in seconds, from connecting to the end of the response.

    `origin` is the domain name that handshakes announce to endpoints that want to be asked for consent.
    """

    def __init__(
        self,
        registry: Registry,
        session: aiohttp.ClientSession,
        egress: Egress,
        *,
        timeout: float,
        origin: str | None = None,
        renderer: Renderer | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._session = session
        self._egress = egress
        self._timeouts = timeouts(timeout)
        self._renderer = renderer or Renderer()
        self._clock = clock
        self._handshakes = Handshakes(registry, origin=origin, clock=clock)

    async def attempt(self, request: SendRequest) -> Outcome:
        """Make one POST. The response counts once its head is whole; its body is kept as far as it comes, up to RESPONSE_BYTES.

        A URL that breaks the egress policy is rejected, since waiting does not help. A name that resolves to a refused
        address is deferred, since names can be changed.
        """
        target = request.subscription.target
        assert isinstance(target, WebhookTarget)
        now = int(self._clock())
        try:
            url = self._egress.checked(target.url)
            body = await body_of(request, target, self._renderer)
            secrets = [secret.get_secret_value() for secret in request.secrets]
            signature = webhooks.sign(secrets, request.id, now, body.content)
        except EgressRefused as refusal:
            return Outcome(kind=OutcomeKind.REJECTED, reason=refusal.reason)
        except TemplateInvalid as error:
            log.error("template.failed", delivery=request.id, reason=str(error))  # noqa: TRY400 - it says where
            return _ours(str(error))
        except ValueError:
            # A fault of the registry or the operator; the other deliveries of the chunk must not fail.
            return _ours("no valid signing secret")
        try:
            tls = await _tls(target)
        except ValueError:
            return _ours("no valid client certificate")
        headers = {
            **{name: value.get_secret_value() for name, value in target.headers.items()},
            **body.headers,
            **COMMON_HEADERS,
            webhooks.ID_HEADER: request.id,
            webhooks.TIMESTAMP_HEADER: str(now),
            webhooks.SIGNATURE_HEADER: signature,
        }
        dialled = self._egress.dialling()
        try:
            if target.handshake:
                outcome = await self._handshakes.refusal(request, url, self._session, headers, self._timeouts)
                if outcome is not None:
                    return outcome
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
                start = await read_start(response, RESPONSE_BYTES)
                body_start = b"" if dialled.private else start
                return classify_response(response.status, response.headers, body_start, now=self._clock())
        except CLIENT_ERRORS as error:
            return redact(classify_error(error), error, dialled, delivery=request.id)


def _ours(reason: str) -> Outcome:
    return Outcome(kind=OutcomeKind.DEFERRED, reason=reason[:MAX_REASON], fault=Fault.OPERATOR)


async def _tls(target: WebhookTarget) -> ssl.SSLContext | bool:
    """TLS with the target's client certificate, if it has one. Raises ValueError if that certificate is not usable."""
    if target.client_certificate is None:
        return True
    return await asyncio.to_thread(_context, target.client_certificate.get_secret_value())


#: The connector shares a connection only among requests of one context, so two certificates never share one.
_context = lru_cache(MAX_TLS_CONTEXTS)(certificates.context)
