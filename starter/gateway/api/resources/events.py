"""Events over HTTP, beside publishing: precheck."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from starter.gateway.api.access import PublishAccess
from starter.gateway.api.cloud_events import draft_of
from starter.operations.delivery.prechecking import count_matches

router = APIRouter(prefix="/v1/events", tags=["Events"])


class Precheck(BaseModel):
    """How many subscriptions would match."""

    matched: int


@router.post("/precheck")
async def precheck(access: PublishAccess, draft: dict[str, Any]) -> Precheck:
    """Count the subscriptions that an event would match, without publishing it.

    The body is an event in the CloudEvents JSON format; `specversion`, `id`, `source` and `data` may be left out.
    """
    return Precheck(matched=await count_matches(access.registry, draft_of(draft)))
