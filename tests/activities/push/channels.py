"""What the tests of pushes share: keys, accounts, and a channel over fakes."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pydantic import SecretStr

from activities.providers.accounts import SECRETS, Accounts
from activities.push.channel import PushChannel
from activities.push.opening import open_push
from bellwire.registry import Registry
from tests.activities.chat.channels import opened

DEVICE = "ab" * 32
_PEM, _PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return key.private_bytes(_PEM, _PKCS8, serialization.NoEncryption()).decode()


def raw(key: ec.EllipticCurvePrivateKey) -> str:
    """32 bytes in base64url, as VAPID keys are written."""
    value = key.private_numbers().private_value.to_bytes(32, "big")
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


@dataclass
class Keys:
    """Made once: an RSA key takes a while."""

    vapid: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    apple: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    google: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))

    @property
    def google_public(self) -> str:
        public = self.google.public_key()
        return public.public_bytes(_PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()

    def accounts(self, *, fcm: Any = None, apns: Any = None) -> Accounts:
        """Accounts whose services are these fakes."""
        sections: dict[str, Any] = {
            "vapid": {"default": {"private_key": f"{SECRETS}VAPID", "subject": "mailto:push@shop.example.com"}}
        }
        if fcm is not None:
            sections["fcm"] = {
                "default": {
                    "project_id": fcm.project_id,
                    "client_email": fcm.client_email,
                    "private_key": f"{SECRETS}GOOGLE",
                    "url": fcm.url,
                    "token_url": fcm.token_url,
                    "timeout": 1,
                }
            }
        if apns is not None:
            sections["apns"] = {
                "default": {
                    "team_id": "TEAM123456",
                    "key_id": "KEY1234567",
                    "private_key": f"{SECRETS}APPLE",
                    "topic": "example.shop",
                    "production_url": apns.url,
                    "sandbox_url": apns.url,
                    "timeout": 4,
                }
            }
        secrets = {"vapid": raw(self.vapid), "google": pem(self.google), "apple": pem(self.apple)}
        return Accounts.model_validate(sections, context={name: SecretStr(value) for name, value in secrets.items()})


KEYS = Keys()


@asynccontextmanager
async def push_channel(registry: Registry, *, fcm: Any = None, apns: Any = None) -> AsyncIterator[PushChannel]:
    accounts = KEYS.accounts(fcm=fcm, apns=apns)
    async with opened(registry) as parts, open_push(accounts, parts, hosts=("127.0.0.1",)) as channel:
        yield channel
