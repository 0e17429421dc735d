"""StoredSecret: a private value of a target. The registry stores it, and everybody else sees stars."""

from typing import Annotated, Any

from pydantic import PlainSerializer, SecretStr, SerializationInfo

from bellwire.models import TRUSTED, skip_when_trusted

#: What JSON shows instead of the value.
HIDDEN = "**********"


def _shown(secret: SecretStr, info: SerializationInfo[Any]) -> str:
    return secret.get_secret_value() if info.context == TRUSTED else HIDDEN


def _given(secret: SecretStr) -> SecretStr:
    if secret.get_secret_value() == HIDDEN:
        raise ValueError("has stars instead of the value; give the value itself")
    return secret


StoredSecret = Annotated[
    SecretStr, skip_when_trusted(_given), PlainSerializer(_shown, return_type=str, when_used="json")
]
