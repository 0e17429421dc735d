"""The real activities on a real registry, over scripted channels: what the fake platform stands in for."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection
from temporalio.testing import ActivityEnvironment

from activities.resolve import Resolver
from activities.sending.channel_sender import ChannelSender
from activities.sending.inline import InlineSender
from bellwire.contract import Chunk, ChunkResult, InlineSend, InlineSendResult
from bellwire.deliveries import DeliveryState, Outcome, OutcomeKind
from bellwire.registry import Registry
from bellwire.registry.db.engine import Database
from bellwire.registry.subscriptions import create
from bellwire.sends import SendRequest
from bellwire.targets import WORKER_CHANNELS, Channel
from tests.factories import subscription
from tests.workflows.platform import DELIVERED, Exact, Response

TARGETS = {
    Channel.EMAIL: {"channel": "email", "to": "ann@example.com"},
    Channel.SMS: {"channel": "sms", "to": "+14155550123"},
    Channel.WEBHOOK: {"channel": "webhook", "url": "https://app.example/hooks"},
}


class RealPlatform(Resolver):
    """The activities on the registry, and the send activities. It is every channel itself, with outcomes from a script."""

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry)
        self.senders = {
            channel: ChannelSender(channel, self.attempt, registry, concurrency=1) for channel in WORKER_CHANNELS
        }
        self.respond: Callable[[str, int], Response] = lambda subscription_id, attempt: DELIVERED
        #: Channels that this worker does not send, so that `send_inline` returns their deliveries as remaining.
        self.not_inline: set[Channel] = set()
        #: (subscription id, attempt number, time) of each attempt started.
        self.attempts: list[tuple[str, int, datetime]] = []

    async def attempt(self, request: SendRequest) -> Outcome:
        self.attempts.append((request.subscription.id, request.number, datetime.now(UTC)))
        response = self.respond(request.subscription.id, request.number)
        if response.state is not DeliveryState.WAITING:
            return Outcome(kind=OutcomeKind(response.state), reason=response.reason)
        exact = isinstance(response, Exact)
        assert not exact or response.retry_after, "a real delay is Retry-After or the schedule's"
        return Outcome(kind=OutcomeKind.DEFERRED, reason=response.reason, retry_after=response.retry_after)

    async def send(self, channel: Channel, chunk: Chunk) -> ChunkResult:
        """The send activity of a channel."""
        result: ChunkResult = await ActivityEnvironment().run(self.senders[channel].send, chunk)
        return result

    async def send_inline(self, inline: InlineSend) -> InlineSendResult:
        channels = {channel: sender for channel, sender in self.senders.items() if channel not in self.not_inline}
        sender = InlineSender(self._registry, channels, limit=100)
        result: InlineSendResult = await ActivityEnvironment().run(sender.send_inline, inline)
        return result


async def subscribe_all(url: str, subscriptions: Mapping[Channel, list[str]]) -> None:
    """Store subscriptions to all events, in one transaction."""
    database = Database.at(url, pool=1)

    async def create_all(connection: AsyncConnection) -> None:
        for channel, ids in subscriptions.items():
            for each in ids:
                await create(connection, subscription(TARGETS[channel], id=each, types=["*"]), secret=None)

    await database.write(create_all)
    await database.close()
