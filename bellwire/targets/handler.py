"""Handler targets: a function of a service, called in the service's own process. `bellwire.Handlers` declares them."""

import re
from types import MappingProxyType
from typing import Annotated, Literal

from bellwire.models import skip_when_trusted
from bellwire.targets.channel import Channel, ChannelSpec, ChannelTarget

#: Starts the task queue of every service's handlers.
QUEUE_PREFIX = "bellwire-handler-"

_SERVICE = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")


def _service(value: str) -> str:
    if not _SERVICE.fullmatch(value):
        raise ValueError("must be 1 to 63 lower-case letters, digits, dashes or underscores, such as accounts")
    return value


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(
            "must be 1 to 100 letters, digits, underscores, dashes or dots, the first a letter, such as send_welcome"
        )
    return value


ServiceName = Annotated[str, skip_when_trusted(_service)]
HandlerName = Annotated[str, skip_when_trusted(_name)]


class HandlerTarget(ChannelTarget):
    channel: Literal[Channel.HANDLER] = Channel.HANDLER
    #: The service that declares the handler.
    service: ServiceName
    #: The handler's name within the service.
    name: HandlerName

    @property
    def address(self) -> str:
        return f"{self.service}/{self.name}"

    @property
    def is_rendered(self) -> bool:
        return False

    @property
    def queue(self) -> str:
        """The task queue that the service's processes poll."""
        return handler_queue(self.service)


def handler_queue(service: str) -> str:
    """The task queue of a service's handlers."""
    return f"{QUEUE_PREFIX}{service}"


HANDLER = ChannelSpec(
    channel=Channel.HANDLER,
    example=HandlerTarget(service="accounts", name="send_welcome"),
    templates=MappingProxyType({}),
    # 10 attempts over 75 h 35 min, as for webhooks: a handler fails because of a bug or of what it calls.
    schedule=(5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0),
    inline=False,
    in_services=True,
)
