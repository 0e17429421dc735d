"""The codec: Temporal gets nothing that can be read, and what was there before the keys still can be."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload
from temporalio.client import Client as Temporal
from temporalio.client import WorkflowFailureError, WorkflowHistory
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from bellwire import KeyRing, KeysInvalid, NotReadable
from bellwire.contract import NotifyInput
from bellwire.events import uuid7
from bellwire.keys.keyring import new_entry
from bellwire.temporal.codec import (
    ENCODING,
    KEY_ID,
    Codec,
    PayloadInvalid,
    data_converter,
)
from bellwire.temporal.connection import connect
from tests.factories import event

#: The longest id that a key may have.
KEYS = new_entry("k" * 32)
PRIVATE = "ann@example.com"
#: The longest label that Bellwire makes.
LABEL = (PRIVATE * 20)[:200]
QUEUE = "codec"


@activity.defn
async def tell(_: str) -> str:
    activity.heartbeat(PRIVATE)
    return PRIVATE


@activity.defn
async def fail(_: str) -> None:
    raise ApplicationError(f"no such user: {PRIVATE}", PRIVATE, type="Unknown", non_retryable=True)


@workflow.defn
class Child:
    @workflow.run
    async def run(self, given: str) -> str:
        return given


@workflow.defn
class Everything:
    """Says something private in every way that a workflow has."""

    def __init__(self) -> None:
        self._told: list[str] = []

    @workflow.run
    async def run(self, given: str) -> str:
        soon = timedelta(seconds=10)
        workflow.set_current_details(PRIVATE)
        workflow.upsert_memo({"more": PRIVATE})
        await workflow.execute_activity(tell, given, start_to_close_timeout=soon, summary=LABEL)
        await workflow.execute_local_activity(tell, given, start_to_close_timeout=soon, summary=LABEL)
        await workflow.execute_child_workflow(
            Child.run, given, id=f"{workflow.info().workflow_id}/child", static_summary=LABEL, static_details=PRIVATE
        )
        await workflow.sleep(0.001, summary=LABEL)
        await workflow.wait_condition(lambda: len(self._told) == 2, timeout=60, timeout_summary=LABEL)
        for run in (workflow.execute_activity, workflow.execute_local_activity):
            try:
                await run(fail, given, start_to_close_timeout=soon)
            except ActivityError as error:
                self._told.append(str(error.cause))
        assert sum(PRIVATE in text for text in self._told) == 4
        raise ApplicationError(PRIVATE, PRIVATE, type="Done")

    @workflow.signal
    def hear(self, text: str) -> None:
        self._told.append(text)

    @workflow.update
    def change(self, text: str) -> str:
        self._told.append(text)
        return text

    @workflow.query
    def told(self) -> str:
        return PRIVATE


async def keyed(env: WorkflowEnvironment, keys: KeyRing | str | None = KEYS, **overrides: Any) -> Temporal:
    address = env.client.service_client.config.target_host
    return await connect(keys=keys, target_host=address, tls=False, api_key=None, **overrides)


def working(client: Temporal, queue: str = QUEUE) -> Worker:
    return Worker(
        client,
        task_queue=queue,
        workflows=[Everything, Child],
        activities=[tell, fail],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )


async def written(client: Temporal, run: str) -> bytes:
    """A run as Temporal has it."""
    handle = client.get_workflow_handle(run)
    history: WorkflowHistory = await handle.fetch_history()
    description = (await handle.describe()).raw_description
    return description.SerializeToString() + b"".join(each.SerializeToString() for each in history.events)


@pytest.mark.parametrize("keys", [None, KEYS], ids=["without keys it is all there", "with keys nothing is"])
async def test_temporal_gets_nothing_to_read(dev_server: WorkflowEnvironment, keys: str | None) -> None:
    client, run = await keyed(dev_server, keys), f"codec/{uuid7()}"
    async with working(client):
        handle = await client.start_workflow(
            Everything.run,
            PRIVATE,
            id=run,
            task_queue=QUEUE,
            memo={"who": PRIVATE},
            static_summary=LABEL,
            static_details=PRIVATE,
        )
        assert await handle.execute_update(Everything.change, PRIVATE) == PRIVATE
        assert await handle.query(Everything.told) == PRIVATE
        await handle.signal(Everything.hear, PRIVATE)
        async with asyncio.timeout(60):
            with pytest.raises(WorkflowFailureError) as failed:
                await handle.result()
        assert PRIVATE in str(failed.value.cause)
        description = await handle.describe()
        assert await description.memo_value("who") == await description.memo_value("more") == PRIVATE
        assert await description.static_summary() == LABEL
        assert await description.static_details() == PRIVATE
    both = await written(client, run) + await written(client, f"{run}/child")
    if keys is None:
        # Input, update, signal, memos, activities and their failures, labels.
        assert both.count(PRIVATE.encode()) > 50
    else:
        assert PRIVATE.encode() not in both
        assert both.count(ENCODING) > 30


async def test_what_is_queried_is_encrypted_on_its_way(dev_server: WorkflowEnvironment) -> None:
    client, run = await keyed(dev_server), f"codec/{uuid7()}"
    async with working(client):
        handle = await client.start_workflow(Everything.run, PRIVATE, id=run, task_queue=QUEUE)
        assert await handle.query(Everything.told) == PRIVATE
        with pytest.raises(NotReadable, match=r"encrypted with key 'k+', and there are none here.*keys="):
            await (await keyed(dev_server, None)).get_workflow_handle(run).query(Everything.told)
        with pytest.raises(NotReadable, match=r"encrypted with key 'k+', which is not among other"):
            await (await keyed(dev_server, new_entry("other"))).get_workflow_handle(run).query(Everything.told)
        await handle.terminate()


async def test_a_run_from_before_the_keys_goes_on_with_them(dev_server: WorkflowEnvironment) -> None:
    before, run = await keyed(dev_server, None), f"codec/{uuid7()}"
    async with working(before, "before"):
        handle = await before.start_workflow(Everything.run, PRIVATE, id=run, task_queue="before")
        assert await handle.execute_update(Everything.change, PRIVATE) == PRIVATE
    async with working(await keyed(dev_server), "before"):
        # A publisher that has no keys yet can still tell it something.
        await handle.signal(Everything.hear, PRIVATE)
        ours = (await keyed(dev_server)).get_workflow_handle(run)
        async with asyncio.timeout(60):
            with pytest.raises(WorkflowFailureError) as failed:
                await ours.result()
    assert PRIVATE in str(failed.value.cause)


async def test_a_worker_without_the_key_leaves_the_run_waiting_and_names_the_key(
    dev_server: WorkflowEnvironment, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = new_entry("old"), new_entry("new")
    client, run = await keyed(dev_server, old), f"codec/{uuid7()}"
    handle = await client.start_workflow(Child.run, PRIVATE, id=run, task_queue="waiting")
    async with working(await keyed(dev_server, new), "waiting"), asyncio.timeout(60):
        while "key 'old', which is not among new" not in caplog.text:
            await asyncio.sleep(0.05)
    async with working(await keyed(dev_server, f"{new},{old}"), "waiting"), asyncio.timeout(60):
        with pytest.raises(NotReadable):
            await handle.result()  # which the new key encrypted
    assert await (await keyed(dev_server, new)).get_workflow_handle(run).result() == PRIVATE


async def test_payloads_in_the_clear_pass_as_they_are() -> None:
    payload = Payload(metadata={"encoding": b"json/plain"}, data=b'"ann"')
    codec = Codec(KeyRing.parse(KEYS))
    (encrypted,) = await codec.encode([payload])
    assert encrypted.metadata["encoding"] == ENCODING
    assert encrypted.metadata[KEY_ID] == b"k" * 32
    assert b"ann" not in encrypted.SerializeToString()
    assert await codec.decode([payload, encrypted]) == [payload, payload]


async def test_an_encrypted_payload_that_was_changed_is_refused() -> None:
    codec = Codec(KeyRing.parse(KEYS))
    (encrypted,) = await codec.encode([Payload(data=b"ann")])
    for spoilt in (
        Payload(metadata=encrypted.metadata, data=encrypted.data[:-1] + bytes([encrypted.data[-1] ^ 1])),
        Payload(metadata=encrypted.metadata),
        Payload(metadata={"encoding": ENCODING}, data=encrypted.data),
    ):
        with pytest.raises(NotReadable):
            await codec.decode([spoilt])


@pytest.mark.parametrize("keys", [None, KEYS], ids=["without keys", "with keys"])
async def test_a_payload_that_does_not_fit_is_told_by_its_fields_alone(keys: str | None) -> None:
    converter = data_converter(KeyRing.parse(keys) if keys else None)
    payloads = await converter.encode([{"events": [{"id": PRIVATE}, PRIVATE]}])
    with pytest.raises(PayloadInvalid) as refused:
        await converter.decode(payloads, [NotifyInput])
    assert PRIVATE not in str(refused.value)
    assert "NotifyInput: events.0.source: missing" in str(refused.value)
    assert refused.value.__cause__ is None
    good = await converter.encode([NotifyInput(events=(event(),))])
    (decoded,) = await converter.decode(good, [NotifyInput])
    assert isinstance(decoded, NotifyInput)


async def test_what_was_found_out_about_a_type_serves_all_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run has a converter of its own, and building what reads a type costs more than reading a value of it."""
    converter = data_converter(None)
    (payload,) = converter.payload_converter_class().to_payloads([NotifyInput(events=(event(),))])
    converter.payload_converter_class().from_payloads([payload], [NotifyInput])

    def built(*_: object, **__: object) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr("pydantic.TypeAdapter.__init__", built)
    (restored,) = converter.payload_converter_class().from_payloads([payload], [NotifyInput])
    assert isinstance(restored, NotifyInput)


async def test_keys_and_a_converter_that_would_ignore_them_do_not_go_together(dev_server: WorkflowEnvironment) -> None:
    own = data_converter(None)
    with pytest.raises(KeysInvalid, match="keys and data_converter"):
        await keyed(dev_server, KEYS, data_converter=own)
    client = await keyed(dev_server, None, data_converter=own)
    assert client.data_converter is own
