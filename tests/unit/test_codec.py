"""Codec: Temporal gets nothing readable, and payloads from before the keys can still be read."""

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

#: With the longest id that a key may have.
KEYS = new_entry("k" * 32)
PRIVATE = "ann@example.com"
#: The longest label that Bellwire writes.
LABEL = (PRIVATE * 20)[:200]
QUEUE = "codec"


@activity.defn
async def heartbeat(_: str) -> str:
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
    """Sends private data in every way that a workflow has."""

    def __init__(self) -> None:
        self._received: list[str] = []

    @workflow.run
    async def run(self, given: str) -> str:
        soon = timedelta(seconds=10)
        workflow.set_current_details(PRIVATE)
        workflow.upsert_memo({"more": PRIVATE})
        await workflow.execute_activity(heartbeat, given, start_to_close_timeout=soon, summary=LABEL)
        await workflow.execute_local_activity(heartbeat, given, start_to_close_timeout=soon, summary=LABEL)
        await workflow.execute_child_workflow(
            Child.run, given, id=f"{workflow.info().workflow_id}/child", static_summary=LABEL, static_details=PRIVATE
        )
        await workflow.sleep(0.001, summary=LABEL)
        await workflow.wait_condition(lambda: len(self._received) == 2, timeout=60, timeout_summary=LABEL)
        for run in (workflow.execute_activity, workflow.execute_local_activity):
            try:
                await run(fail, given, start_to_close_timeout=soon)
            except ActivityError as error:
                self._received.append(str(error.cause))
        assert sum(PRIVATE in text for text in self._received) == 4
        raise ApplicationError(PRIVATE, PRIVATE, type="Done")

    @workflow.signal
    def add(self, text: str) -> None:
        self._received.append(text)

    @workflow.update
    def change(self, text: str) -> str:
        self._received.append(text)
        return text

    @workflow.query
    def private(self) -> str:
        return PRIVATE


async def connected(env: WorkflowEnvironment, keys: KeyRing | str | None = KEYS, **overrides: Any) -> Temporal:
    address = env.client.service_client.config.target_host
    return await connect(keys=keys, target_host=address, tls=False, api_key=None, **overrides)


def worker_of(client: Temporal, queue: str = QUEUE) -> Worker:
    return Worker(
        client,
        task_queue=queue,
        workflows=[Everything, Child],
        activities=[heartbeat, fail],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )


async def stored(client: Temporal, workflow_id: str) -> bytes:
    """A workflow as Temporal stores it."""
    handle = client.get_workflow_handle(workflow_id)
    history: WorkflowHistory = await handle.fetch_history()
    description = (await handle.describe()).raw_description
    return description.SerializeToString() + b"".join(each.SerializeToString() for each in history.events)


@pytest.mark.parametrize("keys", [None, KEYS], ids=["without keys everything is readable", "with keys nothing is"])
async def test_temporal_gets_nothing_readable(dev_server: WorkflowEnvironment, keys: str | None) -> None:
    client, workflow_id = await connected(dev_server, keys), f"codec/{uuid7()}"
    async with worker_of(client):
        handle = await client.start_workflow(
            Everything.run,
            PRIVATE,
            id=workflow_id,
            task_queue=QUEUE,
            memo={"who": PRIVATE},
            static_summary=LABEL,
            static_details=PRIVATE,
        )
        assert await handle.execute_update(Everything.change, PRIVATE) == PRIVATE
        assert await handle.query(Everything.private) == PRIVATE
        await handle.signal(Everything.add, PRIVATE)
        async with asyncio.timeout(60):
            with pytest.raises(WorkflowFailureError) as failed:
                await handle.result()
        assert PRIVATE in str(failed.value.cause)
        description = await handle.describe()
        assert await description.memo_value("who") == await description.memo_value("more") == PRIVATE
        assert await description.static_summary() == LABEL
        assert await description.static_details() == PRIVATE
    both = await stored(client, workflow_id) + await stored(client, f"{workflow_id}/child")
    if keys is None:
        # Input, update, signal, memos, activities and their failures, labels.
        assert both.count(PRIVATE.encode()) > 50
    else:
        assert PRIVATE.encode() not in both
        assert both.count(ENCODING) > 30


