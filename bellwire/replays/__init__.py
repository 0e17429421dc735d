"""Replays: what is sent to a subscription from the past, and how that is started."""

from bellwire.replays.replay import (
    DEFAULT_RATE,
    MAX_RATE,
    MIN_RATE,
    OVERLAP,
    Replay,
    ReplayKind,
    ReplayState,
    new_replay_id,
    replay_since,
)

__all__ = [
    "DEFAULT_RATE",
    "MAX_RATE",
    "MIN_RATE",
    "OVERLAP",
    "Replay",
    "ReplayKind",
    "ReplayState",
    "new_replay_id",
    "replay_since",
]
