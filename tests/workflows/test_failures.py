"""What a workflow shows of deliveries that failed, and of events that another workflow delivers."""

import asyncio
from typing import Any

import pytest
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.client import WorkflowExecutionStatus
from temporalio.testing import WorkflowEnvironment

from bellwire import Client, EventConflict, EventNotFound, Receipt, TenantUnknown
from bellwire.contract import FAILED, LOOKUP, MAX_FAILED, OUTCOME, PAGE_SIZE, UNSETTLED, Summary
from bellwire.deliveries import DeliveryState
from bellwire.targets import Channel
from tests.factories import event
from tests.workflows.platform import DELIVERED, REJECTED, FakePlatform, Response, deferred, retry_after
from tests.workflows.waiting import until, until_idle


async def attributes(client: Client, receipt: Receipt) -> tuple[int | None, str | None]:
    """BellwireFailed and BellwireOutcome."""
    found = (await client.temporal.get_workflow_handle(receipt.workflow_id).describe()).typed_search_attributes
    return found.get(FAILED), found.get(OUTCOME)


async def summary(client: Client, receipt: Receipt) -> Summary:
    handle = client.temporal.get_workflow_handle(receipt.workflow_id, result_type=Summary)
    result: Summary = await handle.result()
    return result


async def details(client: Client, receipt: Receipt) -> str:
    """Current Details, as the Temporal UI shows it."""
    handle = client.temporal.get_workflow_handle(receipt.workflow_id)
    metadata: WorkflowMetadata = await handle.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)
    return metadata.current_details


async def upserts(client: Client, receipt: Receipt) -> int:
    history = await client.temporal.get_workflow_handle(receipt.workflow_id).fetch_history()
    kind = "upsert_workflow_search_attributes_event_attributes"
    return sum(each.HasField(kind) for each in history.events)  # type: ignore[arg-type]


async def test_a_workflow_whose_deliveries_all_succeed_upserts_nothing(platform: FakePlatform, client: Client) -> None:
    platform.subscriptions = {Channel.WEBHOOK: ["a"], Channel.EMAIL: ["b"]}
    receipt = await client.publish(event())
    assert (await summary(client, receipt)).outcomes == ("delivered",)
    assert await upserts(client, receipt) == 0
    assert await details(client, receipt) == ""


async def test_deliveries_that_failed_are_in_result_attributes_details_and_status(
    platform: FakePlatform, client: Client
) -> None:
    platform.subscriptions = {Channel.WEBHOOK: ["a", "b", "c"]}
    responses: dict[str, Response] = {"a": DELIVERED, "b": REJECTED, "c": deferred(reason="HTTP 503")}
    platform.respond = lambda each, _: responses[each]
    one = event()
    receipt = await client.publish(one)
    async with platform.skipping():
        result = await summary(client, receipt)
    assert [(item.subscription_id, item.state, item.attempts, item.reason) for item in result.failed] == [
        ("b", DeliveryState.REJECTED, 1, "HTTP 200"),
        ("c", DeliveryState.EXHAUSTED, 10, "HTTP 503"),
    ]
    assert result.outcomes == ("delivered", "rejected", "exhausted")
    assert await attributes(client, receipt) == (2, "delivered rejected exhausted")
    shown = (await details(client, receipt)).splitlines()
    assert shown[0] == "2 deliveries failed"
    assert "| c | webhook | 10 | exhausted | HTTP 503 |" in shown
    assert (await client.status(one)).failed == result.failed


async def test_a_failure_is_visible_while_other_deliveries_wait(platform: FakePlatform, client: Client) -> None:
    platform.subscriptions = {Channel.WEBHOOK: ["a", "b"]}
    platform.respond = lambda each, _: REJECTED if each == "a" else retry_after(3600)
    receipt = await client.publish(event())
    await until(lambda: len(platform.attempts) == 2)
    await until_idle(client, receipt)
    assert await attributes(client, receipt) == (1, "rejected")
    shown = await details(client, receipt)
    assert "1 delivery unsettled" in shown
    assert "1 delivery failed" in shown
    await client.cancel(receipt)
    await client.wait(receipt, timeout=60)
    assert await attributes(client, receipt) == (1, "rejected cancelled")


async def test_failures_of_pages_are_in_the_result_of_the_whole(platform: FakePlatform, client: Client) -> None:
    ids = [f"s{number:04}" for number in range(PAGE_SIZE + 1)]
    platform.page_size = 600
    platform.subscriptions = {Channel.WEBHOOK: ids}
    platform.respond = lambda *_: REJECTED
    receipt = await client.publish(event())
    result = await summary(client, receipt)
    (counts,) = result.counts.values()
    assert (counts.rejected, counts.failed, len(result.failed)) == (len(ids), len(ids), MAX_FAILED)
    assert await attributes(client, receipt) == (len(ids), "rejected")
    page = receipt.model_copy(update={"workflow_id": f"{receipt.workflow_id}#page-1"})
    assert await attributes(client, page) == (600, "rejected")


