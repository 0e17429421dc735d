"""Numbers in requests are numbers of JSON."""

from typing import Any

import pytest

from bellwire.errors import SubscriptionInvalid
from starter.gateway.api.resources.api_keys import RotationInput


@pytest.mark.parametrize("value", [5, 5.0])
def test_a_whole_number_is_taken_in_either_form(value: float) -> None:
    assert RotationInput(overlap=value).overlap == 5


@pytest.mark.parametrize("value", [True, "5", 0.5, None])
def test_what_is_no_whole_number_is_refused(value: Any) -> None:
    with pytest.raises(SubscriptionInvalid, match="overlap"):
        RotationInput(overlap=value)
