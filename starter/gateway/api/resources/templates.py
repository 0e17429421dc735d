"""Templates over HTTP: which exist, and what one renders to."""

import asyncio
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field, JsonValue

from bellwire.models import StrictInput
from bellwire.targets import Channel
from starter.gateway.api.access import AnyAccess, TenantAccess
from starter.gateway.api.resources.request_schemas import LOCALE, PRINTABLE
from starter.gateway.api.resources.subscriptions import visible
from starter.operations.subscribers import templates as operations

router = APIRouter(prefix="/v1/templates", tags=["Templates"])

#: Previews at a time of a gateway process; each is a process of its own.
_SLOTS = asyncio.Semaphore(2)


class TemplateView(BaseModel):
    """A template of the platform."""

    name: str
    channels: list[Channel] = Field(description="The channels that it has text for.")


class TemplateList(BaseModel):
    items: list[TemplateView]


class PreviewInput(StrictInput):
    name: Annotated[str, Field(min_length=1, max_length=256)] = Field(
        description="A template, or an event type.", json_schema_extra={"pattern": PRINTABLE}
    )
    data: JsonValue = Field(default_factory=dict, description="The event's data.")
    locale: Annotated[str, Field(min_length=2, max_length=35, json_schema_extra={"pattern": LOCALE})] | None = Field(
        default=None,
        description="Language of the text, such as `en` or `zh-CN`; null: that of the subscription, or en.",
    )
    subscription: str | None = Field(
        default=None,
        max_length=63,
        description="As this subscription gets it: its channel, its own templates, its locale.",
    )


class SegmentsView(BaseModel):
    """How an SMS is split."""

    count: int
    encoding: str = Field(description="`GSM-7` or `UCS-2`.")
    units: int = Field(description="Places that the text takes.")
    room: int = Field(description="Places that its segments have.")


class PreviewView(BaseModel):
    """What a template renders to. Show the HTML in a sandboxed frame only."""

    texts: dict[str, str | None] = Field(description="By name, such as `email.subject`; null: there is no such text.")
    segments: SegmentsView | None = Field(description="Of the SMS; null without one.")
    sent: dict[Channel, operations.Sent] = Field(
        description="By channel: what the receiver gets, of channels whose messages are made of several texts."
    )


@router.get("")
async def list_(access: AnyAccess) -> TemplateList:
    """List the platform's templates. An event type without a template uses `default`."""
    found = await asyncio.to_thread(operations.channels_by_template, access.settings.templates)
    return TemplateList(items=[TemplateView(name=name, channels=sorted(channels)) for name, channels in found.items()])


@router.post("/preview")
async def preview(access: TenantAccess, wanted: PreviewInput) -> PreviewView:
    """Render a template, without sending anything."""
    subscription = None if wanted.subscription is None else await visible(access, wanted.subscription)
    async with _SLOTS:
        rendered = await operations.preview(
            wanted.name,
            data=wanted.data,
            locale=wanted.locale,
            folder=access.settings.templates,
            sms_providers=access.settings.sms_providers,
            subscription=subscription,
        )
    segments = rendered.segments
    return PreviewView(
        texts=dict(rendered.texts),
        segments=segments and SegmentsView.model_validate(segments.model_dump(mode="json")),
        sent=dict(rendered.sent),
    )
