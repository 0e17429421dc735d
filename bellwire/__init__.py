"""Bellwire: publish an event once; everyone who subscribed gets it, by email, SMS, push, chat or webhook."""

from bellwire.catalog.catalog import Catalog
from bellwire.client import Client
from bellwire.contract import Recalled, RecalledDelivery, RecallResult
from bellwire.deliveries import Counts, Failed, Unsettled
from bellwire.errors import (
    BellwireError,
    DeliveryNotFound,
    DeliveryPaused,
    EventConflict,
    EventInvalid,
    EventNotFound,
    HandlersConflict,
    KeysInvalid,
    NotReadable,
    NotRecallable,
    NotSetUp,
    TemporalUnavailable,
    TenantUnknown,
    WaitTimeout,
)
from bellwire.events import Event
from bellwire.filters import All, Any, Data, Exact, Not, Prefix, Sql, Suffix
from bellwire.handlers import Handlers, Reject, Retry
from bellwire.keys.keyring import KeyRing
from bellwire.receipts import Receipt, Status
from bellwire.subscriptions import Subscription, SubscriptionState
from bellwire.targets import (
    Channel,
    DingtalkTarget,
    EmailTarget,
    FeishuTarget,
    PollTarget,
    PushTarget,
    SlackTarget,
    SmsTarget,
    TeamsTarget,
    TelegramTarget,
    WebhookTarget,
    WechatTarget,
    WecomTarget,
)

__all__ = [
    "All",
    "Any",
    "BellwireError",
    "Catalog",
    "Channel",
    "Client",
    "Counts",
    "Data",
    "DeliveryNotFound",
    "DeliveryPaused",
    "DingtalkTarget",
    "EmailTarget",
    "Event",
    "EventConflict",
    "EventInvalid",
    "EventNotFound",
    "Exact",
    "Failed",
    "FeishuTarget",
    "Handlers",
    "HandlersConflict",
    "KeyRing",
    "KeysInvalid",
    "Not",
    "NotReadable",
    "NotRecallable",
    "NotSetUp",
    "PollTarget",
    "Prefix",
    "PushTarget",
    "RecallResult",
    "Recalled",
    "RecalledDelivery",
    "Receipt",
    "Reject",
    "Retry",
    "SlackTarget",
    "SmsTarget",
    "Sql",
    "Status",
    "Subscription",
    "SubscriptionState",
    "Suffix",
    "TeamsTarget",
    "TelegramTarget",
    "TemporalUnavailable",
    "TenantUnknown",
    "Unsettled",
    "WaitTimeout",
    "WebhookTarget",
    "WechatTarget",
    "WecomTarget",
]
