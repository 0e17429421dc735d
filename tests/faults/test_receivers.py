"""Receivers that misbehave in every way at once: they reset, hang, answer garbage, half an answer, or without end."""

from pathlib import Path

import pytest

from bellwire.deliveries import DeliveryState
from starter.local.receivers.twilio import SmsResponse
from starter.local.receivers.webhooks import Behaviour, WebhookResponse
from tests.faults.breakable import breakable
from tests.faults.load import Load
from tests.faults.verdict import Scenario

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

ODD = (Behaviour.RESET, Behaviour.HANG, Behaviour.GARBAGE, Behaviour.INCOMPLETE, Behaviour.HUGE, Behaviour.DRIP)


async def test_receivers_that_misbehave_get_everything_in_the_end(tmp_path: Path, seed: int) -> None:
    async with breakable(
        tmp_path,
        f"sqlite:///{tmp_path}/registry.db",
        seed=seed,
        BELLWIRE_SEND_CONCURRENCY="20",
        BELLWIRE_WEBHOOK_TIMEOUT="1",
        BELLWIRE_TWILIO_TIMEOUT="1",
    ) as system:
        load, chance = Load(system), system.random
        for number in range(load.hooks):
            oddities = [
                WebhookResponse(status=503, behaviour=chance.choice(ODD)) for _ in range(chance.randrange(1, 6))
            ]
            system.hooks.script(f"/load/{number}", *oddities)
        for number in range(load.texts):
            replies = (
                SmsResponse(never=True, accept=True),
                SmsResponse(reset=True),
                SmsResponse(status=504),
                SmsResponse(accept=True, reset=True),
            )
            system.twilio.script(f"+1415555{number:04}", *(chance.choice(replies) for _ in range(3)))
        for number in range(load.mails):
            system.mailbox.drop_after_data(f"u{number}@example.com", times=chance.randrange(4))
        await load.subscribe()
        scenario = Scenario("misbehaving receivers", load)
        await load.publish(singles=5, batch=10)
        rows = await scenario.settles(timeout=120)
        states = {state: sum(row.state is state for row in rows) for state in DeliveryState}
        events = len(load.events)
        assert states[DeliveryState.REJECTED] == events, "the receiver that answers 400"
        assert states[DeliveryState.EXHAUSTED] == events, "the receiver that is always down"
        assert states[DeliveryState.DELIVERED] == load.wanted - 2 * events
