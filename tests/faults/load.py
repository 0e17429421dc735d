"""A known load: subscriptions on every channel, receivers that refuse at first, and events published singly and in batches."""

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from bellwire import Event, Receipt, Subscription
from bellwire.deliveries import delivery_id
from bellwire.errors import TemporalUnavailable
from starter.local.receivers.twilio import SmsResponse
from starter.local.receivers.webhooks import WebhookResponse
from tests.faults.breakable import Breakable

#: Retry delays of most subscriptions, in seconds: more attempts than any scenario needs.
RETRY_SCHEDULE = [0.5] * 4 + [1.0] * 10 + [2.0] * 20
#: Seconds until receivers of webhooks and SMS respond, so that there are always attempts in flight.
RESPONSE_DELAY = 0.03
#: Maximum times that a webhook endpoint throttles. Throttling lasts 5 s, and doubles each time: with the backlog spread out,
#: twice takes half a minute, and four times two and a half minutes.
MAX_THROTTLED = 2

_SUBJECT = re.compile(r"event-\d+")


@dataclass
class Load:
    """The subscriptions and events of one scenario."""

    system: Breakable
    hooks: int = 20
    mails: int = 10
    texts: int = 10
    #: Seconds until a receiver of webhooks or SMS responds.
    response_delay: float = RESPONSE_DELAY
    receipts: list[Receipt] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    #: Ids of the subscriptions, in the order of creation.
    subscription_ids: list[str] = field(default_factory=list)
    #: Subscription ids by telephone number.
    numbers: dict[str, str] = field(default_factory=dict)

    async def subscribe(self) -> None:
        """Store the subscriptions. Some receivers refuse a few times, one always, one permanently."""
        chance = self.system.random
        for number in range(self.hooks):
            path = f"/load/{number}"
            refusals = [*chance.choices((500, 503), k=chance.randrange(6)), *[429] * chance.randint(0, MAX_THROTTLED)]
            chance.shuffle(refusals)
            webhooks = [WebhookResponse(status=status, delay=self.response_delay) for status in (*refusals, 204)]
            self.system.hooks.script(path, *webhooks, repeat=True)
            await self._hook(path)
        self.system.hooks.script("/down", 503, repeat=True)
        await self._hook("/down", schedule=[0.3, 0.3])
        # Rejected without disabling the subscription, so that every event matches it.
        await self._subscribe({"channel": "webhook", "url": "http://10.0.0.1:8080/not-allowed"})
        for number in range(self.mails):
            address = f"u{number}@example.com"
            self.system.mailbox.script(address, *["451 4.7.1 try later"] * chance.randrange(4))
            await self._subscribe({"channel": "email", "to": address})
        for number in range(self.texts):
            to = f"+1415555{number:04}"
            # Too busy; accepted without a response; broken; accepted.
            responses = (
                SmsResponse(status=429),
                SmsResponse(accept=True, reset=True),
                SmsResponse(status=503),
                SmsResponse(delay=self.response_delay),
            )
            scripted = [chance.choice(responses) for _ in range(chance.randrange(6))]
            self.system.twilio.script(to, *scripted, *[SmsResponse(delay=self.response_delay)] * 200)
            self.numbers[to] = (await self._subscribe({"channel": "sms", "to": to})).id

    @property
    def expected(self) -> int:
        """The number of deliveries of all events published so far."""
        return len(self.events) * (self.hooks + 2 + self.mails + self.texts)

    def event(self) -> Event:
        number = len(self.events)
        event = Event(
            source="/load", id=f"e{number}", type="load.created", subject=f"event-{number}", data={"n": number}
        )
        self.events.append(event)
        return event

    async def publish(self, *, singles: int, batch: int = 0) -> None:
        """Publish events one by one, and a batch. While Temporal is unavailable, publish again, as a service would."""
        for event in [self.event() for _ in range(singles)]:
            self.receipts += await self._insist([event])
        if batch:
            self.receipts += await self._insist([self.event() for _ in range(batch)])

    async def publish_concurrently(self, number: int) -> None:
        """Publish events concurrently, each as a run of its own."""
        events = [self.event() for _ in range(number)]
        for receipts in await asyncio.gather(*(self._insist([event]) for event in events)):
            self.receipts += receipts

    async def until_arrived(self, number: int, *, timeout: float = 120.0) -> None:
        """Wait until receivers have received `number` requests in all."""
        async with asyncio.timeout(timeout):
            while self.system.arrived < number:
                await asyncio.sleep(0.005)

    async def until_texted(self, number: int, *, timeout: float = 120.0) -> None:
        """Wait until this many SMS are accepted in all."""
        async with asyncio.timeout(timeout):
            await self.system.twilio.arrived(number)

    def arrivals(self) -> Counter[str]:
        """Requests of each delivery that arrived, accepted or refused, by delivery id."""
        posted = Counter(item.headers["webhook-id"] for item in self.system.hooks.received)
        return posted + self.mailed() + self.texted()

    def accepted(self) -> Counter[str]:
        """Requests of each delivery that its receiver accepted, by delivery id."""
        posted = Counter({name: len(times) for name, times in self.posted().items()})
        return posted + self.mailed() + self.texted()

    def posted(self) -> dict[str, list[datetime]]:
        """The times at which the receiver accepted each webhook, in order, by delivery id."""
        found: dict[str, list[datetime]] = {}
        for item in self.system.hooks.received:
            if item.status < 300:
                found.setdefault(item.headers["webhook-id"], []).append(item.at)
        return found

    def mailed(self) -> Counter[str]:
        return Counter(mail.message_id.strip("<>").partition("@")[0] for mail in self.system.mails)

    def texted(self) -> Counter[str]:
        by_subject = {event.subject: event.key for event in self.events}
        found: Counter[str] = Counter()
        for sent in self.system.twilio.messages:
            subject = _SUBJECT.search(sent.body)
            assert subject, f"an SMS without an event: {sent.body}"
            found[delivery_id(by_subject[subject[0]], self.numbers[sent.to])] += 1
        return found

    async def _insist(self, events: Sequence[Event]) -> list[Receipt]:
        async with asyncio.timeout(60):
            while True:
                try:
                    return await self.system.client.publish_many(events)
                except TemporalUnavailable:
                    await asyncio.sleep(0.2)

    async def _hook(self, path: str, *, schedule: Sequence[float] = RETRY_SCHEDULE) -> Subscription:
        return await self._subscribe({"channel": "webhook", "url": self.system.hooks.url(path)}, schedule=schedule)

    async def _subscribe(self, target: dict[str, str], *, schedule: Sequence[float] = RETRY_SCHEDULE) -> Subscription:
        subscription = Subscription.model_validate(
            {"types": ["load.*"], "target": target, "retry_schedule": list(schedule)}
        )
        secret = await self.system.registry.subscriptions.create(subscription)
        self.subscription_ids.append(subscription.id)
        if secret:
            self.system.hooks.expect("/" + target["url"].split("/", 3)[3], secret.get_secret_value())
        return subscription
