"""Recalls: a provider that is busy is asked again for a while."""

from bellwire import Client
from bellwire.contract import QUEUE, RECALL, RecallInput, RecallOutput, RecallResult
from bellwire.events import uuid7
from bellwire.targets import Channel
from tests.workflows.platform import FakePlatform
from workflows.policies import RECALL_DELAYS

NAMES = ("a", "b", "c")


async def recall(client: Client) -> RecallOutput:
    request = RecallInput(event_key="a" * 26, channel=Channel.SLACK, subscription_ids=NAMES)
    output: RecallOutput = await client.temporal.execute_workflow(
        RECALL, request, id=f"recall/{uuid7()}", task_queue=QUEUE, result_type=RecallOutput
    )
    return output


async def test_a_busy_provider_is_asked_again(platform: FakePlatform, client: Client) -> None:
    platform.busy_recalls = len(RECALL_DELAYS)
    found = {each.subscription_id: each.result for each in (await recall(client)).deliveries}
    assert found == dict.fromkeys(NAMES, RecallResult.TAKEN_BACK)


async def test_a_provider_that_stays_busy_is_asked_a_few_times_only(platform: FakePlatform, client: Client) -> None:
    platform.busy_recalls = 1_000
    found = {each.subscription_id: each.result for each in (await recall(client)).deliveries}
    assert found == dict.fromkeys(NAMES, RecallResult.BUSY)
    assert platform.busy_recalls == 1_000 - 1 - len(RECALL_DELAYS)
