"""Real mail servers: skipped where they are not installed, unless BELLWIRE_TEST_MTAS=required says that they must be."""

import os
from collections.abc import AsyncIterator

import pytest

from starter.local.receivers.mailbox import Mailbox
from tests.mtas.servers import SERVERS, MailServer, running


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "mta: needs the mail servers that .ci/mail-servers installs")


@pytest.fixture
async def far() -> AsyncIterator[Mailbox]:
    """Where the mail server passes mail for far.test on to."""
    async with Mailbox() as box:
        yield box


@pytest.fixture(params=SERVERS, ids=lambda kind: kind.name)
async def server(request: pytest.FixtureRequest, far: Mailbox) -> AsyncIterator[MailServer]:
    kind: type[MailServer] = request.param
    if reason := kind.missing():
        if os.environ.get("BELLWIRE_TEST_MTAS") == "required":
            pytest.fail(f"{reason}, and BELLWIRE_TEST_MTAS says that it is required")
        pytest.skip(reason)
    with running(kind, far.port) as started:
        await started.answering()
        yield started
