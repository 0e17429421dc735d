"""The demo, as a user runs it."""

import asyncio
import json
import sys

import pytest

from starter.checkout import CHECKOUT
from starter.local.processes import environment_without


@pytest.mark.slow
async def test_everything_in_the_demo_arrives_as_expected() -> None:
    demo = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "starter", "demo", "--json"),
        cwd=CHECKOUT,
        env=environment_without("BELLWIRE_", "TEMPORAL_"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, notes = await asyncio.wait_for(demo.communicate(), 90)
    assert demo.returncode == 0, notes.decode()
    shown = json.loads(out)
    assert shown["differences"] == []
    over_http = shown["events"][shown["published_over_http"]]
    assert (over_http["settled"], over_http["counts"]["delivered"]) == (True, 4)
    assert shown["handled"] == ["user-7001"]
    (message,) = shown["wechat"]
    assert message["fields"] == ["character_string1: 1042", "thing2: 19.90 EUR", "phrase3: 已退款"]
    assert shown["final"] == {"acme-follower": "delivered"}
