"""A fake platform on the time-skipping server, and a client on it."""

from collections.abc import AsyncIterator

import pytest
from temporalio.testing import WorkflowEnvironment

from bellwire import Client
from tests.workflows.platform import FakePlatform


@pytest.fixture
async def platform(time_skipping: WorkflowEnvironment) -> AsyncIterator[FakePlatform]:
    platform = FakePlatform(time_skipping)
    async with platform.running():
        yield platform
        for gate in platform.gates.values():
            gate.set()


@pytest.fixture
def client(platform: FakePlatform) -> Client:
    return Client(platform.env.client)
