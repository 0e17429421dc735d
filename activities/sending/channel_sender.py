"""ChannelSender: everything that sends over one channel, around the one function that the channel provides."""

from collections.abc import Awaitable, Callable
from typing import Any

from temporalio import activity

from activities.sending.attempt import ChannelAttempt
from activities.sending.in_flight import InFlightAttempts
from activities.sending.loop import ChunkRun
from activities.sending.recalls import ChannelRecall, Recalls
from activities.sending.turns import Turns
from bellwire.contract import Chunk, ChunkResult
from bellwire.registry import Registry
from bellwire.targets import SPECS, Channel


class ChannelSender:
    """The send activity of a channel, and its attempts in flight in this process.

    `attempt` sends one request, `concurrency` is how many of them one activity runs at a time, in `turns`. `recall` takes
    a message back, if the channel can.
    """

    def __init__(
        self,
        channel: Channel,
        attempt: ChannelAttempt,
        registry: Registry,
        *,
        concurrency: int,
        turns: Turns | None = None,
        recall: ChannelRecall | None = None,
    ) -> None:
        self.attempt = attempt
        self.in_flight = InFlightAttempts(registry)
        self.recall = recall
        self._registry, self._concurrency, self._turns, self._spec = (
            registry,
            concurrency,
            turns or Turns(),
            SPECS[channel],
        )

    async def send(self, chunk: Chunk) -> ChunkResult:
        """Attempt each delivery of the chunk that is not settled."""
        return await ChunkRun(
            chunk=chunk,
            channel=self._spec.channel,
            registry=self._registry,
            attempt=self.attempt,
            concurrency=self._concurrency,
            turns=self._turns,
            in_flight=self.in_flight if self._spec.inline else None,
            intent=self._spec.intent,
        ).run()

    @property
    def activity(self) -> Callable[[Chunk], Awaitable[ChunkResult]]:
        """`send` under the name of the channel's stub."""

        @activity.defn(name=self._spec.activity)
        async def send(chunk: Chunk) -> ChunkResult:
            return await self.send(chunk)

        return send

    @property
    def activities(self) -> list[Callable[..., Any]]:
        """All activities of the channel."""
        if self.recall is None:
            return [self.activity]
        return [self.activity, Recalls(self._registry, self.recall).recall_messages]

    async def close(self, grace: float) -> None:
        """Wait up to `grace` seconds for attempts in flight, then cancel them."""
        await self.in_flight.close(grace)
