"""Runs a channel's send activity on a real registry."""

from typing import Any

from temporalio.testing import ActivityEnvironment

from activities.sending.channel_sender import ChannelSender
from bellwire.contract import Chunk
from bellwire.registry import Registry
from bellwire.targets import Channel


async def send_chunk(channel: Channel, sending: Any, registry: Registry, chunk: Chunk) -> Any:
    """The result of the activity, with the `attempt` of `sending`."""
    sender = ChannelSender(channel, sending.attempt, registry, concurrency=5)
    return await ActivityEnvironment().run(sender.send, chunk)
