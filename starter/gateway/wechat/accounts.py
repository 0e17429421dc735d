"""The accounts of WeChat that have callbacks, from the file of accounts."""

import json
import tomllib
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import SecretStr

from bellwire.service.settings import Settings
from starter.gateway.wechat.signatures import aes_key

_PREFIX = "BELLWIRE_ACCOUNT_SECRETS__"


class CallbackAccount(NamedTuple):
    """An account whose callbacks can be verified."""

    name: str
    app_id: str
    token: str
    #: None in plain mode.
    key: bytes | None

    def __repr__(self) -> str:
        return f"CallbackAccount({self.name!r})"


def callback_accounts(settings: Settings) -> dict[str, CallbackAccount]:
    """By name. The worker checks the file; raises ValueError for a secret that is not set or not valid."""
    if settings.accounts is None:
        return {}
    load: Any = json.loads if settings.accounts.suffix.lower() == ".json" else tomllib.loads
    found: Mapping[str, Mapping[str, Any]] = load(settings.accounts.read_text(encoding="utf-8-sig")).get("wechat", {})
    return {
        name: CallbackAccount(
            name=name,
            app_id=str(account.get("app_id", "")),
            token=_secret(name, "callback_token", account, settings.account_secrets),
            key=_key(name, account, settings.account_secrets),
        )
        for name, account in found.items()
        if "callback_token" in account
    }


def _key(name: str, account: Mapping[str, Any], secrets: Mapping[str, SecretStr]) -> bytes | None:
    if "aes_key" not in account:
        return None
    try:
        return aes_key(_secret(name, "aes_key", account, secrets))
    except ValueError as error:
        raise ValueError(f"BELLWIRE_ACCOUNTS: wechat.{name}.aes_key: {error}") from None


def _secret(name: str, field: str, account: Mapping[str, Any], secrets: Mapping[str, SecretStr]) -> str:
    variable = str(account[field])
    found = secrets.get(variable.removeprefix(_PREFIX).lower())
    if found is None or not found.get_secret_value():
        raise ValueError(f"BELLWIRE_ACCOUNTS: wechat.{name}.{field}: {variable} is not set")
    return found.get_secret_value()
