"""`registry.wechat_grants`, on both databases."""

from datetime import UTC, datetime, timedelta

from bellwire.registry import Registry
from bellwire.registry.providers.wechat_grants import Grantee

ANN = Grantee("default", "oAnn", "paid")
AT = datetime(2026, 11, 29, tzinfo=UTC)


async def test_grants_are_counted_and_spent(registry: Registry) -> None:
    grants = registry.wechat_grants
    assert await grants.get(ANN) is None
    await grants.spend(ANN)
    assert await grants.get(ANN) is None
    assert await grants.add(ANN, at=AT)
    assert await grants.add(ANN, at=AT + timedelta(seconds=1))
    await grants.spend(ANN)
    assert await grants.get(ANN) == 1
    for other in (ANN._replace(account="shop"), ANN._replace(openid="oann"), ANN._replace(template_id="new")):
        assert await grants.get(other) is None
    await grants.spend(ANN)
    await grants.spend(ANN)
    assert await grants.get(ANN) == 0


async def test_a_report_that_is_repeated_counts_once(registry: Registry) -> None:
    grants = registry.wechat_grants
    assert [await grants.add(ANN, at=AT) for _ in range(3)] == [True, False, False]
    assert not await grants.add(ANN, at=AT - timedelta(seconds=1))
    assert await grants.get(ANN) == 1


async def test_a_user_without_grants_is_known_until_the_next_one(registry: Registry) -> None:
    grants = registry.wechat_grants
    await grants.clear(ANN)
    assert await grants.get(ANN) == 0
    await grants.add(ANN, at=AT)
    assert await grants.get(ANN) == 1
    await grants.forget(ANN)
    assert await grants.get(ANN) is None