async def test_query_results_are_encrypted(dev_server: WorkflowEnvironment) -> None:
    client, workflow_id = await connected(dev_server), f"codec/{uuid7()}"
    async with worker_of(client):
        handle = await client.start_workflow(Everything.run, PRIVATE, id=workflow_id, task_queue=QUEUE)
        assert await handle.query(Everything.private) == PRIVATE
        with pytest.raises(NotReadable, match=r"encrypted with key 'k+', but no keys are configured.*keys="):
            await (await connected(dev_server, None)).get_workflow_handle(workflow_id).query(Everything.private)
        with pytest.raises(NotReadable, match=r"encrypted with key 'k+', which is not among other"):
            await (
                (await connected(dev_server, new_entry("other")))
                .get_workflow_handle(workflow_id)
                .query(Everything.private)
            )
        await handle.terminate()


async def test_a_workflow_from_before_the_keys_continues_with_them(dev_server: WorkflowEnvironment) -> None:
    before, workflow_id = await connected(dev_server, None), f"codec/{uuid7()}"
    async with worker_of(before, "before"):
        handle = await before.start_workflow(Everything.run, PRIVATE, id=workflow_id, task_queue="before")
        assert await handle.execute_update(Everything.change, PRIVATE) == PRIVATE
    async with worker_of(await connected(dev_server), "before"):
        # A publisher without keys can still send signals.
        await handle.signal(Everything.add, PRIVATE)
        encrypted = (await connected(dev_server)).get_workflow_handle(workflow_id)
        async with asyncio.timeout(60):
            with pytest.raises(WorkflowFailureError) as failed:
                await encrypted.result()
    assert PRIVATE in str(failed.value.cause)


async def test_a_worker_without_the_key_names_it_and_the_workflow_waits(
    dev_server: WorkflowEnvironment, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = new_entry("old"), new_entry("new")
    client, workflow_id = await connected(dev_server, old), f"codec/{uuid7()}"
    handle = await client.start_workflow(Child.run, PRIVATE, id=workflow_id, task_queue="waiting")
    async with worker_of(await connected(dev_server, new), "waiting"), asyncio.timeout(60):
        while "key 'old', which is not among new" not in caplog.text:
            await asyncio.sleep(0.05)
    async with worker_of(await connected(dev_server, f"{new},{old}"), "waiting"), asyncio.timeout(60):
        with pytest.raises(NotReadable):
            await handle.result()  # encrypted with the new key
    assert await (await connected(dev_server, new)).get_workflow_handle(workflow_id).result() == PRIVATE


async def test_plain_payloads_are_decoded_as_they_are() -> None:
    payload = Payload(metadata={"encoding": b"json/plain"}, data=b'"ann"')
    codec = Codec(KeyRing.parse(KEYS))
    (encrypted,) = await codec.encode([payload])
    assert encrypted.metadata["encoding"] == ENCODING
    assert encrypted.metadata[KEY_ID] == b"k" * 32
    assert b"ann" not in encrypted.SerializeToString()
    assert await codec.decode([payload, encrypted]) == [payload, payload]


async def test_a_changed_payload_is_refused() -> None:
    codec = Codec(KeyRing.parse(KEYS))
    (encrypted,) = await codec.encode([Payload(data=b"ann")])
    for changed in (
        Payload(metadata=encrypted.metadata, data=encrypted.data[:-1] + bytes([encrypted.data[-1] ^ 1])),
        Payload(metadata=encrypted.metadata),
        Payload(metadata={"encoding": ENCODING}, data=encrypted.data),
    ):
        with pytest.raises(NotReadable):
            await codec.decode([changed])


@pytest.mark.parametrize("keys", [None, KEYS], ids=["without keys", "with keys"])
async def test_errors_of_invalid_payloads_name_fields_only(keys: str | None) -> None:
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


async def test_validators_are_cached_across_workflow_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run has its own converter, and building a validator costs more than validating a value."""
    converter = data_converter(None)
    (payload,) = converter.payload_converter_class().to_payloads([NotifyInput(events=(event(),))])
    converter.payload_converter_class().from_payloads([payload], [NotifyInput])

    def built(*_: object, **__: object) -> None:
        raise AssertionError("a validator was built again")

    monkeypatch.setattr("pydantic.TypeAdapter.__init__", built)
    (restored,) = converter.payload_converter_class().from_payloads([payload], [NotifyInput])
    assert isinstance(restored, NotifyInput)


async def test_keys_and_a_data_converter_exclude_each_other(dev_server: WorkflowEnvironment) -> None:
    own = data_converter(None)
    with pytest.raises(KeysInvalid, match="keys and data_converter"):
        await connected(dev_server, KEYS, data_converter=own)
    client = await connected(dev_server, None, data_converter=own)
    assert client.data_converter is own
