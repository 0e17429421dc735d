"""Simulations over HTTP: which of the last events a subscription would have matched."""

import asyncio
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body
from pydantic import BaseModel, Field

from starter.gateway.api.access import TenantAccess
from starter.gateway.api.explanations.explaining import StepView
from starter.gateway.api.problems import ApiProblem, ProblemType
from starter.operations.delivery import simulating as operations
from starter.operations.delivery.simulating import Simulation, TriedEvent
from starter.operations.problems import Problem

router = APIRouter(prefix="/v1/subscriptions", tags=["Subscriptions"])

#: Simulations at a time of a gateway process; each may read a thousand events.
_SLOTS = asyncio.Semaphore(2)


class TriedEventView(BaseModel):
    """An event that the subscription was tried on."""

    key: str
    id: str
    source: str
    type: str
    accepted_at: datetime
    steps: list[StepView] = Field(description="Type, and each filter.")

    @classmethod
    def of(cls, tried: TriedEvent) -> "TriedEventView":
        return cls(
            key=tried.event.key,
            id=tried.event.id,
            source=tried.event.source,
            type=tried.event.type,
            accepted_at=tried.accepted_at,
            steps=[StepView.of(step) for step in tried.steps],
        )


class SimulationView(BaseModel):
    """What a subscription would have matched."""

    tenant: str
    looked_at: int = Field(description="How many events it was tried on.")
    matched: int = Field(description="How many of them it matched.")
    matches: list[TriedEventView] = Field(description="The newest ones.")
    others: list[TriedEventView] = Field(description="The newest ones that did not match, with the reason.")
    since: datetime | None = Field(
        description="Events that were accepted before were not looked at; null: all stored events were."
    )
    interrupted: bool = Field(description="Whether it ended early, because it took too long.")

    @classmethod
    def of(cls, simulation: Simulation) -> "SimulationView":
        return cls(
            tenant=simulation.tenant,
            looked_at=simulation.looked_at,
            matched=simulation.matched,
            matches=[TriedEventView.of(each) for each in simulation.matches],
            others=[TriedEventView.of(each) for each in simulation.others],
            since=simulation.since,
            interrupted=simulation.interrupted,
        )


@router.post("/simulate")
async def simulate(
    access: TenantAccess,
    wanted: Annotated[
        dict[str, Any], Body(description="`types` and `filters` of a subscription, and the number of events.")
    ],
) -> SimulationView:
    """Try type patterns and filters on the last stored events of the tenant, without storing a subscription.

    The key of a tenant may leave `tenant` out.
    """
    if access.tenant is not None and wanted.setdefault("tenant", access.tenant) != access.tenant:
        problem = Problem(
            message=f"must be {access.tenant}, the tenant of the API key", field="tenant", remedy="omit it"
        )
        raise ApiProblem(ProblemType.INVALID, str(problem), errors=[problem])
    simulated = operations.read_simulation(wanted)
    async with _SLOTS:
        return SimulationView.of(await operations.simulate(access.registry, simulated))
