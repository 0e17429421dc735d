"""Recipients: the address of one that a person wrote, and what is left of a target whose only recipient was erased."""

from collections.abc import Callable, Mapping
from functools import cache
from types import new_class
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bellwire.errors import field_errors
from bellwire.models import TRUSTED
from bellwire.targets.channel import Channel, ChannelSpec, ChannelTarget
from bellwire.targets.specs import SPECS, Target

#: What the registry stores of a target whose recipient was erased, beside its channel.
_ERASED = "erased"
_TARGETS: TypeAdapter[ChannelTarget] = TypeAdapter(Target)


def recipient_at(channel: Channel, address: str) -> str:
    """The address as `recipients` of a target has it. Raises ValueError, which does not repeat it.

    On channels with accounts it is written `account/address`, or alone for the account `default`.
    """
    spec = SPECS[channel]
    fields = spec.target.model_fields
    # What a target needs besides, such as the template of WeChat.
    others = {name: getattr(spec.example, name) for name, field in fields.items() if field.is_required()}
    given = (spec.fields_of or _fields_of(spec))(address)
    try:
        target = spec.target.model_validate({**others, **given})
    except ValidationError as error:
        if "account" not in fields:
            raise ValueError(field_errors(error)[0][1]) from None
        example = spec.example.recipients[0]
        _, _, alone = example.partition("/")
        raise ValueError(
            f"is not an address on {channel}; write account/address, such as {example}, or {alone} for the account default"
        ) from None
    return target.recipients[0]


def erased(channel: Channel) -> Mapping[str, Any]:
    """What is stored of a target whose only recipient was erased."""
    return {"channel": str(channel), _ERASED: True}


def is_erased(stored: Mapping[str, Any]) -> bool:
    """Whether the recipient of a stored target was erased."""
    return stored.get(_ERASED) is True or stored.get("to") == ""  # an empty `to` is of an earlier version


def restored(stored: Mapping[str, Any]) -> ChannelTarget:
    """The target that was stored. One that was erased has no recipients, and its texts are empty."""
    if is_erased(stored):
        return _without_recipient(SPECS[Channel(stored["channel"])].target)
    return _TARGETS.validate_python(stored, context=TRUSTED)


@cache
def _without_recipient(target: type[ChannelTarget]) -> ChannelTarget:
    of_erased: dict[str, Any] = {
        "__module__": __name__,
        "recipients": property(lambda _: ()),
        "address": property(lambda _: ""),
        "is_erased": property(lambda _: True),
    }
    model: type[ChannelTarget] = new_class(target.__name__, (target,), exec_body=lambda body: body.update(of_erased))
    # Not validated: no address is valid.
    empty: dict[str, Any] = {name: "" for name, field in target.model_fields.items() if field.is_required()}
    return model.model_construct(None, **empty)


def _fields_of(spec: ChannelSpec) -> Callable[[str], Mapping[str, Any]]:
    """The fields of a target with an address: it is in the field in which the spec's example has it."""
    recipient = spec.example.recipients[0]
    has_account = "account" in spec.target.model_fields
    _, _, alone = recipient.partition("/") if has_account else ("", "", recipient)
    field = next(name for name in spec.target.model_fields if getattr(spec.example, name) == alone)

    def fields_of(address: str) -> dict[str, Any]:
        account, slash, of_account = address.strip().partition("/")
        return {"account": account, field: of_account} if has_account and slash else {field: address.strip()}

    return fields_of
