"""Tokens, whatever a provider issues, and whenever it fails."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from activities.providers.http import ResponseLost
from activities.providers.tokens import (
    ASSUMED_LIFE,
    MAX_PAUSE_SECONDS,
    PAUSE_SECONDS,
    IssuedToken,
    Tokens,
    TokenUnavailable,
    issued_token,
)
from bellwire.registry import Registry


@pytest.mark.parametrize(
    ("life", "used"),
    [
        (7200, 7200),
        (7200.0, 7200),
        ("7200", 7200),
        (0, 0),
        (float("inf"), ASSUMED_LIFE),
        (None, ASSUMED_LIFE),
        (True, ASSUMED_LIFE),
        ("soon", ASSUMED_LIFE),
        ([7200], ASSUMED_LIFE),
    ],
)
def test_the_life_of_a_token_may_be_written_otherwise(life: Any, used: float) -> None:
    assert issued_token("t", life) == IssuedToken(token="t", life=used)


@pytest.mark.parametrize("token", ["", 5, None])
def test_what_is_no_text_is_no_token(token: Any) -> None:
    assert issued_token(token, 7200) is None


async def test_a_lost_answer_of_the_token_service_says_nothing_of_a_message(registry: Registry) -> None:
    async def lost() -> IssuedToken:
        raise ResponseLost("timeout")

    with pytest.raises(TokenUnavailable, match="timeout"):
        await Tokens(registry, "wecom", "default", lost).current()


async def test_a_provider_that_asks_to_wait_is_not_asked_for_a_token_meanwhile(registry: Registry) -> None:
    asked, now = 0, 1000.0

    async def limited() -> IssuedToken:
        nonlocal asked
        asked += 1
        raise TokenUnavailable("WeCom 429", retry_after=1e9)

    tokens = Tokens(registry, "wecom", "default", limited, monotonic=lambda: now)
    for later in (0, PAUSE_SECONDS + 1, MAX_PAUSE_SECONDS + 1):
        now = 1000.0 + later
        with pytest.raises(TokenUnavailable):
            await tokens.current()
    assert asked == 2


async def test_a_token_that_is_still_valid_is_used_while_there_is_no_other(registry: Registry) -> None:
    now, asked = datetime.now(UTC), 0

    async def issue() -> IssuedToken:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise TokenUnavailable("WeCom 500")
        return IssuedToken(token="first", life=7200)

    tokens = Tokens(registry, "wecom", "default", issue, clock=lambda: now)
    await tokens.current()
    now += timedelta(seconds=7000)
    found = await asyncio.gather(*(tokens.current() for _ in range(5)))
    assert ({each.token for each in found}, asked) == ({"first"}, 2)
    now += timedelta(seconds=300)
    with pytest.raises(TokenUnavailable):
        await tokens.current()


async def test_all_that_wait_for_a_token_share_the_failure(registry: Registry) -> None:
    asked, answered = 0, asyncio.Event()

    async def issue() -> IssuedToken:
        nonlocal asked
        asked += 1
        await answered.wait()
        raise TokenUnavailable("WeCom 500")

    tokens = Tokens(registry, "wecom", "default", issue)
    waiting = [asyncio.create_task(tokens.current()) for _ in range(10)]
    async with asyncio.timeout(10):
        while not asked:
            await asyncio.sleep(0)
    answered.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert (asked, {str(each) for each in found}) == (1, {"WeCom 500"})
