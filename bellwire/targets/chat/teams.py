"""Teams targets: the URL of a workflow that posts a card into a channel or chat of Microsoft Teams."""

from types import MappingProxyType
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr

from bellwire.models import skip_when_trusted
from bellwire.targets.channel import Channel, ChannelSpec, ChannelTarget
from bellwire.targets.chat.hook_urls import check_hook
from bellwire.targets.stored_secret import StoredSecret


def _check_url(value: SecretStr) -> SecretStr:
    if "webhook.office.com/" in value.get_secret_value().lower():
        raise ValueError(
            "is the URL of an Office 365 connector, which Microsoft ended; create a workflow in Teams instead"
        )
    return check_hook(Channel.TEAMS, value)


class TeamsTarget(ChannelTarget):
    channel: Literal[Channel.TEAMS] = Channel.TEAMS
    #: The workflow's URL. Its `sig` is a credential, so JSON shows stars instead.
    url: Annotated[StoredSecret, Field(max_length=2048), skip_when_trusted(_check_url)]

    @property
    def address(self) -> str:
        return f"a workflow of {urlsplit(self.url.get_secret_value()).hostname}"


TEAMS = ChannelSpec(
    channel=Channel.TEAMS,
    example=TeamsTarget(url=SecretStr("https://prod-1.westeurope.logic.azure.com/workflows/1?sig=x")),
    templates=MappingProxyType({"teams.title": "chat.title.txt", "teams.text": "chat.txt"}),
    # 6 attempts over 4 h 12 min: later, the conversation has moved on.
    schedule=(10.0, 60.0, 600.0, 3600.0, 10_800.0),
    inline=True,
)
