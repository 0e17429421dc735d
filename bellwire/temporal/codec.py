"""The codec: what travels to Temporal and back is encrypted on the way, if there are keys.

Inputs, results, signals, updates, queries, memos, summaries and details, and messages and traces of failures. Temporal
sees sizes, names of workflows and activities, ids and search attributes.
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

#: The encoding that marks an encrypted payload, and the field of its metadata that names the key.
ENCODING = b"binary/encrypted"
KEY_ID = "encryption-key-id"

_PURPOSE = "temporal payload"


class Codec(PayloadCodec):
    """Encrypts each payload with its metadata. What is not encrypted is passed on as it is: older runs, other publishers."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    # A megabyte takes less than a millisecond, so that handing it to a thread would gain nothing.

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
        return [self._decoded(payload) if _encrypted(payload) else payload for payload in payloads]

    def _decoded(self, payload: Payload) -> Payload:
        key_id = payload.metadata[KEY_ID].decode(errors="replace")
        return Payload.FromString(self._ring.open(key_id, payload.data, purpose=_PURPOSE))


class PayloadInvalid(BellwireError, ValueError):
    """A payload is not what was expected: it comes from another version, or from somebody else."""


class _Json(PydanticJSONPlainPayloadConverter):
    """Pydantic's JSON, whose errors name fields and show nothing of what is in them: they go to logs."""

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:
        try:
            return super().from_payload(payload, type_hint)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False, include_context=False)
            fields = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'it'}: {each['type']}" for each in found)
            name = getattr(type_hint, "__name__", "value")
        raise PayloadInvalid(f"a payload is no {name}: {fields}")


class _Refusing(EncodingPayloadConverter):
    """Says what is missing when an encrypted payload comes to somebody who has no keys."""

    @property
    def encoding(self) -> str:
        return ENCODING.decode()

    def to_payload(self, value: Any) -> None:  # noqa: ARG002 - nothing is encoded so
        return None

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:  # noqa: ARG002
        key_id = payload.metadata[KEY_ID].decode(errors="replace")
        raise NotReadable(
            f"encrypted with key {key_id[:40]!r}, and there are none here; "
            "give connect(keys=…), or BELLWIRE_ENCRYPTION_KEYS to a worker"
        )


#: Made once: each keeps what it has found out about the types that it has read, and each run makes a _Converter.
_CONVERTERS = (
    *(
        _Json() if isinstance(each, PydanticJSONPlainPayloadConverter) else each
        for each in PydanticPayloadConverter().converters.values()
    ),
    _Refusing(),
)


class _Converter(CompositePayloadConverter):
    def __init__(self) -> None:
        super().__init__(*_CONVERTERS)


_IN_THE_CLEAR = replace(pydantic_data_converter, payload_converter_class=_Converter)


def data_converter(ring: KeyRing | None) -> DataConverter:
    """What every client of Bellwire's workflows must use: pydantic's JSON, encrypted if there are keys."""
    if ring is None:
        return _IN_THE_CLEAR
    return replace(
        _IN_THE_CLEAR,
        payload_codec=Codec(ring),
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
    )


def _encrypted(payload: Payload) -> bool:
    return payload.metadata.get("encoding") == ENCODING
