"""Takes the screenshots of the Temporal UI: `make screenshots`.

It starts the embedded stack and endpoints that fail, publishes events of an invented shop, waits until deliveries have failed
twice, and takes the pictures with Chromium: Debian's package `chromium`, or CHROMIUM=/path/to/chromium.
"""

import asyncio
import io
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote, urlencode

from aiohttp import web
from PIL import Image
from playwright.async_api import Browser, Page, async_playwright

from bellwire import Client, Event, Status

FOLDER = Path(__file__).parent
CHECKOUT = FOLDER.parents[1]
#: Seconds.
TIMEOUT, LINGER = 60.0, 20.0
#: Pixels of every picture, and around what is cut out of the page.
PICTURE_WIDTH, MARGIN = 1400, 12

#: The operator's first question, and what the list shows beside each run.
QUERY = "BellwireUnsettled > 0"
COLUMNS = ["Status", "Workflow ID", "BellwireTenant", "BellwireUnsettled", "BellwireWaiting"]

#: By subscription id: tenant, event types, and the response of the endpoint.
ENDPOINTS: dict[str, tuple[str, str, int, dict[str, str]]] = {
    "acme-orders": ("acme", "order.*", 503, {}),
    "acme-billing": ("acme", "order.paid", 500, {}),
    "acme-search": ("acme", "order.*", 429, {"retry-after": "600"}),
    "acme-mailing": ("acme", "order.*", 204, {}),
    "globex-erp": ("globex", "invoice.*", 502, {}),
    "globex-audit": ("globex", "*", 204, {}),
}
EVENTS = [
    ("globex", "invoice.created", "/billing", "invoice-1007"),
    ("globex", "user.registered", "/accounts", "user-214"),
    ("acme", "order.shipped", "/shop/orders", "order-40-shipped"),
    ("acme", "order.refunded", "/shop/orders", "order-38-refunded"),
    ("globex", "invoice.paid", "/billing", "invoice-1003-paid"),
    ("acme", "order.paid", "/shop/orders", "order-41-paid"),
    ("acme", "order.paid", "/shop/orders", "order-42-paid"),
]


@dataclass(frozen=True)
class Shot:
    """A picture: what is opened, and which part of it is shown."""

    name: str
    #: CSS pixels; the picture is always PICTURE_WIDTH wide.
    width: int
    #: The page, as the end of the address of a run or of the list.
    path: str
    #: The text that the page shows once it is complete.
    awaited: str
    #: Whether that is in a frame of its own, as Current Details are.
    in_frame: bool = False
    #: Selectors of the topmost and the lowest element that are shown; the whole window without.
    top: str | None = None
    bottom: str | None = None
    #: Pixels that are left out at the end.
    trim: int = 0
    height: int = 1600


#: The timeline is the picture's subject, not the input above it.
SHOTS = [
    Shot("temporal-list", 1160, f"?{urlencode({'query': QUERY})}", "order-38-refunded", height=600),
    Shot(
        "temporal-timeline",
        1100,
        "timeline",
        "next attempt",
        top="h2:has-text('Timeline')",
        bottom="#event-history-timeline-graph",
        trim=90,
    ),
    Shot(
        "temporal-details",
        1400,
        "user-metadata",
        "acme-billing",
        in_frame=True,
        top="h1",
        bottom="[data-testid=user-metadata]",
    ),
]


