"""`since` of a new subscription: from when on it also gets what has happened already."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import structlog

from bellwire.client import Client
from bellwire.errors import TemporalUnavailable
from bellwire.formats.durations import is_duration, parse_duration
from bellwire.formats.timestamps import parse_timestamp
from bellwire.replays import Replay
from bellwire.replays.workflows import start_replay
from starter.operations.problems import InputInvalid

log = structlog.get_logger("bellwire")


def read_past(value: object, *, field: str, now: datetime | None = None) -> datetime:
    """The time that is so long ago (1h), or the RFC 3339 time itself. Raises InputInvalid, which names the field."""
    now = now or datetime.now(UTC)
    if not isinstance(value, str):
        raise InputInvalid("must be a text: how long ago, such as 1h, or an RFC 3339 time", field=field)
    try:
        if is_duration(value):
            return now - timedelta(seconds=parse_duration(value))
        time = parse_timestamp(value.strip()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InputInvalid(
            f"{value[:40]!r} is neither a duration nor an RFC 3339 time",
            field=field,
            remedy="write how long ago, such as 1h, or a time such as 2026-11-29T08:00:00Z",
        ) from None
    if time > now:
        raise InputInvalid("is in the future", field=field, remedy="give a time in the past, or omit it")
    return time


async def start_stored(client: Client, replays: Iterable[Replay]) -> None:
    """Start replays that were stored. If Temporal cannot be reached, a worker starts them once it can."""
    for replay in replays:
        try:
            await start_replay(client.temporal, replay)
        except TemporalUnavailable as error:
            log.warning("replay.start_delayed", replay=replay.id, error=type(error).__name__)
            return
