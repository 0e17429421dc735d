"""`Prefer: wait=N` (RFC 7240 §4.3): a client that would rather wait for the outcome."""

import re

from starter.gateway.api.problems import refused

#: Seconds that a client may wait.
MAX_WAIT = 60
FIELD = "Prefer"

#: The preference, and what it is set to. Other preferences are ignored, as the RFC demands.
_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*(?:=([^,;]*))?(?=$|[,;])", re.IGNORECASE)
_SECONDS = re.compile(r'"?([0-9]{1,9})"?')


def seconds_to_wait(prefer: str | None) -> int:
    """0 without the preference. Raises ApiProblem if it is not a number of seconds up to MAX_WAIT."""
    found = _WAIT.search(prefer or "")
    if found is None:
        return 0
    seconds = _SECONDS.fullmatch((found[1] or "").strip())
    if seconds is None:
        raise refused(FIELD, "wait is not a number of seconds", remedy="send wait=30, for example")
    if int(seconds[1]) > MAX_WAIT:
        raise refused(FIELD, f"wait is more than {MAX_WAIT} s", remedy="wait less, then poll the event")
    return int(seconds[1])
