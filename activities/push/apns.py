"""Apns: pushes to Apple's devices. developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns"""

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import ec

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
    no_account,
    outcome_of,
)
from activities.providers.http import NotSent, ResponseLost, parse_json
from activities.push.content import KEPT, PushContent
from activities.push.encryption import private_key, signed_token
from activities.push.http2 import Http2Connection, Http2Response
from bellwire.deliveries import Outcome
from bellwire.sends import SendRequest
from bellwire.targets import PushTarget

#: Seconds for which a provider token is used. Apple refuses one that is older than an hour, and a new one within 20 minutes.
TOKEN_SECONDS, TOKEN_LEAST_SECONDS = 50 * 60, 20 * 60
#: What each reason means; others are the operator's.
REASONS: Mapping[str, Meaning] = {
    "Unregistered": GONE,
    "ExpiredToken": GONE,
    **dict.fromkeys(
        ("BadCollapseId", "BadExpirationDate", "BadPriority", "PayloadEmpty", "PayloadTooLarge", "InvalidPushType"),
        CONTENT,
    ),
    **dict.fromkeys(("ExpiredProviderToken", "InvalidProviderToken", "MissingProviderToken"), RENEW),
    "TooManyRequests": busy(60),
    "TooManyProviderTokenUpdates": busy(TOKEN_LEAST_SECONDS),
    **dict.fromkeys(("IdleTimeout", "InternalServerError", "ServiceUnavailable", "Shutdown"), TRANSIENT),
}


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
        self._keys = {name: _key(name, account) for name, account in accounts.items()}
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
        try:
            response = await self._post(target, account, content)
            if _meaning(response, target).renew:
                self._renew(target.account)
                response = await self._post(target, account, content)
        except NotSent as error:
            return outcome_of(TRANSIENT, f"APNs unreachable: {error}", request)
        except ResponseLost as error:
            return outcome_of(UNKNOWN, f"APNs: {error}", request)
        code = _reason(response) or str(response.status)
        return outcome_of(
            _meaning(response, target),
            f"APNs {code}",
            request,
            response=response.body.decode(errors="replace"),
            provider_id=response.headers.get("apns-id"),
        )

    async def _post(self, target: PushTarget, account: ApnsAccount, content: PushContent) -> Http2Response:
        url = account.production_url if target.environment != "sandbox" else account.sandbox_url
        headers = {
            "authorization": f"bearer {self._token(target.account, account)}",
            "apns-topic": account.topic,
            "apns-push-type": "alert",
            "apns-priority": "10",
            "apns-expiration": str(int(self._clock() + KEPT.total_seconds())),
            # A later attempt, or an event that replaces this one, replaces the notice. At most 64 bytes.
            "apns-collapse-id": content.notice_id[:64],
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

    def _renew(self, name: str) -> None:
        """Make another token, unless this one is so new that Apple would refuse the change."""
        made = self._tokens.get(name)
        if made is not None and self._clock() - made[1] >= TOKEN_LEAST_SECONDS:
            del self._tokens[name]


def _is_usable(opened: asyncio.Task[Http2Connection]) -> bool:
    return not opened.cancelled() and opened.exception() is None and opened.result().is_open


def _reason(response: Http2Response) -> str:
    document = parse_json(response.body.decode(errors="replace"))
    found = document.get("reason") if isinstance(document, dict) else None
    return found[:40] if isinstance(found, str) and found.isascii() and found.isalnum() else ""


def _meaning(response: Http2Response, target: PushTarget) -> Meaning:
    if response.status == 200:
        return DELIVERED
    reason = _reason(response)
    if response.status == 410 and _registered_since(response, target):
        # The app was installed again after Apple noticed that it was gone.
        return TRANSIENT
    if reason in {"BadDeviceToken", "DeviceTokenNotForTopic"}:
        # Mostly a token of the sandbox at the production service, or of another app: then nothing is wrong with the device.
        return GONE if reason == "BadDeviceToken" and target.environment is not None else OPERATOR
    if reason:
        return REASONS.get(reason, TRANSIENT if response.status >= 500 else OPERATOR)
    if response.status == 410:
        return GONE
    if response.status < 300:
        return UNKNOWN
    if response.status == 413:
        return CONTENT
    return busy(60) if response.status == 429 else TRANSIENT if response.status >= 500 else OPERATOR


def _registered_since(response: Http2Response, target: PushTarget) -> bool:
    """Whether the token was registered after the time, in milliseconds, at which Apple last saw that it was not valid."""
    document: Any = parse_json(response.body.decode(errors="replace"))
    at = document.get("timestamp") if isinstance(document, dict) else None
    if not isinstance(at, int | float) or isinstance(at, bool) or not 0 <= at < 10**14:
        return False
    return target.registered_at > datetime.fromtimestamp(at / 1000, UTC)


def _payload(content: PushContent) -> dict[str, object]:
    aps: dict[str, object] = {"alert": {"title": content.title, "body": content.body}, "sound": "default"}
    if content.badge is not None:
        aps["badge"] = content.badge
    return {**content.data, **({"url": content.url} if content.url else {}), "aps": aps}


def _key(name: str, account: ApnsAccount) -> ec.EllipticCurvePrivateKey:
    try:
        return private_key(account.private_key.get_secret_value())
    except ValueError as error:
        raise ValueError(f"BELLWIRE_ACCOUNTS: apns.{name}.private_key: {error}") from None
