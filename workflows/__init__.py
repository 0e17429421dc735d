"""What decides: deterministic workflow code. It imports bellwire, temporalio and the standard library, and never does I/O."""

from workflows.dispatch import Dispatch
from workflows.locate import Locate
from workflows.notify import Notify

WORKFLOWS = (Notify, Dispatch, Locate)

__all__ = ["WORKFLOWS", "Dispatch", "Locate", "Notify"]
