"""Apns: pushes to Apple's devices. developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns"""

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from activities.providers.accounts import ApnsAccount
from activities.providers.answers import (
    CONTENT,
    DELIVERED,
    GONE,
    OPERATOR,
    RENEW,
    TRANSIENT,
    UNKNOWN,
    Meaning,
    busy,
    by_server,
    no_account,
)
from activities.providers.http import NotSent, number_of, parse_object
from activities.providers.private_keys import p256_key
from activities.providers.token_calls import ApiAnswer, outcome_of_call
from activities.push.content import PushContent, collapse_id
from activities.push.encryption import signed_token
from activities.push.http2 import Http2Connection, Http2Response
from bellwire.deliveries import Outcome
from bellwire.sends import SendRequest
from bellwire.targets import PushTarget

#: Seconds for which a provider token is used. Apple refuses one that is older than an hour, and a new one within 20 minutes.
TOKEN_SECONDS, TOKEN_LEAST_SECONDS = 50 * 60, 20 * 60
#: What each reason means. A topic that Apple refuses is one of the account, which the operator can change.
REASONS: Mapping[str, Meaning] = {
    "Unregistered": GONE,
    "ExpiredToken": GONE,
    **dict.fromkeys(
        (
            *("BadCollapseId", "BadExpirationDate", "BadMessageId", "BadPriority", "DuplicateHeaders"),
            *("InvalidPushType", "PayloadEmpty", "PayloadTooLarge"),
        ),
        CONTENT,
    ),
    **dict.fromkeys(("ExpiredProviderToken", "InvalidProviderToken", "MissingProviderToken"), RENEW),
    "TooManyRequests": busy(60),
    "TooManyProviderTokenUpdates": busy(TOKEN_LEAST_SECONDS),
    **dict.fromkeys(("IdleTimeout", "InternalServerError", "ServiceUnavailable", "Shutdown"), TRANSIENT),
}
#: What the statuses of answers without a known reason mean.
STATUSES: Mapping[int, Meaning] = {410: GONE, 413: CONTENT, 429: busy(60)}


