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
from starter.local.receivers.providers.dingtalk import FakeDingtalk
from starter.local.receivers.providers.feishu import FakeFeishu
from starter.local.receivers.providers.slack import FakeSlack
from starter.local.receivers.providers.telegram import FakeTelegram
from starter.local.receivers.providers.wecom import FakeWecom
from tests.factories import event, send_request, subscription

TIMEOUT = 1.5
SECRET = f"{SECRETS}S"
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


def section_of(fake: object) -> tuple[str, dict[str, Any], str]:
    """The section of an account with a fake, its fields, and its secret, which the variable SECRET has."""
    match fake:
        case FakeSlack():
            return "slack", {"token": SECRET, "url": fake.api}, fake.token
        case FakeTelegram():
            return "telegram", {"token": SECRET, "url": fake.url}, fake.token
        case FakeWecom():
            fields = {"corp_id": fake.corp_id, "agent_id": fake.agent_id, "secret": SECRET, "url": fake.url}
            return "wecom", fields, fake.secret
        case FakeDingtalk():
            fields = {"app_key": fake.app_key, "app_secret": SECRET, "agent_id": fake.agent_id, "url": fake.url}
            return "dingtalk", fields, fake.app_secret
        case FakeFeishu():
            return "feishu", {"app_id": fake.app_id, "app_secret": SECRET, "url": fake.url}, fake.app_secret
    raise AssertionError(f"{fake} has no accounts")


def accounts_of(fake: object) -> Accounts:
    """The account with a fake, for tests in which it may not answer."""
    section, fields, secret = section_of(fake)
    named = {section: {"default": {**fields, "timeout": 1}}}
    return Accounts.model_validate(named, context={"s": SecretStr(secret)})


def request_for(target: Mapping[str, Any], **fields: Any) -> SendRequest:
    """A first attempt for this target; `data` and `of_event`: of the event, and its other attributes."""
    attributes = {"id": "1", "data": fields.pop("data", {"order": "42"}), **fields.pop("of_event", {})}
    return send_request(subscription(dict(target), id="sub_chat"), event(**attributes), **fields)
