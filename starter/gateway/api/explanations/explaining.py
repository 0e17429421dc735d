"""Explanations over HTTP: why an event matched subscriptions or not."""

import asyncio
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from starter.gateway.api.access import TenantAccess
from starter.gateway.api.paging import Cursor, Limit, page_of, read_cursor
from starter.gateway.api.resources.subscriptions import visible
from starter.gateway.api.views import DeliveryView
from starter.operations.delivery import explaining as operations
from starter.operations.delivery.explaining import Explanation
from starter.operations.delivery.explanation_steps import Part, Step, StepName

router = APIRouter(prefix="/v1/events", tags=["Events"])

#: Pages at a time of a gateway process; each may try many filters.
_SLOTS = asyncio.Semaphore(2)


class PartView(BaseModel):
    """A part of a step: a type pattern, a filter or one within it, a recipient."""

    text: str = Field(description="The pattern, the filter as JSON, or the address.")
    passed: bool | None = Field(description="Null: it is not known, or does not decide alone.")
    reason: str
    parts: list["PartView"]

    @classmethod
    def of(cls, part: Part) -> "PartView":
        return cls(text=part.text, passed=part.passed, reason=part.reason, parts=[cls.of(each) for each in part.parts])


class StepView(BaseModel):
    """One step between an event and a subscription."""

    name: StepName
    passed: bool | None = Field(description="Null: it is not known.")
    text: str = Field(description="A sentence that names the values seen.")
    parts: list[PartView]

    @classmethod
    def of(cls, step: Step) -> "StepView":
        return cls(name=step.name, passed=step.passed, text=step.text, parts=[PartView.of(each) for each in step.parts])


class ChangeView(BaseModel):
    """A change of a subscription, as the audit log has it."""

    at: datetime
    action: str


class ExplanationView(BaseModel):
    """Why an event matched a subscription or not."""

    subscription: str
    tenant: str
    channel: str
    matched: bool = Field(description="Whether it matched: a delivery is recorded.")
    matches_now: bool = Field(description="Whether it would match the subscription as it is now.")
    summary: str
    first_failing: StepView | None = Field(description="The first step that fails; null: none does.")
    created_at: datetime
    updated_at: datetime | None
    version: int
    changed_since: bool = Field(description="Whether the subscription was changed after the event was accepted.")
    delivery: DeliveryView | None
    workflow_id: str | None = Field(description="The workflow of the delivery.")
    steps: list[StepView] | None = Field(description="In order, judged as of now; null in lists.")
    changes: list[ChangeView] | None = Field(
        description="Changes of the subscription since the event was accepted, oldest first; null in lists."
    )

    @classmethod
    def of(cls, explanation: Explanation, *, whole: bool) -> "ExplanationView":
        subscription, delivery = explanation.subscription, explanation.delivery
        return cls(
            subscription=subscription.id,
            tenant=subscription.tenant,
            channel=subscription.channel,
            matched=explanation.matched,
            matches_now=explanation.matches_now,
            summary=explanation.summary,
            first_failing=explanation.first_failing and StepView.of(explanation.first_failing),
            created_at=explanation.created_at,
            updated_at=subscription.updated_at,
            version=subscription.version,
            changed_since=explanation.changed_since,
            delivery=delivery and DeliveryView.of(delivery),
            workflow_id=delivery and delivery.workflow_id,
            steps=[StepView.of(step) for step in explanation.steps] if whole else None,
            changes=[ChangeView(at=each.at, action=each.action) for each in explanation.changes] if whole else None,
        )


class ExplainedEventView(BaseModel):
    """An event with explanations: of one subscription, or of a page of them."""

    key: str
    type: str
    tenant: str = Field(description="The tenant that the event is for; `*`: all.")
    accepted_at: datetime
    matched: int = Field(description="How many subscriptions it matched, of those that the key may see.")
    looked_at: int = Field(
        description="How many subscriptions were looked at. If nobody matched, the closest of these are shown."
    )
    items: list[ExplanationView] = Field(description="Those that matched first, then the closest.")
    #: The cursor of the next page; null on the last one.
    next: str | None


@router.get("/{key}/explain")
async def explain(
    access: TenantAccess,
    request: Request,
    response: Response,
    key: str,
    subscription: Annotated[
        str | None, Query(max_length=63, description="Only this subscription, with all steps.")
    ] = None,
    limit: Limit = operations.DEFAULT_LIMIT,
    cursor: Cursor = "",
) -> ExplainedEventView:
    """Why the event matched subscriptions or not: one with all steps, or those of the event's tenant with the first step that
    fails. The key of a tenant sees its own subscriptions."""
    after = read_cursor(cursor)
    stored = await access.registry.events.get(key, visible_to=access.tenant, or_for_all=True)
    following, looked_at = None, 1
    if subscription is not None:
        await visible(access, subscription)
        one = await operations.explain(access.registry, stored, subscription, tenant=access.tenant)
        views = [ExplanationView.of(one, whole=True)]
    else:
        async with _SLOTS:
            page = await operations.explain_all(access.registry, stored, tenant=access.tenant, after=after, limit=limit)
        views = [ExplanationView.of(each, whole=False) for each in page.explanations]
        looked_at = page.looked_at
        if page.next is not None:
            following = page_of(request, response, views, last_key=page.next, limit=len(views)).next
    return ExplainedEventView(
        key=stored.event.key,
        type=stored.event.type,
        tenant=stored.event.tenant,
        accepted_at=stored.accepted_at,
        matched=stored.counts.matched,
        looked_at=looked_at,
        items=views,
        next=following,
    )