class Apns:
    """Sends by the keys of `accounts`, with one connection for each account and environment."""

    def __init__(
        self,
        accounts: Mapping[str, ApnsAccount],
        *,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._accounts, self._tls, self._clock = accounts, tls, clock
        self._keys = {name: p256_key(account.private_key.get_secret_value()) for name, account in accounts.items()}
        #: By account: the provider token, and when it was made.
        self._tokens: dict[str, tuple[str, float]] = {}
        self._connections: dict[str, asyncio.Task[Http2Connection]] = {}

    async def close(self) -> None:
        """Close the connections."""
        for opening in self._connections.values():
            opening.cancel()
        opened = await asyncio.gather(*self._connections.values(), return_exceptions=True)
        await asyncio.gather(*(each.close() for each in opened if isinstance(each, Http2Connection)))

    async def send(self, request: SendRequest, target: PushTarget, content: PushContent) -> Outcome:
        """Send the push once."""
        account = self._accounts.get(target.account)
        if account is None:
            return no_account("APNs", target.account)
        return await outcome_of_call("APNs", request, self._send(target, account, content))

    async def _send(self, target: PushTarget, account: ApnsAccount, content: PushContent) -> ApiAnswer:
        token = self._token(target.account, account)
        answer = _answer(await self._post(target, account, content, token), target)
        if answer.meaning.renew and self._may_renew(target.account, token):
            token = self._token(target.account, account)
            answer = _answer(await self._post(target, account, content, token), target)
        return answer

    async def _post(self, target: PushTarget, account: ApnsAccount, content: PushContent, token: str) -> Http2Response:
        url = account.production_url if target.environment != "sandbox" else account.sandbox_url
        headers = {
            "authorization": f"bearer {token}",
            "apns-topic": account.topic,
            "apns-push-type": "alert",
            "apns-priority": "10",
            "apns-expiration": str(int(self._clock() + content.kept)),
            # A later attempt, or an event that replaces this one, replaces the notice.
            "apns-collapse-id": collapse_id(content.notice_id),
            "content-type": "application/json",
        }
        parts, body = urlsplit(url), json.dumps(_payload(content), ensure_ascii=False).encode()
        for last in (False, True):
            connection = await self._connection(url, account)
            try:
                return await connection.request(
                    f"/3/device/{target.apns}",
                    headers,
                    body,
                    authority=parts.netloc,
                    scheme=parts.scheme,
                    timeout=account.timeout,
                )
            except NotSent:
                # The server went away before it processed the push, so another connection may send it.
                if last or connection.is_open:
                    raise
        raise AssertionError

    async def _connection(self, url: str, account: ApnsAccount) -> Http2Connection:
        # Keys of two teams never share a connection.
        name = f"{account.team_id}/{account.key_id}/{url}"
        found = self._connections.get(name)
        if found is None or (found.done() and not _is_usable(found)):
            # All that wait for it share it, and its failure.
            opening = Http2Connection.open(url, timeout=account.timeout / 2, tls=self._tls)
            found = self._connections[name] = asyncio.create_task(opening)
        return await asyncio.shield(found)

    def _token(self, name: str, account: ApnsAccount) -> str:
        made, now = self._tokens.get(name), self._clock()
        if made is None or now - made[1] >= TOKEN_SECONDS:
            claims = {"iss": account.team_id, "iat": int(now)}
            made = self._tokens[name] = (signed_token(claims, self._keys[name], kid=account.key_id), now)
        return made[0]

    def _may_renew(self, name: str, rejected: str) -> bool:
        """Whether there may be another token than this one: Apple refuses a change within 20 minutes."""
        made = self._tokens.get(name)
        if made is not None and made[0] == rejected:
            if self._clock() - made[1] < TOKEN_LEAST_SECONDS:
                return False
            del self._tokens[name]
        return True


def _is_usable(opened: asyncio.Task[Http2Connection]) -> bool:
    return not opened.cancelled() and opened.exception() is None and opened.result().is_open


def _answer(response: Http2Response, target: PushTarget) -> ApiAnswer:
    text = response.body.decode(errors="replace")
    document = parse_object(text)
    found = document.get("reason")
    reason = found[:40] if isinstance(found, str) and found.isascii() and found.isalnum() else ""
    if response.status == 200:
        meaning = DELIVERED
    elif response.status == 410 and _registered_since(document.get("timestamp"), target):
        # The app was installed again after Apple noticed that it was gone.
        meaning = TRANSIENT
    elif reason in {"BadDeviceToken", "DeviceTokenNotForTopic"}:
        # Mostly a token of the sandbox at the production service, or of another app: then nothing is wrong with the device.
        meaning = GONE if reason == "BadDeviceToken" and target.environment is not None else OPERATOR
    else:
        meaning = by_server(REASONS.get(reason) or _of_status(response.status), response.status)
    return ApiAnswer(
        meaning=meaning, code=reason or str(response.status), text=text, provider_id=response.headers.get("apns-id")
    )


def _of_status(status: int) -> Meaning:
    other = UNKNOWN if status < 300 else OPERATOR if status < 500 else TRANSIENT
    return STATUSES.get(status, other)


def _registered_since(found: Any, target: PushTarget) -> bool:
    """Whether the token was registered after the time, in milliseconds, at which Apple last saw that it was not valid."""
    at = found if isinstance(found, float) else number_of(found)
    if at is None or not 0 <= at < 10**14:
        return False
    return target.registered_at > datetime.fromtimestamp(at / 1000, UTC)


def _payload(content: PushContent) -> dict[str, object]:
    aps: dict[str, object] = {"alert": {"title": content.title, "body": content.body}, "sound": "default"}
    if content.badge is not None:
        aps["badge"] = content.badge
    return {**content.data, **({"url": content.url} if content.url else {}), "aps": aps}
