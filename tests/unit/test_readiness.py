"""GET /ready says whether a process is ready, and nothing else; the log says why not."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import aiohttp
import pytest
from starlette.applications import Starlette
from structlog.testing import capture_logs

from bellwire.errors import RegistryUnavailable
from bellwire.registry import Registry
from bellwire.service import readiness
from bellwire.service.http_server import serving_http
from bellwire.service.readiness import Readiness, ready_route
from bellwire.service.settings import Settings
from starter.gateway.app import application

PRIVATE = "connection to server on socket '/var/run/private/.s.PGSQL.5432' failed for user postgres"


async def asked(app: Starlette) -> tuple[int, str]:
    async with (
        serving_http(app, host="127.0.0.1", port=0) as port,
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/ready") as response,
    ):
        return response.status, await response.text()


def failing(error: Exception) -> Callable[[], Awaitable[None]]:
    async def check() -> None:
        raise error

    return check


class Unreachable:
    """A registry that is down."""

    async def ping(self) -> None:
        raise RegistryUnavailable(PRIVATE)


@pytest.fixture(autouse=True)
def _check_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "CACHE_SECONDS", -1.0)


@pytest.mark.parametrize("error", [RegistryUnavailable(PRIVATE), RuntimeError(PRIVATE), OSError(2, PRIVATE)])
async def test_who_asks_does_not_learn_why(error: Exception) -> None:
    with capture_logs() as lines:
        assert await asked(Starlette(routes=[ready_route(failing(error))])) == (503, '{"ready":false}')
    (line,) = lines
    assert (line["event"], line["log_level"]) == ("readiness.lost", "warning")
    assert PRIVATE in line["reason"]


async def test_the_gateway_without_its_registry_is_not_ready() -> None:
    assert await asked(application(Settings.read(), cast(Registry, Unreachable()))) == (503, '{"ready":false}')


async def test_only_changes_are_logged() -> None:
    problems: list[str] = ["", "first", "first", "second", "", ""]

    async def check() -> None:
        if problem := problems.pop(0):
            raise RuntimeError(problem)

    tested = Readiness(check)
    with capture_logs() as lines:
        results = [await tested.is_ready() for _ in range(len(problems))]
    assert results == [True, False, False, False, True, True]
    assert [(line["event"], line.get("reason")) for line in lines] == [
        ("readiness.lost", "first"),
        ("readiness.lost", "second"),
        ("readiness.restored", None),
    ]


async def test_what_does_not_respond_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "CHECK_SECONDS", 0.05)

    async def check() -> None:
        await asyncio.Event().wait()

    assert await asked(Starlette(routes=[ready_route(check)])) == (503, '{"ready":false}')


async def test_many_requests_are_one_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "CACHE_SECONDS", 600.0)
    checks = 0

    async def check() -> None:
        nonlocal checks
        checks += 1
        await asyncio.sleep(0)

    tested = Readiness(check)
    assert await asyncio.gather(*(tested.is_ready() for _ in range(50))) == [True] * 50
    assert checks == 1
