"""What SMS providers write is storable: half an emoji, NUL, and values of the wrong type."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from activities.sms.http_provider import HttpProvider
from activities.sms.provider_config import ProviderConfig
from activities.sms.providers import SendResult, Sms
from activities.sms.twilio import TwilioProvider, twilio_client
from bellwire.deliveries import MAX_PROVIDER_ID, Outcome
from tests.activities.sms.channels import Claims

SMS = Sms(delivery_id="dlv_a_b", number=1, to="+14155550123", text="Paid")


@asynccontextmanager
async def responding(status: int, body: str) -> AsyncIterator[str]:
    """A provider that gives this response to every request; its URL."""

    async def respond(_: web.Request) -> web.Response:
        return web.Response(status=status, body=body.encode(), content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", respond)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def results(session: aiohttp.ClientSession, status: int, body: str) -> list[SendResult]:
    """What a configured provider and Twilio come to with this response."""
    async with responding(status, body) as url:
        config = ProviderConfig.model_validate(
            {
                "name": "acme",
                "url": f"{url}/messages",
                "sender": "+14155550100",
                "body": {"fields": {"to": "{to}", "text": "{text}"}},
                "response": {"id": "/sid", "code": "/code"},
            }
        )
        client = twilio_client("AC" + "0" * 32, "token", url=url, timeout=60, session=session)
        twilio = TwilioProvider(client, Claims(), sender="+14155550100")
        return [await HttpProvider(config, session, secrets={}).send(SMS), await twilio.send(SMS)]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (201, r'{"sid": "SM\ud83d"}'),
        (202, r'{"sid": "SM\u0000"}'),
        (400, r'{"code": 21617, "message": "bad \ud83d\u0000", "status": 400}'),
        (400, r'{"code": "\ude00", "message": ["\ud83d"], "status": 400}'),
        (503, r"\ud83d \u0000"),
        (201, "[" * 100_000),
        (201, r'{"sid": "SM1", "price": "NaN", "price_unit": "\ud83d\u0000", "num_segments": "٣"}'),
        (201, r'{"sid": "SM1", "price": "1e99999", "price_unit": ["USD"], "num_segments": "99999999999999999999"}'),
        (201, r'{"sid": ["SM1"]}'),
        (201, r'{"sid": 12345678901234567890}'),
        (201, json.dumps({"sid": "S" * 5000})),
    ],
)
async def test_every_outcome_can_be_stored(session: aiohttp.ClientSession, status: int, body: str) -> None:
    for result in await results(session, status, body):
        stored = result.outcome.model_dump_json()
        assert Outcome.model_validate_json(stored) == result.outcome
        assert "\\u0000" not in stored
        assert len(result.outcome.provider_id or "") <= MAX_PROVIDER_ID
        cost: Any = result.cost
        assert cost is None or (cost.price is None or cost.price < 10**9)


async def test_an_id_with_half_an_emoji_is_recorded_with_a_replacement(session: aiohttp.ClientSession) -> None:
    found = [result.outcome.provider_id for result in await results(session, 201, r'{"sid": "SM\ud83d"}')]
    assert found == ["SM\ufffd", "SM\ufffd"]
