"""Poll targets: the feed of a subscription, which an app reads itself because nothing can connect to it."""

from types import MappingProxyType
from typing import Literal

from bellwire.targets.channel import Channel, ChannelSpec, ChannelTarget


class PollTarget(ChannelTarget):
    """It has no address: the app reads `GET /v1/subscriptions/{id}/poll`."""

    channel: Literal[Channel.POLL] = Channel.POLL

    @property
    def address(self) -> str:
        return "its feed"

    @property
    def is_rendered(self) -> bool:
        return False


POLL = ChannelSpec(
    channel=Channel.POLL,
    example=PollTarget(),
    templates=MappingProxyType({}),
    # Putting an event into the feed needs the registry only. If that is down, the activity is retried, and no attempt counted.
    schedule=(60.0, 300.0, 1800.0),
    inline=True,
)
