"""A gateway process over a whole system, and a client that speaks HTTP to it."""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from bellwire.keys.api_keys import Scope
from tests.acceptance.conftest import System, running_gateway, running_system


@dataclass(frozen=True)
class Response:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Served:
    """A gateway and the system behind it."""

    url: str
    system: System
    session: aiohttp.ClientSession
    admin: str

    async def key(self, scope: str) -> str:
        """A new API key."""
        return (await self.system.registry.api_keys.create(Scope.parse(scope))).key

    async def call(
        self,
        method: str,
        path: str,
        json: Any = None,
        *,
        key: str | None = "",
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """A request with the admin key, with this one, or with none for None."""
        given = dict(headers or {})
        if key is not None:
            given.setdefault("authorization", f"Bearer {key or self.admin}")
        async with self.session.request(method, self.url + path, json=json, data=data, headers=given) as response:
            return Response(response.status, response.headers, await response.read())


@pytest.fixture(scope="session")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    folder = tmp_path_factory.mktemp("gateway")
    async with running_system(folder) as system, running_gateway(system, log=folder / "gateway.log") as url:
        admin = await system.registry.api_keys.create(Scope.parse("admin"))
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
            yield Served(url, system, session, admin.key)
