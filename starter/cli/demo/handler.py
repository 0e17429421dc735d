"""The demo's service: one handler, which notes the events that it is called for."""

from dataclasses import dataclass, field

from bellwire import Event, Handlers, Retry
from bellwire.handlers import current_delivery


@dataclass
class DemoService:
    """A service of the demo, which fails the first time."""

    handled: list[str] = field(default_factory=list)

    @property
    def handlers(self) -> Handlers:
        handlers = Handlers(service="demo", tenant="acme")

        @handlers.on("user.registered")
        async def send_welcome(event: Event) -> None:
            if current_delivery().attempt == 1:
                raise Retry("the demo's function asks for a second attempt", after=0.2)
            self.handled.append(event.id)

        return handlers
