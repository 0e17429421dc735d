"""Hooks: POSTs to URLs that tenants choose and that are credentials themselves, such as those of chat rooms and browsers."""

import json
import time
import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from activities.egress.capped import read_start
from activities.egress.failures import CLIENT_ERRORS, COMMON_HEADERS, classify_sent, is_before_sending, redact
from activities.egress.name_lookups import requesting_tenant
from activities.egress.policy import Egress, EgressRefused, timeouts
from activities.egress.retry_after import retry_after
from activities.providers.http import ProviderResponse
from activities.sending.exchanges import note_exchange
from activities.sending.redaction import Reply, http_exchange, url_secrets
from bellwire.deliveries import Outcome, OutcomeKind
from bellwire.exchanges import REDACTED
from bellwire.formats.storable import storable_json
from bellwire.sends import SendRequest

#: Bytes of a response that are read. The answers of providers have a few hundred.
RESPONSE_BYTES = 16 * 1024


class HookFailed(Exception):
    """There was no response. `outcome` says why, as tenants may see it."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


class Hooks:
    """Posts through `session`, which connects only to addresses that `egress` allows. `timeout`: seconds for one request."""

    def __init__(self, session: aiohttp.ClientSession, egress: Egress, *, timeout: float) -> None:
        self._session, self._egress, self._timeout = session, egress, timeouts(timeout)

    async def post(
        self, request: SendRequest, url: str, content: Any, *, secrets: Sequence[str] = ()
    ) -> ProviderResponse:
        """Post `content` as JSON, and note the exchange without the URL's path and query. Raises HookFailed.

        `secrets`: those in `content`. Of what a private address answers, nothing is shown.
        """
        body = json.dumps(content, ensure_ascii=False).encode()
        headers = {"content-type": "application/json; charset=utf-8"}
        return await self.post_bytes(request, url, body, headers, noted=body, secrets=secrets)

    async def post_bytes(
        self,
        request: SendRequest,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        noted: bytes,
        secrets: Sequence[str] = (),
    ) -> ProviderResponse:
        """The same for any body. `noted` stands for it in the exchange."""
        try:
            checked = self._egress.checked(url)
        except EgressRefused as refusal:
            raise HookFailed(Outcome(kind=OutcomeKind.REJECTED, reason=refusal.reason)) from None
        headers = {**COMMON_HEADERS, **headers}
        dialled = self._egress.dialling()
        requesting_tenant.set(request.subscription.tenant)
        shown = f"{urlsplit(url).scheme}://{urlsplit(url).netloc}/{REDACTED}"
        secrets = [*url_secrets(url), *secrets]
        note = partial(http_exchange, "POST", shown, headers, noted)
        try:
            async with self._session.post(
                checked, data=body, headers=headers, allow_redirects=False, timeout=self._timeout
            ) as response:
                self._egress.check_forwarded(response)
                start = _plain(await read_start(response, RESPONSE_BYTES), response.headers.get("content-encoding", ""))
                # With the URL of a message that a push service keeps, anybody can delete it.
                secrets += url_secrets(response.headers.get("location", ""))
                reply = Reply(response.status, response.reason, response.headers, start)
                note_exchange(partial(note, reply, private=dialled.private, known=secrets))
                return ProviderResponse(
                    status=response.status,
                    headers=response.headers,
                    text=storable_json(start.decode("utf-8-sig", errors="replace")),
                    retry_after=retry_after(response.headers.get("retry-after"), now=time.time()),
                    secrets=secrets,
                    private=dialled.private,
                )
        except CLIENT_ERRORS as error:
            if dialled.private or not is_before_sending(error):
                note_exchange(partial(note, None, private=dialled.private, known=secrets))
            # The client's error names the address, so it is not chained.
            raise HookFailed(redact(classify_sent(error), error, dialled, delivery=request.id)) from None


def _plain(body: bytes, encoding: str) -> bytes:
    """The body without the compression that a server applies without being asked for; as it is if it has another one."""
    if encoding.lower() not in {"gzip", "x-gzip", "deflate"}:
        return body
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(body, RESPONSE_BYTES)
    except zlib.error:
        return body
