"""HttpProvider: an SMS provider that is called over HTTP, as its ProviderConfig describes."""

import json
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import urlencode

import aiohttp
from pydantic import SecretStr

from activities.providers.http import NotSent, ResponseLost, call, limits, parse_json, provider_id_of
from activities.sms.config_fields import secret_of
from activities.sms.http_responses import classify_response
from activities.sms.provider_config import Auth, ProviderConfig
from activities.sms.providers import SendResult, Sms, unknown_result, unreachable
from activities.sms.templating import json_pointer, substitute
from activities.sms.twilio_http import basic_auth
from bellwire.deliveries import Outcome, OutcomeKind


class HttpProvider:
    """One configured provider. `secrets`: by the names in the configuration, in lower case and without their prefix.

    The constructor raises ValueError if the secret is missing. The caller closes `session`.
    """

    def __init__(
        self, config: ProviderConfig, session: aiohttp.ClientSession, *, secrets: Mapping[str, SecretStr]
    ) -> None:
        self.name = config.name
        #: Without a lookup, sending again under the same key is the way to reconcile.
        self.idempotent_resend = config.lookup is None and config.idempotency_header is not None
        self._config = config
        self._session = session
        self._limits = limits(config.timeout)
        self._auth = _authorization(config.name, config.auth, secrets) if config.auth else {}

    def sender_of(self, sms: Sms) -> str:
        """The sender. Messaging services (MG…) are Twilio's; another provider sends from its default sender instead."""
        asked = sms.sender if sms.sender and not sms.sender.startswith("MG") else None
        return asked or self._config.sender or ""

    def cannot_send(self, sms: Sms) -> str | None:  # noqa: ARG002 - it sends any text
        return None

    async def send(self, sms: Sms) -> SendResult:
        config, values = self._config, self._values(sms)
        fields = substitute(config.body.fields, values)
        form = config.body.format == "form"
        headers = {
            "Content-Type": "application/x-www-form-urlencoded" if form else "application/json",
            "Accept": "application/json",
            **substitute(config.headers, values),
            **self._auth,
        }
        if config.idempotency_header is not None:
            headers[config.idempotency_header] = sms.idempotency_key
        try:
            response = await call(
                self._session,
                config.method,
                substitute(config.url, values, url_encode=True),
                timeout=self._limits,
                headers=headers,
                data=(urlencode(fields) if form else json.dumps(fields)).encode(),
            )
        except NotSent as error:
            return unreachable(self.name, error)
        except ResponseLost as error:
            return unknown_result(f"{self.name}: {error}")
        return classify_response(self.name, config.response, response)

    async def reconcile(self, sms: Sms, since: datetime) -> SendResult | None:  # noqa: ARG002 - the key identifies the SMS
        if self._config.lookup is not None:
            return await self._look_up(sms)
        if self.idempotent_resend:
            result = await self.send(sms)
            if result.outcome.kind in {OutcomeKind.DELIVERED, OutcomeKind.UNKNOWN} or result.suppress:
                return result
            # A refusal of the second request says nothing about the first one.
            return unknown_result(
                f"sent again: {result.outcome.reason}",
                wait=result.outcome.retry_after,
                operator_problem=result.operator_problem,
            )
        return unknown_result(f"{self.name} cannot be reconciled; configure a lookup or an idempotency_header")

    async def _look_up(self, sms: Sms) -> SendResult | None:
        lookup = self._config.lookup
        assert lookup is not None
        url = substitute(lookup.url, self._values(sms), url_encode=True)
        headers = {"Accept": "application/json", **self._auth}
        try:
            response = await call(self._session, "GET", url, timeout=self._limits, headers=headers)
        except (NotSent, ResponseLost) as error:
            return unknown_result(f"while reconciling, {self.name}: {error}")
        if response.status in lookup.absent:
            return None
        document = parse_json(response.text)
        if response.status != 200 or document is None:
            problem = f"{self.name} lookup {response.status}" if response.status in {400, 401, 403, 404} else None
            detail = f"while reconciling, {self.name} {response.status}: {response.shown}"
            return unknown_result(detail, wait=response.retry_after, operator_problem=problem)
        found = provider_id_of(json_pointer(document, lookup.id))
        if found is None:
            return None
        outcome = Outcome(kind=OutcomeKind.DELIVERED, reason=f"{self.name} has it, reconciled", provider_id=found)
        return SendResult(outcome=outcome)

    def _values(self, sms: Sms) -> dict[str, str]:
        """What the placeholders stand for."""
        return {
            "to": sms.to,
            "text": sms.text,
            "sender": self.sender_of(sms),
            "idempotency_key": sms.idempotency_key,
            "delivery": sms.delivery_id,
        }


def _authorization(name: str, auth: Auth, secrets: Mapping[str, SecretStr]) -> dict[str, str]:
    secret = secret_of(name, auth.secret, secrets)
    if auth.kind == "basic":
        return basic_auth((auth.username or "", secret))
    return {"Authorization": f"Bearer {secret}"} if auth.kind == "bearer" else {auth.header or "": secret}
