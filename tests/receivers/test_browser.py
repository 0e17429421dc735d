"""examples/webpush in a browser: the page subscribes, Bellwire sends, and the service worker shows the notification.

Chromium's own push service is on the internet, so pushes go to one on this machine. The browser decrypts them with its own
cryptography, and the DevTools protocol gives the text to the service worker, as the browser does with a push of its own.
"""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from activities.egress.policy import Egress
from activities.providers.accounts import VapidKey
from activities.providers.hooks import Hooks
from activities.push.apns import Apns
from activities.push.channel import PushChannel
from activities.push.encryption import base64url, public_bytes
from activities.push.fcm import Fcm
from activities.push.web import WebPush
from activities.rendering.renderer import Renderer
from bellwire.deliveries import OutcomeKind
from starter.checkout import CHECKOUT
from starter.local.receivers.providers.web_push import FakePushService
from tests.factories import event, send_request, subscription
from tests.receivers.chromium import Tab, chromium_program, running_chromium

EXAMPLE = CHECKOUT / "examples" / "webpush"
PRIVATE_KEY = ec.derive_private_key(0x1234567890ABCDEF, ec.SECP256R1())
PUBLIC_KEY = base64url(public_bytes(PRIVATE_KEY.public_key()))
RAW_KEY = base64url(PRIVATE_KEY.private_numbers().private_value.to_bytes(32, "big"))
#: How often a push is delivered until its notification is seen.
DELIVERIES = 10


@pytest.fixture
async def site() -> AsyncIterator[str]:
    """The URL of the example's server."""
    chromium_program()
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, str(EXAMPLE / "server.py"), "0", PUBLIC_KEY),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert server.stdout is not None
        line = (await asyncio.wait_for(server.stdout.readline(), 30)).decode()
        found = re.search(r"http://\S+", line)
        assert found, line
        yield found[0]
    finally:
        server.terminate()
        await server.wait()


async def subscribed(tab: Tab, site: str, service: FakePushService) -> dict[str, Any]:
    """Click on the button, and return the JSON that the page shows."""
    stand_in = (Path(__file__).parent / "push_manager.js").read_text()
    named = f"const KEY = {json.dumps(PUBLIC_KEY)}, ENDPOINT = {json.dumps(service.endpoint('ann'))};"
    await tab.command("Browser.grantPermissions", permissions=["notifications"], origin=site.rstrip("/"))
    # In a function: the names of the stand-in are not the page's.
    await tab.command("Page.addScriptToEvaluateOnNewDocument", source=f"(() => {{ {named}\n{stand_in} }})();")
    await tab.navigate(site)
    # Reading the notifications once makes Chromium load its list. Afterwards it would drop what it does not display, as without
    # a window.
    assert await tab.evaluate("navigator.serviceWorker.ready.then(found => found.getNotifications())") == []
    shown = await tab.evaluate(
        """new Promise(resolve => {
            const shown = document.getElementById("target");
            new MutationObserver(() => resolve(shown.textContent)).observe(shown, { childList: true });
            document.getElementById("subscribe").click();
        })"""
    )
    found: dict[str, Any] = json.loads(shown)
    return found


async def send(service: FakePushService, target: dict[str, Any], data: dict[str, Any]) -> None:
    """Send the push of an event as a worker does."""
    egress = Egress(allow=[ip_network("127.0.0.0/8")], allow_http=True, ports=None, details=True)
    key = VapidKey.model_construct(private_key=SecretStr(RAW_KEY), subject="mailto:push@shop.example")
    async with egress.session(timeout=5) as session:
        web = WebPush(Hooks(session, egress, timeout=5), {"default": key}, hosts=("127.0.0.1",))
        channel = PushChannel(Renderer(), web, Fcm(session, {}, None), Apns({}))  # type: ignore[arg-type]
        request = send_request(subscription(target, id="sub_ann"), event(id="1", type="order.paid", data=data))
        outcome = await channel.attempt(request)
    assert outcome.kind is OutcomeKind.DELIVERED, outcome


async def shown_after(tab: Tab, site: str, registration: str, payload: str) -> dict[str, Any]:
    """The notification that the service worker shows for a push.

    Without a window, Chromium sometimes drops what it shows. So the push is delivered until it is seen, as by another attempt.
    """
    for _ in range(DELIVERIES):
        await tab.command(
            "ServiceWorker.deliverPushMessage", origin=site.rstrip("/"), registrationId=registration, data=payload
        )
        found: list[dict[str, Any]] = await tab.evaluate(
            """navigator.serviceWorker.ready.then(async registration => {
                for (const end = Date.now() + 2000; Date.now() < end; ) {
                    const found = await registration.getNotifications();
                    if (found.length) return found.map(({ title, body, tag, data }) => ({ title, body, tag, data }));
                    await new Promise(resolve => setTimeout(resolve, 5));
                }
                return [];
            })"""
        )
        if found:
            (notification,) = found
            return notification
    raise AssertionError(f"no notification was seen after {DELIVERIES} deliveries")


async def test_the_service_worker_shows_what_bellwire_encrypted(site: str, tmp_path: Path) -> None:
    async with FakePushService() as service, running_chromium(tmp_path) as tab:
        target = await subscribed(tab, site, service)
        assert (target["channel"], target["account"]) == ("push", "default")
        await send(service, target, {"order": "42 茶壶 🫖", "url": "https://shop.example/orders/42", "badge": 3})
        (push,) = service.contents("ann")
        assert "茶壶".encode() not in push["body"]

        payload = await tab.evaluate(f"decrypted({json.dumps(base64url(push['body']))})")
        (registration,) = {
            each["registrationId"]
            for found in tab.events
            if found["method"] == "ServiceWorker.workerRegistrationUpdated"
            for each in found["params"]["registrations"]
        }
        notification = await shown_after(tab, site, registration, payload)
    assert notification["title"] == "Order 42 茶壶 🫖 is paid"
    assert "42 茶壶 🫖" in notification["body"]
    assert notification["data"]["url"] == "https://shop.example/orders/42"
    assert notification["data"]["type"] == "order.paid"
    assert notification["tag"] == notification["data"]["delivery"]
    assert json.loads(payload)["badge"] == 3


async def test_a_push_that_was_changed_is_not_decrypted(site: str, tmp_path: Path) -> None:
    async with FakePushService() as service, running_chromium(tmp_path) as tab:
        target = await subscribed(tab, site, service)
        await send(service, target, {"order": "42"})
        (push,) = service.contents("ann")
        changed = push["body"][:-1] + bytes([push["body"][-1] ^ 1])
        assert await tab.evaluate(f"decrypted({json.dumps(base64url(changed))}).catch(error => error.name)") == (
            "OperationError"
        )
