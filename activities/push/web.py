"""WebPush: pushes to browsers over their push services (RFC 8030). Nobody but the browser can read them."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from activities.egress.capped import read_start
from activities.egress.failures import CLIENT_ERRORS, COMMON_HEADERS, classify_sent, is_before_sending, redact
from activities.egress.policy import Egress, EgressRefused, timeouts
from activities.egress.retry_after import retry_after
from activities.providers.accounts import VapidKey
from activities.providers.answers import (
    CONTENT,
    DELIVERED,
    GONE,
    OPERATOR,
    RENEW,
    TRANSIENT,
    UNKNOWN,
    Meaning,
    blocked,
    busy,
    outcome_of,
)
from activities.providers.private_keys import p256_key
from activities.push.content import PushContent
from activities.push.encryption import base64url, encrypt, from_base64url, public_bytes, signed_token
from activities.sending.exchanges import note_exchange
from activities.sending.redaction import Reply, http_exchange, url_secrets, without_secrets
from bellwire.deliveries import Outcome, OutcomeKind
from bellwire.exchanges import REDACTED
from bellwire.sends import SendRequest
from bellwire.targets.push import WebPush as Browser
from bellwire.targets.push import is_push_host

#: What each status means; others are deferred. A 403 says that the VAPID key or its subject is wrong, and nothing of the browser.
STATUSES: Mapping[int, Meaning] = {
    **dict.fromkeys((200, 201, 202), DELIVERED),
    **dict.fromkeys((404, 410), GONE),
    **dict.fromkeys((400, 403), OPERATOR),
    401: RENEW,
    413: CONTENT,
    429: busy(60),
}
#: Seconds for which a VAPID token is valid; at most 24 hours (RFC 8292 §2).
TOKEN_LIFE = 12 * 3600
#: Tokens that are kept, one for each key and push service.
MAX_TOKENS = 1_000
#: Bytes of a push service's answer that are read.
RESPONSE_BYTES = 4096


class WebPush:
    """Sends by the VAPID keys of `keys`, through `session`, to push services whose host `hosts` allows."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        egress: Egress,
        keys: Mapping[str, VapidKey],
        *,
        hosts: tuple[str, ...],
        timeout: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._session, self._egress, self._hosts, self._timeout = session, egress, hosts, timeouts(timeout)
        self._keys = {name: (p256_key(each.private_key.get_secret_value()), each) for name, each in keys.items()}
        self._clock = clock
        #: Authorization by key and push service, and when it ends.
        self._tokens: dict[tuple[str, str], tuple[str, float]] = {}

    async def send(self, request: SendRequest, browser: Browser, account: str, content: PushContent) -> Outcome:
        """Send the push once."""
        if account not in self._keys:
            return blocked(f"no VAPID key {account}", f"add [vapid.{account}] to BELLWIRE_ACCOUNTS")
        if not is_push_host(urlsplit(browser.endpoint).hostname or "", self._hosts):
            reason = "push service not allowed"
            return Outcome(kind=OutcomeKind.REJECTED, reason=reason)
        try:
            url = self._egress.checked(browser.endpoint)
        except EgressRefused as refusal:
            return Outcome(kind=OutcomeKind.REJECTED, reason=refusal.reason)
        try:
            body = encrypt(
                _payload(content),
                p256dh=from_base64url(browser.keys.p256dh.get_secret_value()),
                auth=from_base64url(browser.keys.auth.get_secret_value()),
            )
        except ValueError:
            return outcome_of(CONTENT, "push cannot be encrypted", request)
        headers = {
            **COMMON_HEADERS,
            "content-encoding": "aes128gcm",
            "content-type": "application/octet-stream",
            "ttl": str(content.kept),
            "urgency": "normal",
            # A later attempt, or an event that replaces this one, replaces what is not delivered yet. At most 32 characters.
            "topic": base64url(hashlib.sha256(content.notice_id.encode()).digest())[:32],
        }
        post = partial(self._post, request, browser, url, body)
        authorization = self._authorization(account, browser.endpoint)
        meaning, outcome = await post({**headers, "authorization": authorization})
        if meaning is not None and meaning.renew:
            authorization = self._authorization(account, browser.endpoint, rejected=authorization)
            _, outcome = await post({**headers, "authorization": authorization})
        return outcome

    async def _post(
        self, request: SendRequest, browser: Browser, url: URL, body: bytes, headers: Mapping[str, str]
    ) -> tuple[Meaning | None, Outcome]:
        """What the answer means, None without one, and the outcome."""
        dialled = self._egress.dialling()
        shown = f"https://{urlsplit(browser.endpoint).hostname}/{REDACTED}"
        secrets = url_secrets(browser.endpoint)
        note = partial(http_exchange, "POST", shown, headers, b"")
        try:
            async with self._session.post(
                url, data=body, headers=headers, allow_redirects=False, timeout=self._timeout
            ) as response:
                self._egress.check_forwarded(response)
                start = await read_start(response, RESPONSE_BYTES)
                # With the URL of the message, anybody can delete it.
                secrets += url_secrets(response.headers.get("location", ""))
                reply = Reply(response.status, response.reason, response.headers, start)
                note_exchange(partial(note, reply, private=dialled.private, known=secrets))
                code, wait = response.status, retry_after(response.headers.get("retry-after"), now=self._clock())
                meaning = STATUSES.get(code, TRANSIENT if code >= 300 else UNKNOWN).after(wait)
        except CLIENT_ERRORS as error:
            if dialled.private or not is_before_sending(error):
                note_exchange(partial(note, None, private=dialled.private))
            return None, redact(classify_sent(error), error, dialled, delivery=request.id)
        # Not the message's Location as its id, either.
        text = without_secrets(start.decode(errors="replace"), secrets)
        return meaning, outcome_of(meaning, f"Web Push {code}", request, response=text)

    def _authorization(self, account: str, endpoint: str, *, rejected: str | None = None) -> str:
        """VAPID: a token for this push service, which is reused until half of its life is over, or it is rejected."""
        parts, now = urlsplit(endpoint), self._clock()
        audience = f"{parts.scheme}://{parts.netloc}"
        found = self._tokens.get((account, audience))
        if found is not None and now < found[1] and found[0] != rejected:
            return found[0]
        key, settings = self._keys[account]
        token = signed_token({"aud": audience, "exp": int(now) + TOKEN_LIFE, "sub": settings.subject}, key)
        made = f"vapid t={token},k={base64url(public_bytes(key.public_key()))}"
        if len(self._tokens) >= MAX_TOKENS:
            self._tokens.clear()
        self._tokens[account, audience] = (made, now + TOKEN_LIFE / 2)
        return made


def _payload(content: PushContent) -> bytes:
    """What the service worker of examples/webpush/ shows."""
    fields: dict[str, object] = {"title": content.title, "body": content.body, "data": content.data}
    if content.url is not None:
        fields["url"] = content.url
    if content.badge is not None:
        fields["badge"] = content.badge
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
