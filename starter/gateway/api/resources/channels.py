"""Channels over HTTP: their names, and the JSON Schema of a target, from which forms and documentation are made."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, TypeAdapter

from bellwire.targets import SPECS, Channel
from starter.gateway.api.access import AnyAccess
from starter.gateway.api.problems import ApiProblem, ProblemType

router = APIRouter(prefix="/v1/channels", tags=["Channels"])


class ChannelView(BaseModel):
    """A way to deliver."""

    name: str
    #: Where the JSON Schema of its target is.
    schema_url: str
    #: Names of the templates that a subscription may bring itself.
    templates: list[str]
    #: Whether its requests are signed.
    signed: bool


class ChannelList(BaseModel):
    items: list[ChannelView]


@router.get("")
async def list_(_: AnyAccess) -> ChannelList:
    """List the channels."""
    return ChannelList(
        items=[
            ChannelView(
                name=channel,
                schema_url=f"/v1/channels/{channel}/schema",
                templates=sorted(spec.templates),
                signed=spec.signed,
            )
            for channel, spec in SPECS.items()
        ]
    )


@router.get("/{name}/schema")
async def schema(_: AnyAccess, name: str) -> dict[str, Any]:
    """The JSON Schema of a channel's target."""
    if name not in SPECS:
        raise ApiProblem(ProblemType.NOT_FOUND, f"no channel {name[:40]}; the channels are {', '.join(Channel)}")
    return TypeAdapter(SPECS[Channel(name)].target).json_schema()
