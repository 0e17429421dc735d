"""Workflow definitions: deterministic code that imports bellwire, temporalio and the standard library, and does no I/O."""

from workflows.dispatch import Dispatch
from workflows.lookup import Lookup
from workflows.notify import Notify
from workflows.recall import Recall
from workflows.register_handlers import RegisterHandlers
from workflows.replay import Replay
from workflows.test_send import TestSend
from workflows.tick import Tick
from workflows.wait_for_event import WaitForEvent

WORKFLOWS = (Notify, Dispatch, Lookup, TestSend, Tick, WaitForEvent, Replay, RegisterHandlers, Recall)

__all__ = [
    "WORKFLOWS",
    "Dispatch",
    "Lookup",
    "Notify",
    "Recall",
    "RegisterHandlers",
    "Replay",
    "TestSend",
    "Tick",
    "WaitForEvent",
]
