"""The accounts of WeChat that have callbacks, from the file of accounts."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
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
    try:
        found = _of_wechat(settings.accounts)
        return _with_callbacks(found, settings.account_secrets)
    except OSError as error:
        raise ValueError(
            f"BELLWIRE_ACCOUNTS: {settings.accounts}: cannot be read: {error.strerror or error}"
        ) from error
    except ValueError as error:
        raise ValueError(f"BELLWIRE_ACCOUNTS: {settings.accounts}: {error}") from error


def _of_wechat(file: Path) -> Mapping[str, Mapping[str, Any]]:
    """The fields of the accounts of WeChat, by name. Raises ValueError."""
    load: Any = json.loads if file.suffix.lower() == ".json" else tomllib.loads
    document = load(file.read_text(encoding="utf-8-sig"))
    found: Any = document.get("wechat", {}) if isinstance(document, dict) else None
    if not isinstance(found, dict) or not all(isinstance(each, dict) for each in found.values()):
        raise ValueError("wechat: must be an object, with a section for each account")
    return found


def _with_callbacks(
    found: Mapping[str, Mapping[str, Any]], secrets: Mapping[str, SecretStr]
) -> dict[str, CallbackAccount]:
    return {
        name: CallbackAccount(
            name=name,
            app_id=str(account.get("app_id", "")),
            token=_secret(name, "callback_token", account, secrets),
            key=_key(name, account, secrets),
        )
        for name, account in found.items()
        if "callback_token" in account
    }


def _key(name: str, account: Mapping[str, Any], secrets: Mapping[str, SecretStr]) -> bytes | None:
    if "aes_key" not in account:
        return None
    encoded = _secret(name, "aes_key", account, secrets)
    try:
        return aes_key(encoded)
    except ValueError as error:
        raise ValueError(f"wechat.{name}.aes_key: {error}") from None


def _secret(name: str, field: str, account: Mapping[str, Any], secrets: Mapping[str, SecretStr]) -> str:
    variable = str(account[field])
    found = secrets.get(variable.removeprefix(_PREFIX).lower())
    if found is None or not found.get_secret_value():
        raise ValueError(f"wechat.{name}.{field}: {variable} is not set")
    return found.get_secret_value()
