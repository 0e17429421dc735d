"""What the demo's receivers received, read from them and not from Bellwire, and how it differs from the expectation."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bellwire.deliveries import Counts
from bellwire.receipts import Receipt, Status
from bellwire.registry import Registry
from bellwire.subscriptions import SubscriptionState
from bellwire.targets import Channel
from starter.cli.delivery.attempts import status_and_code
from starter.cli.demo.example import (
    Example,
    ExpectedText,
    ExpectedWebhook,
    Receivers,
)


@dataclass(frozen=True, kw_only=True)
class ReceivedText:
    """A mail, an SMS, a push or a message by chat or WeChat."""

    to: str
    #: The subject of a mail, the body of an SMS, the title of a push or message, the id of a template of WeChat.
    title: str
    #: All of it.
    text: str


@dataclass(frozen=True, kw_only=True)
class ReceivedWebhook:
    """The requests that brought one event to one path."""

    path: str
    event: str
    responses: tuple[int, ...]
    #: Whether every request was signed with the subscription's secret.
    verified: bool
    #: The webhook-ids. Receivers deduplicate by them, so one is expected.
    ids: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Received:
    """Everything that the receivers received."""

    mails: tuple[ReceivedText, ...]
    sms: tuple[ReceivedText, ...]
    webhooks: tuple[ReceivedWebhook, ...]
    pushes: tuple[ReceivedText, ...]
    chats: tuple[ReceivedText, ...]
    wechat: tuple[ReceivedText, ...]
    #: Ids of the events that the demo's handler was called for.
    handled: tuple[str, ...] = ()

    @classmethod
    def by(cls, receivers: Receivers, *, handled: Sequence[str] = ()) -> "Received":
        """What the receivers have received so far."""
        requests: dict[tuple[str, str], list[tuple[int, bool, str]]] = {}
        for one in receivers.hooks.received:
            request = (one.status, one.verified, one.headers.get("webhook-id", ""))
            requests.setdefault((one.path, str(one.event.get("id", ""))), []).append(request)
        return cls(
            mails=tuple(
                ReceivedText(to=mail.to, title=mail.subject, text=f"{mail.subject}\n{mail.text}")
                for mail in receivers.mailbox.mails
            ),
            sms=tuple(ReceivedText(to=sent.to, title=sent.body, text=sent.body) for sent in receivers.twilio.messages),
            webhooks=tuple(
                ReceivedWebhook(
                    path=path,
                    event=event,
                    responses=tuple(status for status, _, _ in made),
                    verified=all(verified for _, verified, _ in made),
                    ids=frozenset(webhook_id for _, _, webhook_id in made),
                )
                for (path, event), made in requests.items()
            ),
            pushes=tuple(
                ReceivedText(to=push.recipient, title=shown["title"], text=f"{shown['title']}\n{shown['body']}")
                for push in receivers.pushes.accepted
                for shown in [json.loads(receivers.browser.decrypted(push.content["body"]))]
            ),
            chats=tuple(
                ReceivedText(
                    to=sent.recipient, title=sent.content["text"].partition("\n")[0], text=sent.content["text"]
                )
                for sent in receivers.slack.accepted
            ),
            wechat=tuple(
                ReceivedText(
                    to=sent.recipient,
                    title=sent.content["template_id"],
                    text="\n".join(
                        [
                            sent.content["template_id"],
                            *(f"{name}: {field['value']}" for name, field in sent.content["data"].items()),
                        ]
                    ),
                )
                for sent in receivers.wechat.accepted
            ),
            handled=tuple(handled),
        )


async def differences(
    example: Example,
    *,
    received: Received,
    receipts: Sequence[Receipt],
    statuses: Mapping[str, Status],
    final: Mapping[str, str],
    registry: Registry,
) -> list[str]:
    """Each difference from the expectation, as a line for people. `statuses` are by event id, `final` by subscription."""
    expected = example.expected
    found = [
        *_count_differences(example, statuses),
        *_text_differences("mail", expected.mails, received.mails),
        *_text_differences("SMS", expected.sms, received.sms),
        *_webhook_differences(expected.webhooks, received.webhooks),
        *_text_differences("push", expected.pushes, received.pushes),
        *_text_differences("message", expected.chats, received.chats),
        *_text_differences("WeChat message", expected.wechat, received.wechat),
    ]
    if final != expected.final:
        found.append(f"reported back: expected {_pairs(expected.final)}, got {_pairs(final)}")
    repeated = sorted(receipt.event_id for receipt in receipts if receipt.duplicate)
    if repeated != sorted(expected.duplicates):
        found.append(f"published before: expected {_listed(expected.duplicates)}, got {_listed(repeated)}")
    if sorted(received.handled) != sorted(expected.handled):
        found.append(f"handled in code: expected {_listed(expected.handled)}, got {_listed(received.handled)}")
    disabled = [each.id for each in await registry.subscriptions.list(state=SubscriptionState.DISABLED)]
    if sorted(disabled) != sorted(expected.disabled):
        found.append(f"disabled subscriptions: expected {_listed(expected.disabled)}, got {_listed(disabled)}")
    return found


async def reported_back(registry: Registry) -> dict[str, str]:
    """What WeChat said in the end became of its messages, by subscription."""
    deliveries = await registry.deliveries.list(channel=Channel.WECHAT)
    receipts = await registry.sms_receipts.of_deliveries(deliveries)
    return {receipt.subscription_id: status_and_code(receipt) for receipt in receipts.values()}


def _count_differences(example: Example, statuses: Mapping[str, Status]) -> Iterable[str]:
    for event_id, counts in example.expected.counts.items():
        status = statuses.get(event_id)
        if status is None:
            yield f"event {event_id}: was not published"
        elif not status.settled:
            waiting = ", ".join(
                f"{one.subscription_id} ({one.reason or 'no response yet'})" for one in status.unsettled
            )
            yield f"event {event_id}: did not settle in time; waiting: {waiting or 'unknown'}"
        elif status.counts != counts:
            yield f"event {event_id}: expected {_numbers(counts)}, got {_numbers(status.counts)}"
    for event in example.distinct_events:
        if event.id not in example.expected.counts:
            yield f"event {event.id}: has no expectation in {example.folder.name}/expected.json"


def _text_differences(kind: str, expected: Sequence[ExpectedText], received: Sequence[ReceivedText]) -> Iterable[str]:
    rest = list(received)
    for wanted in expected:
        found = next((one for one in rest if one.to == wanted.to and wanted.contains in one.text), None)
        if found is None:
            yield f"{kind} to {wanted.to} with {wanted.contains!r}: did not arrive"
        else:
            rest.remove(found)
    for one in rest:
        yield f"{kind} to {one.to}, {one.title!r}: arrived and was not expected"


def _webhook_differences(expected: Sequence[ExpectedWebhook], received: Sequence[ReceivedWebhook]) -> Iterable[str]:
    arrived = {(one.path, one.event): one for one in received}
    for wanted in expected:
        one = arrived.pop((wanted.path, wanted.event), None)
        where = f"webhook {wanted.event} at {wanted.path}"
        if one is None:
            yield f"{where}: did not arrive"
            continue
        if one.responses != wanted.responses:
            yield f"{where}: expected responses {_listed(wanted.responses)}, got {_listed(one.responses)}"
        if not one.verified:
            yield f"{where}: the signature does not match the subscription's secret"
        if len(one.ids) != 1:
            yield f"{where}: the attempts have {len(one.ids)} webhook-ids instead of one"
    for path, event in arrived:
        yield f"webhook {event} at {path}: arrived and was not expected"


def _numbers(counts: Counts) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.model_dump().items() if number) or "nothing"


def _pairs(values: Mapping[str, str]) -> str:
    return _listed(f"{value} for {name}" for name, value in values.items())


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values)) or "none"