@asynccontextmanager
async def running_stack(folder: Path) -> AsyncIterator[dict[str, Any]]:
    """The stack of `python -m starter dev`; what it prints about itself."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "starter", "dev", "--json", "--free-ports", "--folder", str(folder)),
        cwd=CHECKOUT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        printed = await asyncio.wait_for(process.stdout.readuntil(b"\n}"), TIMEOUT)
        yield json.loads(printed)
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def failing_endpoints() -> AsyncIterator[str]:
    """The address of a server that gives the response of ENDPOINTS at /<subscription id>."""

    async def respond(request: web.Request) -> web.Response:
        _, _, status, headers = ENDPOINTS[request.match_info["subscription"]]
        return web.Response(status=status, headers=headers)

    app = web.Application()
    app.router.add_post("/{subscription}", respond)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def subscribe(variables: dict[str, str], endpoint: str) -> None:
    subscriptions = [
        {
            "id": name,
            "tenant": tenant,
            "types": [pattern],
            "target": {"channel": "webhook", "url": f"{endpoint}/{name}"},
        }
        for name, (tenant, pattern, _, _) in ENDPOINTS.items()
    ]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "starter", "subscribe", "--file", "-"),
        cwd=CHECKOUT,
        env={**os.environ, **variables},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    await process.communicate(json.dumps(subscriptions).encode())
    if process.returncode:
        raise SystemExit("screenshots: subscribing failed")


async def publish(client: Client) -> Status:
    """Publish EVENTS. Returns the status of the last one after its first retries have failed too."""
    for tenant, kind, source, event_id in EVENTS:
        receipt = await client.publish(
            Event(tenant=tenant, type=kind, source=source, id=event_id, data={"order": "42"})
        )
    async with asyncio.timeout(TIMEOUT):
        status = await client.status(receipt)
        while not any(each.attempts == 2 for each in status.unsettled):
            await asyncio.sleep(0.2)
            status = await client.status(receipt)
    # The longer the run has waited, the better the timeline shows the waits.
    await asyncio.sleep(LINGER)
    return status


async def take(page: Page, shot: Shot, ui: str, run: str) -> bytes:
    """Returns the PNG. The UI polls an open run all the time, so wait for the text of the page and not until it is idle."""
    await page.goto(ui + shot.path if shot.path.startswith("?") else f"{ui}/{run}")
    if not shot.path.startswith("?"):
        await page.wait_for_url(f"**/{run}/*/timeline*")
        await page.goto(page.url.partition("/timeline")[0] + f"/{shot.path}")
    within = page.frame_locator("iframe").last if shot.in_frame else page
    await within.get_by_text(shot.awaited).first.wait_for(timeout=TIMEOUT * 1000)
    await page.wait_for_timeout(2000)  # transitions
    if shot.top is None or shot.bottom is None:
        window: bytes = await page.screenshot()
        return window
    top, bottom = [await page.locator(each).first.bounding_box() for each in (shot.top, shot.bottom)]
    assert top is not None
    assert bottom is not None
    left, upper = min(top["x"], bottom["x"]) - MARGIN, top["y"] - MARGIN
    width, height = shot.width - left - MARGIN, bottom["y"] + bottom["height"] - shot.trim + MARGIN - upper
    part: bytes = await page.screenshot(clip={"x": left, "y": upper, "width": width, "height": height})
    return part


async def photograph(browser: Browser, ui: str, run: str) -> None:
    columns = json.dumps(json.dumps({"default": [{"label": name} for name in COLUMNS]}))
    for shot in SHOTS:
        context = await browser.new_context(
            viewport={"width": shot.width, "height": shot.height},
            device_scale_factor=2,
            color_scheme="light",
            locale="en-US",
            timezone_id="UTC",
        )
        # The UI's own preferences: a narrow navigation, and COLUMNS.
        await context.add_init_script(
            f"localStorage.setItem('navOpen', 'false'); localStorage.setItem('namespace-workflow-table-columns', {columns})"
        )
        picture = await take(await context.new_page(), shot, ui, run)
        await context.close()
        (FOLDER / f"{shot.name}.png").write_bytes(compressed(picture))


def compressed(picture: bytes) -> bytes:
    """The picture PICTURE_WIDTH wide, with a palette."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image = image.resize((PICTURE_WIDTH, image.height * PICTURE_WIDTH // image.width), Image.Resampling.LANCZOS)
    target = io.BytesIO()
    image.quantize(128, dither=Image.Dither.NONE).save(target, "PNG", optimize=True)
    return target.getvalue()


async def main() -> None:
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit(
            "screenshots: Chromium is not installed; install it (Debian: apt-get update && apt-get install chromium) "
            "or set CHROMIUM to its path"
        )
    with TemporaryDirectory() as folder:
        async with running_stack(Path(folder)) as stack, failing_endpoints() as endpoint:
            await subscribe(stack["variables"], endpoint)
            variables = stack["variables"]
            status = await publish(
                await Client.connect(
                    target_host=variables["TEMPORAL_ADDRESS"], namespace=variables["TEMPORAL_NAMESPACE"]
                )
            )
            async with async_playwright() as playwright:
                sandbox = [] if os.getuid() else ["--no-sandbox"]
                browser = await playwright.chromium.launch(executable_path=chromium, args=sandbox)
                await photograph(browser, stack["ui"], quote(status.workflow_id, safe=""))
                await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
