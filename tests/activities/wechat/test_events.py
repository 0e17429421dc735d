"""The whole life of messages by WeChat, over the network: a channel sends, WeChat calls back, and a gateway records it."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from activities.wechat.channel import WechatChannel
from bellwire.contract import Group
from bellwire.deliveries import Attempt, DeliveryState, Outcome, OutcomeKind
from bellwire.registry import Registry
from bellwire.registry.providers.wechat_grants import Grantee
from bellwire.service.settings import Settings
from bellwire.suppressions import SuppressionReason
from bellwire.targets import Channel
from starter.local.receivers.providers.wechat import FakeWechat
from tests.activities.chat.channels import accounts, opened
from tests.factories import event, send_request, subscription
from tests.serving import serving

OPENID = "oABCD-1234_x"
TARGET = {"channel": "wechat", "openid": OPENID, "template_id": "paid"}
GRANTED = {**TARGET, "kind": "miniprogram"}
EVENT = event(id="1", data={"order": "42"})


@dataclass(frozen=True)
class Life:
    fake: FakeWechat
    channel: WechatChannel
    registry: Registry

    async def send(self, target: dict[str, Any] | None = None, *, record: bool = True) -> Outcome:
        """Subscribe this user, and make the first attempt. Before it is recorded, no callback can be about it."""
        to = subscription(target or TARGET, id="sub_wechat")
        await self.registry.subscriptions.create(to)
        await self.registry.events.accept([EVENT], "run")
        group = Group(event_key=EVENT.key, channel=Channel.WECHAT, subscription_ids=(to.id,))
        await self.registry.deliveries.add("run", [group])
        suppressed = await self.suppressed()
        outcome = await self.channel.attempt(replace(send_request(to, EVENT), suppressed=suppressed))
        if record:
            await self.record(outcome)
            await self.fake.callbacks.sent()
        return outcome

    async def record(self, outcome: Outcome, name: str = "sub_wechat") -> None:
        await self.registry.attempts.record(
            [
                Attempt(
                    event_key=EVENT.key,
                    subscription_id=name,
                    number=1,
                    started_at=datetime.now(UTC),
                    duration=0.1,
                    outcome=outcome,
                    state=DeliveryState(str(outcome.kind)),
                )
            ]
        )

    async def final(self) -> tuple[str, str | None] | None:
        """Status and code that WeChat reported in the end."""
        deliveries = await self.registry.deliveries.list(event_key=EVENT.key)
        for receipt in (await self.registry.sms_receipts.of_deliveries(deliveries)).values():
            return str(receipt.status), receipt.code
        return None

    async def suppressed(self) -> dict[str, SuppressionReason]:
        return await self.registry.suppressions.among(Channel.WECHAT, [f"default/{OPENID}"], subscription_id="another")

    async def grants(self, template: str = "paid") -> int | None:
        return await self.registry.wechat_grants.get(Grantee("default", OPENID, template))


@pytest.fixture(params=["plain", "safe", "safe JSON"])
async def life(request: pytest.FixtureRequest, tmp_path: Path, registry: Registry) -> AsyncIterator[Life]:
    async with FakeWechat() as fake, opened(registry) as parts:
        back = fake.callbacks
        back.safe_mode, back.as_json = request.param != "plain", request.param.endswith("JSON")
        back.delay, back.repeat_delay = 0.1, 0.5
        secrets = {"app": fake.secret, "token": back.token, "aes": back.aes_key}
        account = {"app_id": fake.app_id, "secret": "app", "url": fake.url, "callback_token": "token"}
        account |= {"aes_key": "aes"} if back.safe_mode else {}
        known = accounts({"wechat": account}, **secrets).wechat
        named = {
            name: f"BELLWIRE_ACCOUNT_SECRETS__{value.upper()}" if value in secrets else value
            for name, value in account.items()
        }
        file = tmp_path / "accounts.json"
        file.write_text(json.dumps({"wechat": {"default": named}}))
        async with serving(Settings.read(accounts=file, account_secrets=secrets), registry) as url:
            back.url = f"{url}/callbacks/wechat/default"
            yield Life(fake, WechatChannel(parts, known), registry)


@pytest.mark.parametrize(
    ("result", "final", "suppressed"),
    [
        ("success", ("delivered", None), False),
        ("failed:user block", ("failed", "user block"), True),
        ("failed: system failed", ("failed", "system failed"), False),
        ("failed:freq limit", ("failed", "freq limit"), False),
    ],
)
async def test_the_final_word_on_a_template_message(
    life: Life, result: str, final: tuple[str, str | None], suppressed: bool
) -> None:
    life.fake.results[OPENID] = result
    assert (await life.send()).kind is OutcomeKind.DELIVERED
    assert await life.final() == final
    assert bool(await life.suppressed()) is suppressed
    assert life.fake.callbacks.statuses[-1] == 200


async def test_a_word_that_comes_before_the_attempt_is_recorded_is_repeated(life: Life) -> None:
    life.fake.callbacks.repeat_delay = 0
    outcome = await life.send(record=False)
    await life.fake.callbacks.sent()
    assert life.fake.callbacks.statuses == [404] * 4
    assert await life.final() is None
    await life.record(outcome)
    (message,) = life.fake.accepted
    life.fake.report(message)
    await life.fake.callbacks.sent()
    assert life.fake.callbacks.statuses[4:] == [200]
    assert await life.final() == ("delivered", None)


async def test_words_that_are_repeated_change_nothing(life: Life) -> None:
    life.fake.callbacks.needless_repeats, life.fake.callbacks.repeat_delay = 3, 0.2
    life.fake.choose(OPENID, {"paid": "accept"})
    await life.fake.callbacks.sent()
    assert (life.fake.callbacks.statuses, await life.grants()) == ([200] * 4, 1)
    life.fake.results[OPENID] = "failed:user block"
    await life.send()
    assert await life.final() == ("failed", "user block")
    life.fake.results[OPENID] = "success"
    life.fake.report(life.fake.accepted[0])
    await life.fake.callbacks.sent()
    assert await life.final() == ("failed", "user block"), "the first final word stays"
    assert await life.suppressed()


async def test_what_a_user_agrees_to_is_counted_and_used_up(life: Life) -> None:
    for choices in ({"paid": "accept"}, {"paid": "accept", "sent": "accept", "ads": "reject"}):
        life.fake.choose(OPENID, choices)
    await life.fake.callbacks.sent()
    assert [await life.grants(each) for each in ("paid", "sent", "ads")] == [2, 1, None]
    assert (await life.send(GRANTED)).kind is OutcomeKind.DELIVERED
    assert (await life.grants(), life.fake.grants[OPENID, "paid"]) == (1, 1)
    assert await life.final() == ("delivered", None)


@pytest.mark.parametrize("several", [False, True])
async def test_a_user_who_refuses_in_the_settings_gets_nothing(life: Life, several: bool) -> None:
    life.fake.choose(OPENID, {"paid": "accept"})
    await life.fake.callbacks.sent()
    life.fake.change(OPENID, {"paid": "reject", **({"sent": "reject"} if several else {})})
    await life.fake.callbacks.sent()
    outcome = await life.send(GRANTED)
    assert (outcome.kind, outcome.reason, outcome.suppress) == (OutcomeKind.REJECTED, "no grant", ())
    assert life.fake.requests == 0
    life.fake.change(OPENID, {"paid": "accept"})
    await life.fake.callbacks.sent()
    assert await life.grants() is None, "WeChat does not say to how many"


async def test_an_accepted_message_without_a_grant_clears_the_count(life: Life) -> None:
    life.fake.choose(OPENID, {"paid": "accept"})
    life.fake.choose(OPENID, {"paid": "accept"})
    await life.fake.callbacks.sent()
    life.fake.results[OPENID] = "43101"
    assert (await life.send(GRANTED)).kind is OutcomeKind.DELIVERED
    assert await life.final() == ("failed", "43101")
    assert (await life.grants(), await life.suppressed()) == (0, {})


async def test_accounts_may_count_their_messages_by_the_same_numbers(life: Life) -> None:
    outcome = await life.send(record=False)
    for name in ("a_before", "z_after"):
        to = subscription({**TARGET, "account": "another"}, id=name)
        await life.registry.subscriptions.create(to)
        group = Group(event_key=EVENT.key, channel=Channel.WECHAT, subscription_ids=(name,))
        await life.registry.deliveries.add("run", [group])
        await life.record(outcome, name)
    await life.record(outcome)
    await life.fake.callbacks.sent()
    life.fake.report(life.fake.accepted[0])
    await life.fake.callbacks.sent()
    assert await life.final() == ("delivered", None)


async def test_a_wrong_signature_or_key_is_refused(life: Life) -> None:
    back = life.fake.callbacks
    token = back.token
    back.repeat_delay = 0
    back.token = "another"
    await life.send()
    assert back.statuses == [403] * 4
    assert await life.final() is None
    if back.safe_mode:
        back.statuses.clear()
        back.token, back.app_id = token, "wxanother"
        life.fake.choose(OPENID, {"paid": "accept"})
        await back.sent()
        assert (set(back.statuses), await life.grants()) == ({403}, None)
