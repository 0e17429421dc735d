"""Servers that tests share: Temporal's time-skipping server and its dev server, from installed packages."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from rich.console import Console
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment

from bellwire.contract import SEARCH_ATTRIBUTES
from bellwire.testing import time_skipping_server
from tests.faults import scenario

BIN = Path(sys.executable).parent


async def start_dev_server(**limits: int) -> WorkflowEnvironment:
    """A dev server with Bellwire's search attributes; `limits` are dynamic configuration, with double underscores for dots."""
    values = [f"{name.replace('__', '.')}={value}" for name, value in limits.items()]
    return await WorkflowEnvironment.start_local(
        data_converter=pydantic_data_converter,
        dev_server_existing_path=str(BIN / "temporal"),
        dev_server_log_level="error",
        dev_server_extra_args=[part for value in values for part in ("--dynamic-config-value", value)],
        search_attributes=list(SEARCH_ATTRIBUTES),
    )


@pytest.fixture(scope="module")
async def time_skipping() -> AsyncIterator[WorkflowEnvironment]:
    """Temporal's test server, whose clock skips every wait. One for each file: its clock is global, and an activity that a test
    leaves without a worker would keep it from skipping in all later files.
    """
    async with time_skipping_server() as env:
        yield env


@pytest.fixture(scope="session")
async def dev_server() -> AsyncIterator[WorkflowEnvironment]:
    """Temporal's dev server: real time, and the features of a cluster."""
    async with await start_dev_server() as env:
        yield env


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the scenarios of tests/faults, which may have run in other processes."""
    reports = [
        report for kind in terminalreporter.stats.values() for report in kind if hasattr(report, "user_properties")
    ]
    if lines := [value for report in reports for name, value in report.user_properties if name == scenario.PROPERTY]:
        terminalreporter.ensure_newline()
        Console(file=terminalreporter._tw._file, width=175).print(scenario.table(lines))
