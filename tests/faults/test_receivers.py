"""Receivers that misbehave in every way: they reset, hang, and send invalid, incomplete or endless responses."""

from pathlib import Path

import pytest

from bellwire.deliveries import DeliveryState
from starter.local.receivers.twilio import SmsResponse
from starter.local.receivers.webhooks import Behaviour, WebhookResponse
from tests.faults.breakable import breakable
from tests.faults.load import Load
from tests.faults.scenario import Scenario

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MISBEHAVIOUR = (
    Behaviour.RESET,
    Behaviour.HANG,
    Behaviour.GARBAGE,
    Behaviour.INCOMPLETE,
    Behaviour.HUGE,
    Behaviour.DRIP,
)


async def test_misbehaving_receivers_get_every_delivery_in_the_end(tmp_path: Path, seed: int) -> None:
    async with breakable(
        tmp_path,
        f"sqlite:///{tmp_path}/registry.db",
        seed=seed,
        BELLWIRE_SEND_CONCURRENCY="20",
        BELLWIRE_WEBHOOK_TIMEOUT="5",
        BELLWIRE_TWILIO_TIMEOUT="5",
    ) as system:
        load, chance = Load(system), system.random
        for number in range(load.hooks):
            scripted = [
                WebhookResponse(status=503, behaviour=chance.choice(MISBEHAVIOUR))
                for _ in range(chance.randrange(1, 6))
            ]
            system.hooks.script(f"/load/{number}", *scripted)
        for number in range(load.texts):
            responses = (
                SmsResponse(never=True, accept=True),
                SmsResponse(reset=True),
                SmsResponse(status=504),
                SmsResponse(accept=True, reset=True),
            )
            system.twilio.script(f"+1415555{number:04}", *(chance.choice(responses) for _ in range(3)))
        for number in range(load.mails):
            system.mailbox.drop_after_data(f"u{number}@example.com", times=chance.randrange(4))
        await load.subscribe()
        scenario = Scenario("misbehaving receivers", load)
        await load.publish(singles=5, batch=10)
        rows = await scenario.settles(timeout=300)
        states = {state: sum(row.state is state for row in rows) for state in DeliveryState}
        events = len(load.events)
        assert states[DeliveryState.REJECTED] == events, "the address that is not allowed"
        assert states[DeliveryState.EXHAUSTED] == events, "the receiver that always responds 503"
        assert states[DeliveryState.DELIVERED] == load.expected - 2 * events
