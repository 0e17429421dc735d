"""Signatures of requests: ACS3-HMAC-SHA256 of Alibaba Cloud ("signature V3") and TC3-HMAC-SHA256 of Tencent Cloud.

https://help.aliyun.com/zh/sdk/product-overview/v3-request-structure-and-signature
https://cloud.tencent.com/document/api/382/52072
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote

_ACS3, _TC3 = "ACS3-HMAC-SHA256", "TC3-HMAC-SHA256"
TENCENT_CONTENT_TYPE = "application/json; charset=utf-8"


@dataclass(frozen=True, kw_only=True)
class AccessKey:
    """The id of a key, and the key."""

    id: str
    secret: str = field(repr=False)


def canonical_query(parameters: Mapping[str, str]) -> str:
    """The parameters in order of their names, encoded by RFC 3986."""
    return "&".join(f"{_encode(name)}={_encode(parameters[name])}" for name in sorted(parameters))


def aliyun_headers(
    key: AccessKey, *, host: str, action: str, version: str, query: str, nonce: str, now: datetime
) -> dict[str, str]:
    """The headers of a POST to `/` without a body. `query` is canonical."""
    empty = _sha256(b"")
    headers = {
        "host": host,
        "x-acs-action": action,
        "x-acs-content-sha256": empty,
        "x-acs-date": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "x-acs-signature-nonce": nonce,
        "x-acs-version": version,
    }
    names = ";".join(headers)
    signed = "".join(f"{name}:{value}\n" for name, value in headers.items())
    request = "\n".join(["POST", "/", query, signed, names, empty])
    signature = hmac.new(key.secret.encode(), f"{_ACS3}\n{_sha256(request.encode())}".encode(), hashlib.sha256)
    authorization = f"{_ACS3} Credential={key.id},SignedHeaders={names},Signature={signature.hexdigest()}"
    return {**headers, "Authorization": authorization}


def tencent_authorization(key: AccessKey, *, service: str, host: str, body: bytes, timestamp: int) -> str:
    """The header Authorization of a POST to `/` with a JSON body, of type TENCENT_CONTENT_TYPE."""
    names = "content-type;host"
    signed = f"content-type:{TENCENT_CONTENT_TYPE}\nhost:{host}\n"
    request = "\n".join(["POST", "/", "", signed, names, _sha256(body)])
    date = datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d")
    scope = f"{date}/{service}/tc3_request"
    text = "\n".join([_TC3, str(timestamp), scope, _sha256(request.encode())])
    signing_key = f"TC3{key.secret}".encode()
    for part in (date, service, "tc3_request"):
        signing_key = hmac.new(signing_key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(signing_key, text.encode(), hashlib.sha256).hexdigest()
    return f"{_TC3} Credential={key.id}/{scope}, SignedHeaders={names}, Signature={signature}"


def _encode(text: str) -> str:
    return quote(text, safe="-_.~")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
