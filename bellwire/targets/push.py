"""Push targets: a browser's push subscription, or the token of an app's installation with FCM or APNs."""

import base64
import binascii
import re
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatch
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, model_validator

from bellwire.formats.matching import Matching
from bellwire.formats.web_urls import parse_web_url
from bellwire.models import TRUSTED, StrictInput, skip_when_trusted
from bellwire.targets.accounts import DEFAULT_ACCOUNT, AccountName, account_key
from bellwire.targets.channel import Channel, ChannelSpec, ChannelTarget
from bellwire.targets.stored_secret import StoredSecret

#: Bytes of a browser's public key.
POINT_BYTES = 65
#: The curve P-256: y² = x³ - 3x + b modulo p.
_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B


def _endpoint(value: str) -> str:
    parts = parse_web_url(value, example="https://updates.push.services.mozilla.com/wpush/v2/…")
    if "@" in parts.netloc or parts.fragment or parts.path in {"", "/"}:
        raise ValueError("is not the endpoint of a push subscription; copy what PushSubscription.toJSON() returns")
    if parts.scheme != "https" and is_push_host(parts.hostname or "", PUSH_HOSTS):
        raise ValueError(
            "begins with http, and push services take https only; copy what PushSubscription.toJSON() returns"
        )
    return value


def _key_of(length: int, name: str, value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    try:
        found = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if len(found) != length or (length == POINT_BYTES and not _is_on_curve(found)):
        raise ValueError(f"is not {name}: {length} bytes in base64url, as PushSubscription.toJSON() returns them")
    return value


def _is_on_curve(point: bytes) -> bool:
    """Whether these bytes are an uncompressed point of P-256 (SEC 1 §2.3.4, SEC 2 §2.4.2)."""
    x, y = int.from_bytes(point[1:33]), int.from_bytes(point[33:])
    return point[0] == 4 and x < _P and y < _P and (y * y - x**3 + 3 * x - _B) % _P == 0


def _with_zone(value: datetime) -> datetime:
    """A time without a zone is one of UTC."""
    return value if value.tzinfo else value.replace(tzinfo=UTC)


_DIGITS = ": an even number of at least 64 digits"


def _whole_bytes(value: str) -> str:
    if len(value) % 2:
        raise ValueError(f"has half a byte too many or too few; a device token is in hexadecimal{_DIGITS}")
    return value


def _not_later(value: datetime) -> datetime:
    # Until then, what Apple says of the token would not count. Clocks and zones differ by less than a day.
    if value > datetime.now(UTC) + timedelta(days=1):
        raise ValueError("is in the future; write when the app registered the token, or leave it out")
    return value


class WebPushKeys(StrictInput):
    """The keys of a browser's push subscription."""

    #: Its public key.
    p256dh: Annotated[StoredSecret, skip_when_trusted(lambda value: _key_of(POINT_BYTES, "a P-256 key", value))]
    #: Its authentication secret.
    auth: Annotated[StoredSecret, skip_when_trusted(lambda value: _key_of(16, "an authentication secret", value))]


class WebPush(StrictInput):
    """What a browser's PushSubscription.toJSON() returns."""

    endpoint: Annotated[str, Field(max_length=2048), skip_when_trusted(_endpoint)]
    keys: WebPushKeys
    #: Given by browsers, and ignored: an endpoint that has expired answers 404 or 410.
    expirationTime: float | None = None  # noqa: N815 - the name of the Push API


class PushTarget(ChannelTarget):
    """Give one of `web`, `fcm` and `apns`, and the operator's `account` that sends."""

    channel: Literal[Channel.PUSH] = Channel.PUSH
    #: A browser's push subscription. `account` is the VAPID key that it was made with: another one is refused for ever.
    web: WebPush | None = None
    #: The registration token of Firebase Cloud Messaging.
    fcm: (
        Annotated[
            str,
            Field(max_length=4096),
            Matching(
                r"^[A-Za-z0-9_:.-]+$", "must be a registration token of Firebase, as the app's getToken() returns it"
            ),
        ]
        | None
    ) = None
    #: The device token of Apple, in hexadecimal.
    apns: (
        Annotated[
            str,
            Field(max_length=400),
            Matching(r"^[0-9a-fA-F]{64,}$", f"must be a device token of Apple, in hexadecimal{_DIGITS}"),
            skip_when_trusted(_whole_bytes),
        ]
        | None
    ) = None
    #: Where Apple issued the device token; None: not known, and tried at the production service.
    environment: Literal["production", "sandbox"] | None = None
    #: The operator's account with the provider, or VAPID key.
    account: AccountName = DEFAULT_ACCOUNT
    #: When the token was registered; when this target was made, by default. Apple says of a token since when it is not valid.
    registered_at: Annotated[datetime, AfterValidator(_with_zone), skip_when_trusted(_not_later)] = Field(
        default_factory=lambda: datetime.now(UTC)
    )

    @model_validator(mode="after")
    def _one_address(self, info: ValidationInfo) -> Self:
        if sum(each is not None for each in (self.web, self.fcm, self.apns)) != 1:
            raise ValueError("web, fcm, apns: give one of them")
        if info.context != TRUSTED and self.environment is not None and self.apns is None:
            raise ValueError("environment: belongs to apns; leave it out")
        return self

    @property
    def recipients(self) -> tuple[str, ...]:
        return (self.web.endpoint if self.web is not None else f"{self.account}/{self.fcm or self.apns}",)

    @property
    def address(self) -> str:
        if self.web is not None:
            return f"a browser at {urlsplit(self.web.endpoint).hostname}"
        token = self.fcm or self.apns or ""
        return f"{'fcm' if self.fcm else 'apns'}/{self.account}/…{token[-6:]}"


#: The push services of browsers. Only they get web pushes, unless the settings name others.
PUSH_HOSTS = (
    "*.push.services.mozilla.com",
    "fcm.googleapis.com",
    "web.push.apple.com",
    "*.web.push.apple.com",
    "*.notify.windows.com",
)


def is_push_host(host: str, allowed: tuple[str, ...]) -> bool:
    """Whether a host name matches one of the patterns."""
    return any(fnmatch(host.lower(), pattern) for pattern in allowed)


#: A public key that is nobody's: the curve's base point.
_A_POINT = "BGsX0fLhLEJH-Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"
_HEXADECIMAL = re.compile(r"[0-9a-fA-F]{64,}")


def _key(address: str) -> str:
    text = address.strip()
    if "://" in text:
        return text
    account, _, token = account_key(text).partition("/")
    # Apple's tokens are numbers, in any case of letters; others have case.
    return f"{account}/{token.lower() if _HEXADECIMAL.fullmatch(token) else token}"


def _fields_of(address: str) -> dict[str, Any]:
    text = address.strip()
    if "://" in text:
        _endpoint(text)
        keys = {"p256dh": _A_POINT, "auth": "A" * 22}  # of a browser, whose address is the endpoint alone
        return {"web": {"endpoint": text, "keys": keys}}
    account, _, token = account_key(text).partition("/")
    return {"account": account, "fcm": token}


PUSH = ChannelSpec(
    channel=Channel.PUSH,
    example=PushTarget(fcm="example-token", registered_at=datetime(2026, 1, 1, tzinfo=UTC)),
    templates=MappingProxyType(
        {
            "push.title": "push.title.txt",
            "push.body": "push.txt",
            "push.url": "push.url.txt",
            "push.badge": "push.badge.txt",
            "push.data": "push.json",
        }
    ),
    # 6 attempts over 9 h 12 min. After that a notice on a phone is of little use.
    schedule=(10.0, 60.0, 600.0, 3600.0, 28_800.0),
    inline=True,
    address_key=_key,
    fields_of=_fields_of,
)