async def test_a_conflict_in_a_publication_of_many_is_visible(platform: FakePlatform, client: Client) -> None:
    platform.subscriptions = {Channel.WEBHOOK: ["a"]}
    one, two = event(), event()
    await client.wait_many(await client.publish_many([one, two]), timeout=60)
    changed = event(id=one.id, data={"changed": True})
    first, second, third = await client.publish_many([changed, two, event()])
    result = await summary(client, first)
    assert result.outcomes == ("delivered", "conflict", "duplicate")
    assert [each.result for each in result.events.values()] == ["conflict", "duplicate", "owned"]
    assert await attributes(client, first) == (None, "delivered conflict duplicate")
    with pytest.raises(EventConflict):
        await client.wait(first, timeout=60)
    assert (await client.wait(second, timeout=60)).counts.delivered == 1
    assert (await client.wait(third, timeout=60)).counts.delivered == 1


async def test_attributes_of_a_run_that_continued_as_new_end_with_the_truth(dev_server: WorkflowEnvironment) -> None:
    """The next run settles all at once, and must still bring BellwireUnsettled to 0."""
    platform, client = FakePlatform(dev_server), Client(dev_server.client)
    platform.subscriptions = {Channel.WEBHOOK: ["a", "b"]}
    platform.respond = lambda each, attempt: REJECTED if each == "b" else deferred(0.2) if attempt < 3 else DELIVERED
    async with platform.running():
        receipt = await client.publish(event())
        assert (await client.wait(receipt, timeout=60)).counts.rejected == 1
        found = (await client.temporal.get_workflow_handle(receipt.workflow_id).describe()).typed_search_attributes
        assert (found.get(UNSETTLED), found.get(FAILED), found.get(OUTCOME)) == (0, 1, "delivered rejected")


async def test_operators_find_failures_conflicts_and_successes_by_query(dev_server: WorkflowEnvironment) -> None:
    platform, client = FakePlatform(dev_server), Client(dev_server.client)
    platform.subscriptions = {Channel.WEBHOOK: ["a"]}
    type_ = f"query.{event().id}"
    async with platform.running():
        delivered = await client.publish(event(type=type_))
        await client.wait(delivered, timeout=60)
        platform.respond = lambda *_: REJECTED
        one = event(type=type_)
        rejected = await client.publish(one)
        await client.wait(rejected, timeout=60)
        changed, fresh = event(id=one.id, type=type_, data="changed"), event(type=type_)
        platform.respond = lambda *_: DELIVERED
        conflicting = (await client.publish_many([changed, fresh]))[0]
        await client.wait(fresh_of(conflicting, fresh.id), timeout=60)

        async def found(query: str) -> set[str]:
            full = f"BellwireEventType = '{type_}' AND {query}"
            return {each.id async for each in client.temporal.list_workflows(full)}

        async with asyncio.timeout(30):
            while len(await found("ExecutionStatus = 'Completed'")) < 3:
                await asyncio.sleep(0.1)
        assert await found("BellwireFailed > 0") == {rejected.workflow_id}
        assert await found("BellwireOutcome = 'rejected'") == {rejected.workflow_id}
        assert await found("BellwireOutcome = 'conflict'") == {conflicting.workflow_id}
        everything = await found("ExecutionStatus = 'Completed' AND BellwireOutcome IS NULL")
        assert everything == {delivered.workflow_id}


def fresh_of(receipt: Receipt, event_id: str) -> Receipt:
    return receipt.model_copy(update={"event_id": event_id})


async def test_a_question_for_an_unknown_event_fails_no_workflow(dev_server: WorkflowEnvironment) -> None:
    platform, client = FakePlatform(dev_server), Client(dev_server.client)
    async with platform.running():
        with pytest.raises(EventNotFound, match=r"no event .* of .* is known"):
            await client.status(("/unknown", event().id))

        async def lookups() -> list[Any]:
            return [each async for each in client.temporal.list_workflows(f"WorkflowType = '{LOOKUP}'")]

        async with asyncio.timeout(30):
            while not (found := await lookups()) or WorkflowExecutionStatus.RUNNING in {each.status for each in found}:
                await asyncio.sleep(0.1)
        assert {each.status for each in found} == {WorkflowExecutionStatus.COMPLETED}


async def test_a_refused_event_is_named_by_its_status(platform: FakePlatform, client: Client) -> None:
    platform.subscriptions = {Channel.WEBHOOK: ["a"]}
    platform.unknown_tenants, platform.refuse = {"acmee"}, True
    refused, other = event(tenant="acmee"), event()
    receipts = await client.publish_many([refused, other])
    async with platform.skipping():
        assert (await client.wait(receipts[1])).counts.delivered == 1
        with pytest.raises(TenantUnknown):
            await client.wait(receipts[0])
    result = await client.temporal.get_workflow_handle(receipts[0].workflow_id, result_type=Summary).result()
    assert "refused" in result.outcomes


async def test_an_event_for_an_unknown_tenant_says_so_in_its_status(platform: FakePlatform, client: Client) -> None:
    platform.unknown_tenants = {"acmee"}
    receipt = await client.publish(event(tenant="acmee"))
    async with platform.skipping():
        assert (await client.wait(receipt)).unknown_tenant
    assert not (await client.status(await client.publish(event()))).unknown_tenant
