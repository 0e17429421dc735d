"""Options whose value may be omitted, which typer does not have."""

import re
from collections.abc import Sequence

#: Seconds that a bare --wait waits.
DEFAULT_WAIT = 60
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")


def with_seconds(arguments: Sequence[str]) -> list[str]:
    """The arguments, with a value for a bare --wait."""
    completed = []
    for position, argument in enumerate(arguments):
        following = arguments[position + 1] if position + 1 < len(arguments) else ""
        bare = argument == "--wait" and not _NUMBER.fullmatch(following)
        completed.append(f"--wait={DEFAULT_WAIT}" if bare else argument)
    return completed
