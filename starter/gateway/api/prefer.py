"""`Prefer: wait=N` (RFC 7240 §4.3): a client that would rather wait for the outcome."""

import re

from starter.gateway.api.problems import ApiProblem, ProblemType
from starter.operations.problems import Problem

#: Seconds that a client may wait.
MAX_WAIT = 60

_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?([0-9]{1,9})\"?\s*(?=$|[,;])", re.IGNORECASE)


def seconds_to_wait(prefer: str | None) -> int:
    """0 without the preference. Raises ApiProblem if it is more than MAX_WAIT."""
    found = _WAIT.search(prefer or "")
    if found is None:
        return 0
    if int(found[1]) > MAX_WAIT:
        problem = Problem(
            message=f"is more than {MAX_WAIT} s", field="Prefer: wait", remedy="wait less, then poll the event"
        )
        raise ApiProblem(ProblemType.INVALID, str(problem), errors=[problem])
    return int(found[1])
