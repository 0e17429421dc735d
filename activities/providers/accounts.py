"""Accounts: the operator's accounts with providers, from a TOML or JSON file (BELLWIRE_ACCOUNTS).

    [slack.default]
    token = "BELLWIRE_ACCOUNT_SECRETS__SLACK"      # the environment variable that holds it

A subscription's target names the account that sends, or leaves it out for `default`.
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo

from activities.providers.config_files import read_config
from activities.providers.private_keys import p256_key, rsa_key
from bellwire.errors import Place
from bellwire.formats.matching import Matching
from bellwire.formats.web_urls import parse_web_url, with_canonical_host
from bellwire.models import StrictInput
from bellwire.targets.accounts import AccountName

#: Prefix of the environment variables that may hold secrets of accounts.
SECRETS = "BELLWIRE_ACCOUNT_SECRETS__"


def _secret(name: object, info: ValidationInfo) -> SecretStr:
    """The secret that the variable `name` holds. `info.context` has all of them, in lower case and without the prefix."""
    if not isinstance(name, str) or not re.fullmatch(SECRETS + "[A-Z0-9_]+", name):
        raise ValueError(f"must name an environment variable that begins with {SECRETS}")
    found: SecretStr | None = (info.context or {}).get(name.removeprefix(SECRETS).lower())
    if found is None or not found.get_secret_value():
        raise ValueError(f"{name} is not set")
    return found


def _url(value: str) -> str:
    parse_web_url(value, example="https://slack.com")
    return with_canonical_host(value).rstrip("/")


def _one_word(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not re.fullmatch("[!-~]+", text):
        raise ValueError("its variable has white space or a letter that no secret of a provider has; copy it again")
    if "://" in text:
        raise ValueError("its variable has a URL; give the secret itself")
    return value


def _checked_by(check: Callable[[str], object]) -> AfterValidator:
    def checked(value: SecretStr) -> SecretStr:
        check(value.get_secret_value())
        return value

    return AfterValidator(checked)


def _bot_token(value: str) -> None:
    if not re.fullmatch(r"[0-9]+:[A-Za-z0-9_-]+", value):
        raise ValueError("its variable has no token of a bot, such as 123456:ABC-…; copy it from BotFather again")


def _aes_key(value: str) -> None:
    if not re.fullmatch("[A-Za-z0-9+/]{43}", value):
        raise ValueError("its variable must have the EncodingAESKey of 43 letters and digits")


#: A secret in one word; the file has the name of its environment variable.
Secret = Annotated[SecretStr, BeforeValidator(_secret), AfterValidator(_one_word)]
#: The same of a private key, see private_keys.py.
P256Key = Annotated[SecretStr, BeforeValidator(_secret), _checked_by(p256_key)]
RsaKey = Annotated[SecretStr, BeforeValidator(_secret), _checked_by(rsa_key)]
#: An id as the provider shows it.
ProviderId = Annotated[str, Matching(r"^[\w.-]{1,128}$", "must be the id that the provider shows, without spaces")]
#: The number of an application.
AgentId = Annotated[int, Field(ge=1)]
#: The base URL of a provider's API, without a slash at its end.
ApiUrl = Annotated[str, Field(max_length=2048), AfterValidator(_url)]


class Account(StrictInput):
    """An account with a provider."""

    #: Seconds for one call.
    timeout: float = Field(default=15, ge=0.1, le=60)

    def row_of_token(self, name: str) -> str:
        """What its token is stored under: its name in the file, and what tells it from another one that gets this name.

        With the token of the other one, a provider would take the people of this one for unknown.
        """
        told = {field: value for field, value in self if field != "timeout" and isinstance(value, str | int)}
        return f"{name}/{hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]}"


class SlackAccount(Account):
    #: The token of a bot: xoxb-….
    token: Secret
    url: ApiUrl = "https://slack.com/api"


class TelegramAccount(Account):
    #: The token of a bot, as BotFather gave it: 123456:ABC-….
    token: Annotated[Secret, _checked_by(_bot_token)]
    #: Telegram's API, or a Bot API server of one's own.
    url: ApiUrl = "https://api.telegram.org"


class WecomAccount(Account):
    #: The id of the company, and the id and secret of one of its applications.
    corp_id: ProviderId
    agent_id: AgentId
    secret: Secret
    url: ApiUrl = "https://qyapi.weixin.qq.com"


class WechatAccount(Account):
    """An Official Account, or a mini program."""

    app_id: ProviderId
    secret: Secret
    url: ApiUrl = "https://api.weixin.qq.com"
    #: The Token of the callbacks to the gateway, and their EncodingAESKey in safe mode.
    callback_token: Secret | None = None
    aes_key: Annotated[Secret, _checked_by(_aes_key)] | None = None


class DingtalkAccount(Account):
    #: The key, secret and id of an application of the company.
    app_key: ProviderId
    app_secret: Secret
    agent_id: AgentId
    url: ApiUrl = "https://oapi.dingtalk.com"


class FeishuAccount(Account):
    app_id: ProviderId
    app_secret: Secret
    #: Feishu; Lark is at https://open.larksuite.com.
    url: ApiUrl = "https://open.feishu.cn"


def _subject(value: str) -> str:
    """RFC 8292 §2.1. Apple refuses the pushes of a subject that is no real address; the others accept any."""
    kind, _, rest = value.partition(":")
    try:
        host = rest.rpartition("@")[2] if kind == "mailto" else urlsplit(value).hostname or ""
    except ValueError:
        host = ""
    made_up = host == "localhost" or host.endswith((".localhost", ".invalid", ".test", ".local"))
    if kind not in {"mailto", "https"} or "." not in host or made_up or not re.fullmatch(r"[!-;=?-~]+", rest):
        raise ValueError("must be a real address, such as mailto:push@example.com or https://example.com/contact")
    if kind == "mailto" and not re.fullmatch(r"[^@]+@[^@]+", rest):
        raise ValueError("must be a real address, such as mailto:push@example.com")
    return value


class VapidKey(StrictInput):
    """A key that browsers subscribe with. Its name is the `account` of their push subscriptions."""

    #: 32 bytes in base64url, or a PEM.
    private_key: P256Key
    #: Whom a push service tells about problems.
    subject: Annotated[str, AfterValidator(_subject)]


class FcmAccount(Account):
    """A service account of a Firebase project, by the fields of its JSON file."""

    project_id: Annotated[str, Matching(r"^[a-z0-9-]{1,64}$", "must be the project_id of the service account's file")]
    client_email: Annotated[
        str, Matching(r"^[^@\s]+@[^@\s]+$", "must be the client_email of the service account's file")
    ]
    #: The PEM.
    private_key: RsaKey
    url: ApiUrl = "https://fcm.googleapis.com"
    token_url: ApiUrl = "https://oauth2.googleapis.com/token"  # noqa: S105 - a URL


_TEN = "must be the id of 10 capital letters and digits that Apple shows"


class ApnsAccount(Account):
    """A key of an Apple developer team, for one app."""

    team_id: Annotated[str, Matching(r"^[A-Z0-9]{10}$", _TEN)]
    key_id: Annotated[str, Matching(r"^[A-Z0-9]{10}$", _TEN)]
    #: The PEM of the .p8 file.
    private_key: P256Key
    #: The bundle id of the app.
    topic: Annotated[str, Matching(r"^[A-Za-z0-9.-]{1,200}$", "must be a bundle id, such as com.example.shop")]
    production_url: ApiUrl = "https://api.push.apple.com"
    sandbox_url: ApiUrl = "https://api.sandbox.push.apple.com"


AnyAccount = TypeVar("AnyAccount", bound=StrictInput)
_Accounts = dict[AccountName, AnyAccount]


class Accounts(StrictInput):
    """All accounts, by provider and name."""

    apns: _Accounts[ApnsAccount] = Field(default_factory=dict)
    dingtalk: _Accounts[DingtalkAccount] = Field(default_factory=dict)
    fcm: _Accounts[FcmAccount] = Field(default_factory=dict)
    feishu: _Accounts[FeishuAccount] = Field(default_factory=dict)
    slack: _Accounts[SlackAccount] = Field(default_factory=dict)
    telegram: _Accounts[TelegramAccount] = Field(default_factory=dict)
    wechat: _Accounts[WechatAccount] = Field(default_factory=dict)
    vapid: _Accounts[VapidKey] = Field(default_factory=dict)
    wecom: _Accounts[WecomAccount] = Field(default_factory=dict)

    @classmethod
    def read(cls, path: Path | None, secrets: Mapping[str, SecretStr]) -> Self:
        """Read the file; without one, there are no accounts. Raises ValueError, which names each invalid field."""
        if path is None:
            return cls()
        load: Any = json.loads if path.suffix.lower() == ".json" else tomllib.loads
        return read_config(
            "BELLWIRE_ACCOUNTS",
            path,
            lambda text: cls.model_validate(load(text), context=secrets),
            known=cls.known_fields,
        )

    @classmethod
    def known_fields(cls, place: Place) -> Iterable[str]:
        if len(place) != 3:
            return super().known_fields(place)
        # Provider, account, field.
        _, model = get_args(cls.model_fields[str(place[0])].annotation)
        return list(model.model_fields)
