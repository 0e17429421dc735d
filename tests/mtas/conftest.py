"""Real mail servers. Tests are skipped if they are not installed, and fail with BELLWIRE_TEST_MTAS=required."""

import os
from collections.abc import AsyncIterator

import pytest

from starter.local.receivers.mailbox import Mailbox
from tests.mtas.servers import SERVERS, MailServer, running


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "mta: needs the mail servers that .ci/mail-servers installs")


@pytest.fixture
async def far() -> AsyncIterator[Mailbox]:
    """Receives the mails for far.test from the mail server."""
    async with Mailbox() as box:
        yield box


@pytest.fixture(params=SERVERS, ids=lambda kind: kind.name)
async def server(request: pytest.FixtureRequest, far: Mailbox) -> AsyncIterator[MailServer]:
    kind: type[MailServer] = request.param
    if reason := kind.missing():
        if os.environ.get("BELLWIRE_TEST_MTAS") == "required":
            pytest.fail(f"{reason}, but BELLWIRE_TEST_MTAS requires it")
        pytest.skip(reason)
    with running(kind, far.port) as started:
        await started.ready()
        yield started
