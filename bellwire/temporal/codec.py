"""Codec: encrypts all payloads that are sent to Temporal, if keys are configured.

Encrypted are inputs, results, signals, updates, queries, memos, summaries, details, and the messages and stack traces of
failures. Temporal sees sizes, names of workflows and activities, ids and search attributes.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError
from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import (
    PydanticJSONPlainPayloadConverter,
    PydanticPayloadConverter,
    pydantic_data_converter,
)
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    DefaultFailureConverterWithEncodedAttributes,
    EncodingPayloadConverter,
    PayloadCodec,
)

from bellwire.errors import BellwireError, NotReadable
from bellwire.keys.keyring import KeyRing

#: The encoding of encrypted payloads, and the metadata field that holds the key id.
ENCODING = b"binary/encrypted"
KEY_ID = "encryption-key-id"

_PURPOSE = "temporal payload"


class Codec(PayloadCodec):
    """Encrypts payloads with their metadata. Plain payloads, of older runs or other publishers, are decoded as they are."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    # Encrypting a megabyte takes less than a millisecond, so a thread would gain nothing.

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        key_id = self._ring.first.encode()
        return [
            Payload(
                metadata={"encoding": ENCODING, KEY_ID: key_id},
                data=self._ring.seal(payload.SerializeToString(), purpose=_PURPOSE),
            )
            for payload in payloads
        ]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Raises NotReadable, which names the key."""
        return [self._decoded(payload) if _is_encrypted(payload) else payload for payload in payloads]

    def _decoded(self, payload: Payload) -> Payload:
        key_id = payload.metadata[KEY_ID].decode(errors="replace")
        return Payload.FromString(self._ring.open(key_id, payload.data, purpose=_PURPOSE))


class PayloadInvalid(BellwireError, ValueError):
    """A payload has an unexpected format: another version or another program wrote it."""


class _Json(PydanticJSONPlainPayloadConverter):
    """Pydantic's JSON converter, whose errors name the fields and hide the values, since errors go to logs."""

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:
        try:
            return super().from_payload(payload, type_hint)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False, include_context=False)
            fields = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'it'}: {each['type']}" for each in found)
            name = getattr(type_hint, "__name__", "value")
        raise PayloadInvalid(f"the payload is not a valid {name}: {fields}")


class _EncryptedWithoutKeys(EncodingPayloadConverter):
    """Raises NotReadable for encrypted payloads in a process without keys."""

    @property
    def encoding(self) -> str:
        return ENCODING.decode()

    def to_payload(self, value: Any) -> None:  # noqa: ARG002 - never encodes
        return None

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:  # noqa: ARG002
        key_id = payload.metadata[KEY_ID].decode(errors="replace")
        raise NotReadable(
            f"encrypted with key {key_id[:40]!r}, but no keys are configured; "
            "give connect(keys=…), or BELLWIRE_ENCRYPTION_KEYS to a worker"
        )


#: Created once, since each caches its validators by type, and each workflow run creates a _Converter.
_CONVERTERS = (
    *(
        _Json() if isinstance(each, PydanticJSONPlainPayloadConverter) else each
        for each in PydanticPayloadConverter().converters.values()
    ),
    _EncryptedWithoutKeys(),
)


class _Converter(CompositePayloadConverter):
    def __init__(self) -> None:
        super().__init__(*_CONVERTERS)


_PLAIN = replace(pydantic_data_converter, payload_converter_class=_Converter)


def data_converter(ring: KeyRing | None) -> DataConverter:
    """Return the converter that all clients of Bellwire's workflows must use: pydantic's JSON, encrypted with a ring."""
    if ring is None:
        return _PLAIN
    return replace(
        _PLAIN,
        payload_codec=Codec(ring),
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
    )


def _is_encrypted(payload: Payload) -> bool:
    return payload.metadata.get("encoding") == ENCODING
