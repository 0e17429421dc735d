"""What the tests of chat channels share: hooks that reach loopback, accounts from a table, and requests."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import Any

from pydantic import SecretStr

from activities.egress.policy import Egress
from activities.providers.accounts import SECRETS, Accounts
from activities.providers.hooks import Hooks
from activities.providers.http import provider_session
from activities.providers.parts import ProviderParts
from activities.rendering.renderer import Renderer
from bellwire.registry import Registry
from bellwire.sends import SendRequest
from tests.factories import event, send_request, subscription

TIMEOUT = 1.5
#: Text that would ping, link or format in the markup of one of the providers.
HOSTILE = "<!here> <@U1> <at id=all></at> [x](https://evil.example) @all *b* `c` <b>&amp;</b>"


@asynccontextmanager
async def opened(registry: Registry) -> AsyncIterator[ProviderParts]:
    """What the channels of a worker are made of."""
    egress = Egress(allow=[ip_network("127.0.0.0/8")], allow_http=True, ports=None, details=True)
    async with egress.session(timeout=TIMEOUT) as untrusted, provider_session() as session:
        hooks = Hooks(untrusted, egress, timeout=TIMEOUT)
        yield ProviderParts(hooks=hooks, session=session, renderer=Renderer(), registry=registry)


def accounts(sections: Mapping[str, Mapping[str, Any]], **secrets: str) -> Accounts:
    """Accounts of a file with these sections; a value in `secrets` is named by its key in the sections."""
    named = {
        provider: {
            "default": {
                field: f"{SECRETS}{value.upper()}" if value in secrets else value for field, value in fields.items()
            }
        }
        for provider, fields in sections.items()
    }
    return Accounts.model_validate(named, context={name: SecretStr(value) for name, value in secrets.items()})


def request_for(target: Mapping[str, Any], **fields: Any) -> SendRequest:
    """A first attempt for this target; `data` and `of_event`: of the event, and its other attributes."""
    attributes = {"id": "1", "data": fields.pop("data", {"order": "42"}), **fields.pop("of_event", {})}
    return send_request(subscription(dict(target), id="sub_chat"), event(**attributes), **fields)
