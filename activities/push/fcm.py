"""Fcm: pushes over Firebase Cloud Messaging, HTTP v1. firebase.google.com/docs/reference/fcm/rest"""

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import aiohttp

from activities.providers.accounts import FcmAccount
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
from activities.providers.http import ProviderResponse, call, limits, object_in, parse_object
from activities.providers.private_keys import rsa_key
from activities.providers.token_calls import ApiAnswer, outcome_of_call, with_token
from activities.providers.token_requests import TokenRequest, request_token
from activities.providers.tokens import IssuedToken, Tokens
from activities.push.content import PushContent, collapse_id
from activities.push.encryption import signed_token
from bellwire.deliveries import Fault, Outcome, OutcomeKind
from bellwire.registry import Registry
from bellwire.sends import SendRequest

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
#: What each error code means. INVALID_ARGUMENT has two meanings, see `_invalid`.
CODES: Mapping[str, Meaning] = {
    "UNREGISTERED": GONE,
    "SENDER_ID_MISMATCH": Meaning(kind=OutcomeKind.REJECTED, fault=Fault.OPERATOR, suppress=True),
    "UNAUTHENTICATED": RENEW,
    **dict.fromkeys(("APNS_AUTH_ERROR", "THIRD_PARTY_AUTH_ERROR", "PERMISSION_DENIED"), OPERATOR),
    **dict.fromkeys(("QUOTA_EXCEEDED", "RESOURCE_EXHAUSTED"), busy(60)),
    **dict.fromkeys(("UNAVAILABLE", "INTERNAL"), Meaning(kind=OutcomeKind.DEFERRED, wait=10)),
}
#: What the statuses of answers without a known code mean; others, see `_of_status`.
STATUSES: Mapping[int, Meaning] = {401: RENEW, 413: CONTENT, 429: busy(60)}


class Fcm:
    """Sends by the service accounts of `accounts`. Their access tokens are shared by all workers."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        accounts: Mapping[str, FcmAccount],
        registry: Registry,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._session, self._accounts, self._clock = session, accounts, clock
        self._keys = {name: rsa_key(account.private_key.get_secret_value()) for name, account in accounts.items()}
        self._tokens = {
            name: Tokens(registry, "fcm", account.row_of_token(name), partial(self._issue, name, account))
            for name, account in accounts.items()
        }

    async def send(self, request: SendRequest, token: str, account: str, content: PushContent) -> Outcome:
        """Send the push once."""
        if account not in self._accounts:
            return no_account("FCM", account)
        message = json.dumps({"message": _message(token, content, int(self._clock()))}, ensure_ascii=False).encode()
        send = partial(self._send, self._accounts[account], message)
        return await outcome_of_call("FCM", request, with_token(self._tokens[account], send))

    async def _send(self, account: FcmAccount, message: bytes, token: str) -> ApiAnswer:
        response = await call(
            self._session,
            "POST",
            f"{account.url}/v1/projects/{account.project_id}/messages:send",
            timeout=limits(account.timeout),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json; charset=utf-8"},
            data=message,
        )
        document = parse_object(response.text)
        name = document.get("name")
        if response.status == 200 and isinstance(name, str):
            return ApiAnswer(meaning=DELIVERED, code="200", text=response.shown, provider_id=name)
        return _refusal(response, document)

    async def _issue(self, name: str, account: FcmAccount) -> IssuedToken:
        """An access token for a JWT that the service account signs (RFC 7523)."""
        now = int(self._clock())
        claims = {
            "iss": account.client_email,
            "scope": SCOPE,
            "aud": account.token_url,
            "iat": now,
            "exp": now + 3600,
        }
        form = {"grant_type": GRANT, "assertion": signed_token(claims, self._keys[name])}
        return await request_token(
            self._session, TokenRequest(name="FCM", url=account.token_url, timeout=account.timeout, form=form)
        )


def _refusal(response: ProviderResponse, document: Mapping[str, Any]) -> ApiAnswer:
    error = object_in(document, "error")
    details = _objects(error.get("details"))
    named = [each.get("errorCode") for each in details if str(each.get("@type", "")).endswith("FcmError")]
    code = str(next((each for each in (*named, error.get("status")) if _is_code(each)), response.status))
    meaning = _invalid(details) if code == "INVALID_ARGUMENT" else CODES.get(code)
    if meaning is None:
        meaning = STATUSES.get(response.status, _of_status(response.status))
    meaning = by_server(meaning, response.status).after(response.retry_after)
    return ApiAnswer(meaning=meaning, code=code, text=response.shown)


def _of_status(status: int) -> Meaning:
    """An answer whose code is not known."""
    return TRANSIENT if status >= 500 else OPERATOR if status >= 300 else UNKNOWN


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _is_code(value: Any) -> bool:
    """Whether a reason may show it: the names of Google's codes are in capitals, and tell nobody's token."""
    return isinstance(value, str) and re.fullmatch("[A-Z_]{2,40}", value) is not None


def _invalid(details: Sequence[Mapping[str, Any]]) -> Meaning:
    """The token, if a violation of a field says so; otherwise the content: a payload that is not valid fails for each token."""
    fields = [
        str(violation.get("field", "")) for each in details for violation in _objects(each.get("fieldViolations"))
    ]
    return GONE if "message.token" in fields else CONTENT


def _message(token: str, content: PushContent, now: int) -> dict[str, object]:
    notification = {"title": content.title, "body": content.body}
    # A device replaces a shown notice by its tag. No collapse_key: FCM keeps only four of them for a device.
    notice: dict[str, object] = {"tag": content.notice_id}
    if content.badge is not None:
        notice["notification_count"] = content.badge
    message: dict[str, Any] = {
        "token": token,
        "notification": notification,
        "data": {**content.data, **({"url": content.url} if content.url else {})},
        "android": {"ttl": f"{content.kept}s", "notification": notice},
        "apns": {
            "headers": {
                "apns-collapse-id": collapse_id(content.notice_id),
                "apns-expiration": str(now + content.kept),
            }
        },
    }
    if content.badge is not None:
        message["apns"]["payload"] = {"aps": {"badge": content.badge}}
    if content.url and content.url.startswith("https:"):
        message["webpush"] = {"fcm_options": {"link": content.url}}
    return {name: value for name, value in message.items() if value}
