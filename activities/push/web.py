"""WebPush: pushes to browsers over their push services (RFC 8030). Nobody but the browser can read them."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

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
    is_page,
    outcome_of,
)
from activities.providers.hooks import HookFailed, Hooks
from activities.providers.private_keys import p256_key
from activities.providers.token_calls import ApiAnswer
from activities.push.content import PushContent
from activities.push.encryption import base64url, encrypt, from_base64url, public_bytes, signed_token
from bellwire.deliveries import Outcome, OutcomeKind
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


class WebPush:
    """Sends by the VAPID keys of `keys` to push services whose host `hosts` allows."""

    def __init__(
        self,
        hooks: Hooks,
        keys: Mapping[str, VapidKey],
        *,
        hosts: tuple[str, ...],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._hooks, self._hosts = hooks, hosts
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
            body = encrypt(
                _payload(content),
                p256dh=from_base64url(browser.keys.p256dh.get_secret_value()),
                auth=from_base64url(browser.keys.auth.get_secret_value()),
            )
        except ValueError:
            return outcome_of(CONTENT, "push cannot be encrypted", request)
        headers = {
            "content-encoding": "aes128gcm",
            "content-type": "application/octet-stream",
            "ttl": str(content.kept),
            "urgency": "normal",
            # A later attempt, or an event that replaces this one, replaces what is not delivered yet. At most 32 characters.
            "topic": base64url(hashlib.sha256(content.notice_id.encode()).digest())[:32],
        }
        authorization = self._authorization(account, browser.endpoint)
        try:
            answer = await self._post(request, browser, body, {**headers, "authorization": authorization})
            if answer.meaning.renew:
                authorization = self._authorization(account, browser.endpoint, rejected=authorization)
                answer = await self._post(request, browser, body, {**headers, "authorization": authorization})
        except HookFailed as failure:
            return failure.outcome
        code = answer.code
        return outcome_of(answer.meaning, f"Web Push {code}", request, response=answer.text)

    async def _post(self, request: SendRequest, browser: Browser, body: bytes, headers: Mapping[str, str]) -> ApiAnswer:
        response = await self._hooks.post_bytes(request, browser.endpoint, body, headers, noted=b"")
        code = response.status
        meaning = STATUSES.get(code, TRANSIENT if code >= 300 else UNKNOWN).after(response.retry_after)
        if code < 300 and is_page(response.text):
            meaning = UNKNOWN  # a proxy's
        return ApiAnswer(meaning=meaning, code=str(code), text=response.shown)

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
