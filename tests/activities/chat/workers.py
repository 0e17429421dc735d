"""A channel that sends by an account, opened as a worker opens it, with a registry and the fake of its provider."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from temporalio.testing import ActivityEnvironment

from activities.channels import open_channels
from activities.sending.channel_sender import ChannelSender
from activities.sending.recalls import ChannelRecall
from bellwire.contract import Chunk, ChunkResult, Group
from bellwire.deliveries import Attempt, Delivery, DeliveryKey
from bellwire.events import Event
from bellwire.registry import Registry
from bellwire.service.settings import Settings
from bellwire.targets import SPECS, Channel
from starter.local.receivers.providers.dingtalk import FakeDingtalk
from starter.local.receivers.providers.fake import FakeProvider, Received
from starter.local.receivers.providers.feishu import FakeFeishu
from starter.local.receivers.providers.slack import FakeSlack
from starter.local.receivers.providers.telegram import FakeTelegram
from starter.local.receivers.providers.wecom import FakeWecom
from tests.activities.chat.channels import section_of
from tests.factories import event, subscription

FAKES: dict[Channel, type[FakeProvider]] = {
    Channel.DINGTALK: FakeDingtalk,
    Channel.FEISHU: FakeFeishu,
    Channel.SLACK: FakeSlack,
    Channel.TELEGRAM: FakeTelegram,
    Channel.WECOM: FakeWecom,
}
#: Two addresses of each channel.
ADDRESSES: dict[Channel, tuple[dict[str, str], dict[str, str]]] = {
    Channel.DINGTALK: ({"user": "u1"}, {"user": "u2"}),
    Channel.FEISHU: ({"receive_id": "u1"}, {"receive_id": "u2"}),
    Channel.SLACK: ({"conversation": "C1"}, {"conversation": "C2"}),
    Channel.TELEGRAM: ({"chat_id": "-1"}, {"chat_id": "-2"}),
    Channel.WECOM: ({"user": "u1"}, {"user": "u2"}),
}
NAME = "sub_chat"


@dataclass
class ChatWorker:
    channel: Channel
    fake: FakeProvider
    registry: Registry
    sender: ChannelSender

    @property
    def recall(self) -> ChannelRecall | None:
        return self.sender.recall

    async def publish(self, event_id: str, text: str, *, replaces: str | None = None) -> Event:
        """Store an event with a pending delivery."""
        more = {} if replaces is None else {"replaces": replaces}
        published = event(id=event_id, data={"order": text}, **more)
        await self.registry.events.accept([published], f"event/{event_id}")
        await self.registry.deliveries.add(f"event/{event_id}", [self.group(published)])
        return published

    async def send(self, published: Event, *, attempt: int = 1) -> Attempt:
        """Make one attempt at the event's delivery, as the activity does it, and return what is recorded."""
        await self.run(published, attempt=attempt)
        return (await self.registry.attempts.list(published.key))[-1]

    async def run(self, published: Event, *, attempt: int = 1) -> ChunkResult:
        chunk = Chunk(groups=(self.group(published, attempt=attempt),), schedule=SPECS[self.channel].schedule)
        return await ActivityEnvironment().run(self.sender.send, chunk)

    async def deliver(self, event_id: str, text: str, *, replaces: str | None = None) -> Attempt:
        return await self.send(await self.publish(event_id, text, replaces=replaces))

    async def delivery(self, published: Event) -> Delivery:
        (found,) = await self.registry.deliveries.list(event_key=published.key)
        assert found.key == DeliveryKey(published.key, NAME)
        return found

    def group(self, published: Event, *, attempt: int = 1) -> Group:
        return Group(event_key=published.key, channel=self.channel, subscription_ids=(NAME,), attempt=attempt)

    @property
    def messages(self) -> list[Received]:
        """What was posted, oldest first, as it is now."""
        return self.fake.accepted

    async def move(self) -> None:
        """Point the subscription at its second address."""
        found = await self.registry.subscriptions.get(NAME)
        target = type(found.target).model_validate({"channel": self.channel, **ADDRESSES[self.channel][1]})
        await self.registry.subscriptions.update([found.model_copy(update={"target": target})])


@asynccontextmanager
async def chat_worker(channel: Channel, folder: Path) -> AsyncIterator[ChatWorker]:
    async with AsyncExitStack() as stack:
        fake = await stack.enter_async_context(FAKES[channel]())
        registry = await Registry.open(f"sqlite:///{folder}/registry.db")
        stack.push_async_callback(registry.close)
        await registry.migrate()
        section, account, secret = section_of(fake)
        file = folder / "accounts.json"
        file.write_text(json.dumps({section: {"default": {**account, "timeout": 10}}}))
        settings = Settings.read(accounts=file, account_secrets={"s": secret}, shutdown_grace=0.5)
        senders = await stack.enter_async_context(open_channels(settings, registry))
        target = {"channel": str(channel), **ADDRESSES[channel][0]}
        await registry.subscriptions.create(subscription(target, id=NAME))
        yield ChatWorker(channel, fake, registry, senders[channel])
