"""Fixtures of tests of activities."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bellwire.registry import Registry


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    """An empty registry."""
    opened = await Registry.open(f"sqlite:///{tmp_path}/registry.db")
    await opened.migrate()
    yield opened
    await opened.close()
