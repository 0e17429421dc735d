"""What decides: deterministic workflow code. It imports bellwire, temporalio and the standard library, and never does I/O."""

from workflows.dispatch import Dispatch
from workflows.lookup import Locate
from workflows.notify import Notify
from workflows.test_send import Trial

WORKFLOWS = (Notify, Dispatch, Locate, Trial)

__all__ = ["WORKFLOWS", "Dispatch", "Locate", "Notify", "Trial"]
