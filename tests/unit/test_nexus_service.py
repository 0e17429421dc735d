"""The inputs of the Nexus service."""

import pytest
from pydantic import ValidationError

from bellwire.nexus import WaitInput
from bellwire.nexus.service import MAX_WAIT


@pytest.mark.parametrize("timeout", [float("nan"), float("inf"), 1e15, -1.0, MAX_WAIT + 1])
def test_a_wait_without_an_end_is_refused(timeout: float) -> None:
    with pytest.raises(ValidationError, match="timeout"):
        WaitInput(source="/shop", event_id="1", timeout=timeout)


@pytest.mark.parametrize("timeout", [None, 0.0, MAX_WAIT])
def test_a_wait_may_be_long(timeout: float | None) -> None:
    assert WaitInput(source="/shop", event_id="1", timeout=timeout).timeout == timeout
