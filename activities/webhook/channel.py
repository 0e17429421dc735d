"""The webhook channel: one signed HTTP POST per attempt.

The request follows Standard Webhooks 1.0.0; `activities.webhook.body` makes its body, by default a CloudEvents 1.0 event.
Whatever an endpoint does becomes an Outcome and never an exception. Its reason is one of the fixed texts of
`activities.egress.failures`, or `HTTP` and the status.
"""

import time
from collections.abc import Callable

import aiohttp
import structlog
from yarl import URL

from activities.egress.failures import COMMON_HEADERS
from activities.egress.name_lookups import requesting_tenant
from activities.egress.policy import Egress, EgressRefused, timeouts
from activities.rendering.renderer import Renderer
from activities.tenant_slots import TenantSlots
from activities.webhook.body import body_of
from activities.webhook.endpoint import ConnectionLimit, Endpoint, RequestFailed, request_limit, tls_of
from activities.webhook.handshake import Handshakes
from activities.webhook.responses import classify_response
from bellwire import webhooks
from bellwire.deliveries import MAX_REASON, Fault, Outcome, OutcomeKind
from bellwire.errors import TemplateInvalid
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from bellwire.targets import WebhookTarget

log = structlog.get_logger("bellwire")


class WebhookChannel:
    """Posts events to endpoints. `timeout` is in seconds, from connecting to the end of the response.

    `connections` is how many one host and port gets at a time, `max_requests` how many there are at a time, of which a tenant
    gets a quarter. `origin` is the domain name that handshakes announce to endpoints that want to be asked for consent.
    """

    def __init__(
        self,
        registry: Registry,
        session: aiohttp.ClientSession,
        egress: Egress,
        *,
        timeout: float,
        connections: int = 50,
        max_requests: int | None = None,
        origin: str | None = None,
        renderer: Renderer | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._session = session
        self._egress = egress
        self._timeouts = timeouts(timeout)
        self._connections = ConnectionLimit(connections)
        self._requests = TenantSlots(max_requests or request_limit())
        self._renderer = renderer or Renderer()
        self._clock = clock
        self._handshakes = Handshakes(registry, origin=origin, clock=clock)

    async def attempt(self, request: SendRequest) -> Outcome:
        """Make one POST. The response counts once its head is whole; its body is kept as far as it comes.

        A URL that breaks the egress policy is rejected, since waiting does not help. A name that resolves to a refused
        address is deferred, since names can be changed.
        """
        target = request.subscription.target
        assert isinstance(target, WebhookTarget)
        try:
            url = self._egress.checked(target.url)
        except EgressRefused as refusal:
            return Outcome(kind=OutcomeKind.REJECTED, reason=refusal.reason)
        requesting_tenant.set(request.subscription.tenant)
        async with (
            self._requests.hold(request.subscription.tenant),
            self._connections.of(url).hold(request.subscription.tenant),
        ):
            # Signed only now: a signature expires, and the wait may be long.
            return await self._attempt(request, target, url)

    async def _attempt(self, request: SendRequest, target: WebhookTarget, url: URL) -> Outcome:
        now = int(self._clock())
        try:
            body = await body_of(request, target, self._renderer)
            secrets = [secret.get_secret_value() for secret in request.secrets]
            signature = webhooks.sign(secrets, request.id, now, body.content)
        except TemplateInvalid as error:
            log.error("template.failed", delivery=request.id, reason=str(error))  # noqa: TRY400 - it says where
            return _operator_fault(str(error))
        except ValueError:
            # A fault of the registry or the operator; the other deliveries of the chunk must not fail.
            return _operator_fault("no valid signing secret")
        try:
            tls = await tls_of(target)
        except ValueError:
            return _operator_fault("no valid client certificate")
        headers = {
            **{name: value.get_secret_value() for name, value in target.headers.items()},
            **body.headers,
            **COMMON_HEADERS,
            webhooks.ID_HEADER: request.id,
            webhooks.TIMESTAMP_HEADER: str(now),
            webhooks.SIGNATURE_HEADER: signature,
        }
        endpoint = Endpoint(
            url=url,
            session=self._session,
            egress=self._egress,
            timeout=timeouts(target.timeout) if target.timeout else self._timeouts,
            tls=tls,
            dialled=self._egress.dialling(),
            delivery=request.id,
        )
        try:
            if target.handshake and (refusal := await self._handshakes.refusal(request, endpoint, headers)) is not None:
                return refusal
            response = await endpoint.request("POST", headers, body.content)
        except RequestFailed as failure:
            return failure.outcome
        return classify_response(response.status, response.headers, response.start, now=self._clock())


def _operator_fault(reason: str) -> Outcome:
    return Outcome(kind=OutcomeKind.DEFERRED, reason=reason[:MAX_REASON], fault=Fault.OPERATOR)
