"""`registry.provider_tokens` and the Tokens of several workers, on both databases."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from activities.providers.tokens import IssuedToken, Tokens, TokenUnavailable
from bellwire.registry import Registry

LASTING = timedelta(seconds=30)


class Provider:
    """Issues tokens t1, t2, …; at most one is being issued at a time."""

    def __init__(self, life: float = 7200.0) -> None:
        self.life, self.issued, self.at_once = life, 0, 0

    async def issue(self) -> IssuedToken:
        self.at_once += 1
        assert self.at_once == 1
        await asyncio.sleep(0.02)
        self.at_once -= 1
        self.issued += 1
        return IssuedToken(token=f"t{self.issued}", life=self.life)


def workers(registry: Registry, provider: Provider, number: int) -> list[Tokens]:
    return [Tokens(registry, "wecom", "default", provider.issue) for _ in range(number)]


async def test_all_workers_use_the_one_token_of_the_account(registry: Registry) -> None:
    provider = Provider()
    found = await asyncio.gather(*(each.current() for each in workers(registry, provider, 8)))
    assert {each.token for each in found} == {"t1"}
    assert provider.issued == 1


async def test_a_rejected_token_is_replaced_once_for_all(registry: Registry) -> None:
    provider = Provider()
    all_workers = workers(registry, provider, 6)
    rejected = [await each.current() for each in all_workers]
    pairs = zip(all_workers, rejected, strict=True)
    found = await asyncio.gather(*(each.after(token) for each, token in pairs))
    assert {each.token for each in found} == {"t2"}
    # A late report about the first token does not end the second.
    assert (await all_workers[0].after(rejected[0])).token == "t2"
    assert provider.issued == 2


async def test_a_token_is_replaced_after_nine_tenths_of_its_life(registry: Registry) -> None:
    provider, later = Provider(life=1000), timedelta()
    tokens = Tokens(registry, "wecom", "default", provider.issue, clock=lambda: datetime.now(UTC) + later)
    assert (await tokens.current()).token == "t1"
    later = timedelta(seconds=890)
    assert (await tokens.current()).token == "t1"
    later = timedelta(seconds=910)
    # Another worker is getting the next one: this one goes on with what it has, until that is over.
    assert await registry.provider_tokens.claim("wecom", "default", generation=1, by="other", lasting=LASTING)
    assert (await tokens.current()).token == "t1"
    await registry.provider_tokens.release("wecom", "default", by="other")
    assert (await tokens.current()).token == "t2"


async def test_a_worker_that_died_while_it_claimed_does_not_block_the_others(registry: Registry) -> None:
    tokens = registry.provider_tokens
    assert await tokens.claim("wecom", "default", generation=0, by="dead", lasting=timedelta(seconds=-1))
    assert (await workers(registry, Provider(), 1)[0].current()).token == "t1"
    # It comes back late: its token does not replace the newer one.
    late = await tokens.store(
        "wecom", "default", generation=0, token="late", expires_at=datetime.now(UTC) + timedelta(hours=1)
    )
    assert late is None


async def test_a_provider_that_refuses_leaves_no_claim_behind(registry: Registry) -> None:
    async def refuse() -> IssuedToken:
        raise TokenUnavailable("WeCom 40001", operator=True)

    with pytest.raises(TokenUnavailable, match="WeCom 40001"):
        await Tokens(registry, "wecom", "default", refuse).current()
    assert (await workers(registry, Provider(), 1)[0].current()).token == "t1"
