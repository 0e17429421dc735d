"""Chromium without a window, driven over the DevTools protocol (chromedevtools.github.io/devtools-protocol)."""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

#: Seconds for one command.
TIMEOUT = 30.0


def chromium_program() -> str:
    """Chromium; the test is skipped without one, and fails if it is required."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if found is None:
        reason = "chromium is not installed"
        if os.environ.get("BELLWIRE_TEST_BROWSER") == "required":
            pytest.fail(f"{reason}, and BELLWIRE_TEST_BROWSER says that it is required")
        pytest.skip(reason)
    return found


class Tab:
    """A tab of the browser. `events` are those of the protocol, oldest first."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._session, self._last = socket, "", 0
        self.events: list[dict[str, Any]] = []

    @classmethod
    async def open(cls, socket: aiohttp.ClientWebSocketResponse) -> "Tab":
        tab = cls(socket)
        target = await tab.command("Target.createTarget", url="about:blank")
        attached = await tab.command("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        tab._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "ServiceWorker"):
            await tab.command(f"{domain}.enable")
        return tab

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command. Raises AssertionError if the browser refuses it."""
        self._last += 1
        session = {"sessionId": self._session} if self._session else {}
        await self._socket.send_json({"id": self._last, "method": method, "params": parameters, **session})
        async with asyncio.timeout(TIMEOUT):
            while True:
                message: dict[str, Any] = await self._socket.receive_json()
                if message.get("id") == self._last:
                    assert "error" not in message, f"{method}: {message['error']}"
                    result: dict[str, Any] = message["result"]
                    return result
                self.events.append(message)

    async def navigate(self, url: str) -> None:
        """Open a page, and wait until it has loaded."""
        await self.command("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            await self.command("Runtime.evaluate", expression="1")

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript, or of its promise."""
        result = await self.command(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")


@asynccontextmanager
async def running_chromium(folder: Path) -> AsyncIterator[Tab]:
    """A browser with an empty profile in `folder`, and a tab of it."""
    process = await asyncio.create_subprocess_exec(
        *(
            chromium_program(),
            "--headless",
            *([] if os.getuid() else ["--no-sandbox"]),
            "--no-first-run",
            "--disable-gpu",
            "--disable-dev-shm-usage",
        ),
        *("--disable-background-networking", f"--user-data-dir={folder}", "--remote-debugging-port=0", "about:blank"),
        stderr=asyncio.subprocess.PIPE,
    )
    reading: asyncio.Task[bytes] | None = None
    try:
        assert process.stderr is not None
        async with asyncio.timeout(TIMEOUT):
            while not (found := re.search(rb"listening on (ws://\S+)", line := await process.stderr.readline())):
                assert line, "chromium ended"
        reading = asyncio.create_task(process.stderr.read())
        async with aiohttp.ClientSession() as session, session.ws_connect(found[1].decode(), max_msg_size=0) as socket:
            yield await Tab.open(socket)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        if reading is not None:
            await reading
