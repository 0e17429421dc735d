"""Workflow ids, and the digest of a publication. No two different things have the same id, whatever their parts contain."""

import hashlib
from collections.abc import Sequence
from urllib.parse import quote

from bellwire.contract.payloads import Group
from bellwire.deliveries import delivery_id
from bellwire.events import Event, event_key, uuid7

_BATCH_PREFIX = "events/"
#: Starts the ids of workflows that redeliver.
REDELIVERY_PREFIX = "redeliver/"


def event_workflow_id(source: str, event_id: str) -> str:
    """The id of the Notify of an event that was published alone: event/<source>/<id>.

    Equal for: the same (source, id), published any number of times. Different for: ("a", "b/c") and ("a/b", "c"), so a slash
    in the id is escaped. A pair that is too long to read is hashed; Temporal's limit is 1,000 characters.
    """
    escaped = quote(event_id, safe=":@!$&'()*+,;=")
    readable = f"event/{source}/{escaped}"
    return readable if len(readable) <= 400 else f"event/{event_key(source, event_id)}"


def batch_workflow_id(events: Sequence[Event]) -> str:
    """The id of the Notify of several events: the same events in the same order have the same id."""
    keys = "\n".join(event.key for event in events)
    return f"{_BATCH_PREFIX}{hashlib.sha256(keys.encode()).hexdigest()[:32]}"


def is_batch(workflow_id: str) -> bool:
    """Whether a workflow id belongs to a publication of several events."""
    return workflow_id.startswith(_BATCH_PREFIX)


def publication_digest(events: Sequence[Event]) -> str:
    """A hash of the content of a publication."""
    return hashlib.sha256("\n".join(event.digest for event in events).encode()).hexdigest()


def child_workflow_id(parent: str, name: str) -> str:
    """The id of a child that delivers a part of its parent's events: event//shop/42#page-1.

    No published event has it: a # is escaped in the id of an event, which is the part behind the last slash.
    """
    return f"{parent}#{name}"


def redelivery_workflow_id(key: str, subscription_id: str, attempt: int) -> str:
    """The id of the Dispatch that redelivers from this attempt on: two requests for the same redelivery start one."""
    return f"{REDELIVERY_PREFIX}{delivery_id(key, subscription_id)}/{attempt}"


def replay_workflow_id(replay_id: str) -> str:
    """The id of a Replay."""
    return f"replay/{replay_id}"


def replay_batch_workflow_id(replay_id: str, number: int) -> str:
    """The id of the Dispatch that sends a batch of a replay."""
    return f"{replay_batches_prefix(replay_id)}{number}"


def replay_batches_prefix(replay_id: str) -> str:
    """Starts the ids of all batches of a replay."""
    return f"{REDELIVERY_PREFIX}{replay_id}/"


def bulk_redelivery_workflow_id(groups: Sequence[Group]) -> str:
    """The id of the Dispatch that redelivers many deliveries: two requests for the same ones, while it runs, start one."""
    text = "\n".join(group.model_dump_json() for group in groups)
    return f"redeliver/many/{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def new_lookup_id() -> str:
    """The id of a new Lookup."""
    return f"lookup/{uuid7()}"


def new_registration_id(service: str) -> str:
    """The id of a new RegisterHandlers."""
    return f"handlers/{service}/{uuid7()}"


def new_test_send_id(subscription_id: str) -> str:
    """The id of a new TestSend."""
    return f"test-send/{subscription_id}/{uuid7()}"


def recall_workflow_id(key: str, subscription_id: str | None) -> str:
    """The id of the Recall of an event, from all subscriptions or from one: two requests, while it runs, start one."""
    return f"recall/{key}" if subscription_id is None else f"recall/{key}/{subscription_id}"


def wait_workflow_id(key: str, request_id: str) -> str:
    """The id of the WaitForEvent of one Nexus request: all tries of the request start one."""
    return f"wait/{key}/{request_id}"
