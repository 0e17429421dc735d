"""Values for tests; every field can be overridden."""

from datetime import UTC, datetime
from typing import Any

from pydantic import SecretStr

from bellwire.deliveries import Delivery, DeliveryState
from bellwire.events import Event
from bellwire.sends import SendRequest
from bellwire.subscriptions import Subscription

NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)


def event(**fields: Any) -> Event:
    content = {"type": "order.paid", "data": {"order": "42", "total": "19.90 EUR"}}
    return Event.parse({"specversion": "1.0", "source": "/shop", "tenant": "acme", **content, **fields})


def subscription(target: dict[str, Any] | None = None, **fields: Any) -> Subscription:
    target = target or {"channel": "webhook", "url": "https://app.example/hooks"}
    return Subscription.model_validate({"tenant": "acme", "types": ["order.*"], "target": target, **fields})


def send_request(
    to: Subscription | None = None,
    of_event: Event | None = None,
    *,
    number: int = 1,
    secret: str | None = None,
    extra: bool = False,
    **fields: Any,
) -> SendRequest:
    to, of_event = to or subscription(), of_event or event()
    delivery = Delivery(
        **{
            "event_key": of_event.key,
            "subscription_id": to.id,
            "channel": to.channel,
            "state": DeliveryState.PENDING if number == 1 else DeliveryState.WAITING,
            "attempts": number - 1,
            "workflow_id": "event//shop/1",
            "updated_at": NOW,
            **fields,
        }
    )
    return SendRequest(
        delivery=delivery,
        events=(of_event,),
        events_json=(of_event.to_json(),),
        subscription=to,
        number=number,
        extra=extra,
        secrets=(SecretStr(secret),) if secret else (),
    )
