"""`registry.provider_tokens` and the Tokens of several workers, on both databases."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from activities.providers.answers import DELIVERED, RENEW
from activities.providers.http import NotSent, ResponseLost
from activities.providers.token_calls import ApiAnswer, with_token
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
    assert {token.token for token, _ in found} == {"t2"}
    assert [is_new for _, is_new in found].count(True) == 1
    # A late report about the first token does not end the second.
    assert (await all_workers[0].after(rejected[0]))[0].token == "t2"
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


async def test_a_provider_that_fails_is_asked_once_for_many_sends(registry: Registry) -> None:
    asked = 0

    async def fail() -> IssuedToken:
        nonlocal asked
        asked += 1
        raise TokenUnavailable("WeCom 500", retry_after=7)

    tokens = Tokens(registry, "wecom", "default", fail)
    found = await asyncio.gather(*(tokens.current() for _ in range(50)), return_exceptions=True)
    assert {(str(each), getattr(each, "retry_after", None)) for each in found} == {("WeCom 500", 7)}
    assert asked == 1


@pytest.mark.parametrize("error", [ResponseLost("timeout"), NotSent("connect failed")])
async def test_a_call_for_a_token_that_fails_has_sent_nothing(registry: Registry, error: Exception) -> None:
    async def fail() -> IssuedToken:
        raise error

    with pytest.raises(TokenUnavailable, match=str(error)):
        await Tokens(registry, "wecom", "default", fail).current()
    assert (await workers(registry, Provider(), 1)[0].current()).token == "t1"


async def test_a_token_is_used_to_its_end_if_the_provider_issues_no_other(registry: Registry) -> None:
    provider, later, asked = Provider(life=1000), timedelta(), 0

    async def issue() -> IssuedToken:
        nonlocal asked
        asked += 1
        if later:
            raise TokenUnavailable("WeCom 500")
        return await provider.issue()

    tokens = Tokens(registry, "wecom", "default", issue, clock=lambda: datetime.now(UTC) + later)
    await tokens.current()
    later = timedelta(seconds=910)
    assert {each.token for each in await asyncio.gather(*(tokens.current() for _ in range(20)))} == {"t1"}
    assert asked == 2
    later = timedelta(seconds=1010)
    with pytest.raises(TokenUnavailable, match="WeCom 500"):
        await tokens.current()


async def test_nobody_waits_for_the_next_token_while_the_last_is_valid(registry: Registry) -> None:
    provider, later, asking, going_on = Provider(life=1000), timedelta(), asyncio.Event(), asyncio.Event()

    async def issue() -> IssuedToken:
        if later:
            asking.set()
            await going_on.wait()
        return await provider.issue()

    tokens = Tokens(registry, "wecom", "default", issue, clock=lambda: datetime.now(UTC) + later)
    await tokens.current()
    later = timedelta(seconds=910)
    slow = asyncio.create_task(tokens.current())
    async with asyncio.timeout(10):
        await asking.wait()
        assert {each.token for each in await asyncio.gather(*(tokens.current() for _ in range(20)))} == {"t1"}
    going_on.set()
    assert (await slow).token == "t2"


async def test_a_provider_that_issues_the_rejected_token_again_is_asked_once(registry: Registry) -> None:
    asked = 0

    async def issue() -> IssuedToken:
        nonlocal asked
        asked += 1
        return IssuedToken(token="dead", life=7200)

    one, other = (Tokens(registry, "wecom", "default", issue) for _ in range(2))
    rejected = [await each.current() for each in (one, other)]
    for tokens, token in zip((one, other), rejected, strict=True):
        found = await asyncio.gather(*(tokens.after(token) for _ in range(20)), return_exceptions=True)
        assert {str(each) for each in found} == {"the rejected token again"}
    # The first one, and one for each worker.
    assert asked == 3


@pytest.mark.parametrize("token", ["line\nend", "nul\0", "", "x" * 10_000, "\u8d1d"])
async def test_a_token_that_cannot_be_sent_is_none(registry: Registry, token: str) -> None:
    async def issue() -> IssuedToken:
        return IssuedToken(token=token, life=7200)

    with pytest.raises(TokenUnavailable, match="invalid response"):
        await Tokens(registry, "wecom", "default", issue).current()


@pytest.mark.parametrize("life", [-(10**30), 0, 10**9, 10**30])
async def test_any_life_is_taken(registry: Registry, life: int) -> None:
    async def issue() -> IssuedToken:
        return IssuedToken(token="t", life=life)

    found = await Tokens(registry, "wecom", "default", issue).current()
    assert timedelta(0) < found.expires_at - found.fetched_at <= timedelta(days=31)


async def test_a_rejected_token_is_replaced_once_in_an_attempt(registry: Registry) -> None:
    provider, tried = Provider(), list[str]()

    async def call(token: str) -> ApiAnswer:
        tried.append(token)
        return ApiAnswer(meaning=RENEW, code="0")

    tokens = workers(registry, provider, 1)[0]
    for expected in (["t1", "t2"], ["t2", "t3"]):
        tried.clear()
        assert (await with_token(tokens, call)).meaning is RENEW
        assert tried == expected


async def test_a_token_of_another_worker_that_is_rejected_too_does_not_count(registry: Registry) -> None:
    provider, tried = Provider(), list[str]()
    one, other = workers(registry, provider, 2)
    await other.after(await one.current())

    async def call(token: str) -> ApiAnswer:
        tried.append(token)
        return ApiAnswer(meaning=DELIVERED if token == "t3" else RENEW, code="0")

    assert (await with_token(one, call)).meaning is DELIVERED
    assert tried == ["t1", "t2", "t3"]
