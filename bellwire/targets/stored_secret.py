"""StoredSecret: a private value of a target. The registry stores it, and everybody else sees stars."""

from typing import Annotated, Any

from pydantic import PlainSerializer, SecretStr, SerializationInfo

from bellwire.models import TRUSTED

#: What JSON shows instead of the value.
HIDDEN = "**********"


def _shown(secret: SecretStr, info: SerializationInfo[Any]) -> str:
    return secret.get_secret_value() if info.context == TRUSTED else HIDDEN


StoredSecret = Annotated[SecretStr, PlainSerializer(_shown, return_type=str, when_used="json")]
