"""Erasing people of every channel that has some: afterwards no table holds the address, whatever was recorded of it."""

import re
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.contract import Group
from bellwire.deliveries import Attempt, DeliveryState, Outcome, OutcomeKind
from bellwire.errors import SubscriptionInvalid
from bellwire.exchanges import Exchange
from bellwire.models import TRUSTED
from bellwire.registry import Registry
from bellwire.registry.api.idempotency import StoredResponse
from bellwire.registry.db.engine import Database
from bellwire.registry.db.tables import metadata
from bellwire.registry.providers.wechat_grants import Grantee
from bellwire.registry.upkeep.erasing import ERASED
from bellwire.sms.receipts import SmsReceipt, SmsReceiptStatus
from bellwire.subscriptions import Subscription, SubscriptionState
from bellwire.suppressions import Suppression, SuppressionReason
from bellwire.targets import SPECS, Channel, ChannelSpec, ChannelTarget
from bellwire.targets.recipients import recipient_at
from starter.operations.platform.recipients import Recipient
from starter.operations.problems import InputInvalid
from tests.factories import event, subscription

OF_PEOPLE = [spec for spec in SPECS.values() if spec.example.recipients]
every_channel_of_people = pytest.mark.parametrize("spec", OF_PEOPLE, ids=lambda spec: str(spec.channel))

ENDPOINT = "https://updates.push.services.mozilla.com/wpush/v2/gAAAAABk-person"
#: Kinds of targets of one channel, besides the example, with all that they know of a person.
POINT = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
OTHERS: dict[Channel, list[dict[str, Any]]] = {
    Channel.PUSH: [
        {"web": {"endpoint": ENDPOINT, "keys": {"p256dh": POINT, "auth": "c" * 22}}},
        {"apns": "ABCDEF" * 11, "environment": "sandbox", "account": "ios"},
    ],
    Channel.SLACK: [{"conversation": "U0PERSON", "account": "acme"}],
    Channel.FEISHU: [{"receive_id": "Ann.Person@example.com", "receive_id_type": "email"}],
    Channel.TELEGRAM: [{"chat_id": "@AnnPerson"}],
    Channel.WECHAT: [{"openid": "oPerson", "template_id": "paid", "url": "https://shop.example/orders?user=person77"}],
}
TARGETS = [spec.example.model_dump(mode="json", context=TRUSTED) for spec in OF_PEOPLE] + [
    {"channel": str(channel), **target} for channel, targets in OTHERS.items() for target in targets
]
every_target = pytest.mark.parametrize(
    "target", TARGETS, ids=[f"{each['channel']}-{number}" for number, each in enumerate(TARGETS)]
)


def alone(target: ChannelTarget) -> str:
    """The address as a provider has it: without the account."""
    (recipient,) = target.recipients
    account = getattr(target, "account", None)
    return recipient.removeprefix(f"{account}/") if account else recipient


def private(target: ChannelTarget) -> list[str]:
    """What is the person's: the address, with browser keys and what a tap opens."""
    found = [alone(target)]
    if web := getattr(target, "web", None):
        found += [secret.get_secret_value() for _, secret in web.keys]
    return found + [each for name in ("url", "page") if (each := getattr(target, name, None))]


async def fill(registry: Registry, name: str, target: dict[str, Any]) -> Subscription:
    """Record everything that is recorded of a person: deliveries, attempts, receipts, responses, grants, a suppression."""
    created = subscription(target, id=name)
    await registry.subscriptions.create(created)
    (recipient,) = created.target.recipients
    known = alone(created.target)
    exchange = Exchange(request=f'{{"to": "{known}"}}', response=f"no {known}")
    for number, state in enumerate((DeliveryState.DELIVERED, DeliveryState.WAITING, DeliveryState.PENDING)):
        published = event(id=f"{name}-{number}")
        await registry.events.accept([published], f"run-{name}-{number}")
        group = Group(event_key=published.key, channel=created.channel, subscription_ids=(name,))
        await registry.deliveries.add(f"run-{name}-{number}", [group])
        if state is DeliveryState.PENDING:
            continue
        suppress = Suppression(channel=created.channel, address=recipient, reason=SuppressionReason.BOUNCED)
        outcome = Outcome(
            kind=OutcomeKind.DELIVERED if state.settled else OutcomeKind.DEFERRED,
            reason=f"unknown user {known}",
            response=f"no such user {recipient}",
            provider_id=f"{known}/1764.{number}",
            suppress=() if state.settled else (suppress,),
            exchanges=(exchange,),
        )
        await registry.attempts.record(
            [
                Attempt(
                    event_key=published.key,
                    subscription_id=name,
                    number=1,
                    started_at=datetime.now(UTC),
                    duration=0.1,
                    outcome=outcome,
                    state=state,
                    delay=None if state.settled else 300,
                )
            ]
        )
        await registry.sms_receipts.record(
            SmsReceipt(
                event_key=published.key,
                subscription_id=name,
                provider_id=f"{known}/1764.{number}",
                status=SmsReceiptStatus.DELIVERED,
                received_at=datetime.now(UTC),
            )
        )
    await registry.test_sends.keep(name, "test", [exchange])
    await registry.idempotency.claim("key_1", name, "fingerprint")
    body = f'{{"id": "{name}", "target": {created.target.model_dump_json()}}}'
    await registry.idempotency.complete("key_1", name, StoredResponse(201, body, "application/json"))
    return created


async def holding(database: Database, *texts: str) -> list[str]:
    """The columns of the registry that hold any of the texts, as they are read."""

    async def read(connection: AsyncConnection) -> list[str]:
        return [
            f"{table.name}.{column.name}"
            for table in metadata.sorted_tables
            for row in await connection.execute(select(table))
            for column, value in zip(table.columns, row, strict=True)
            if any(text.casefold() in str(value).casefold() for text in texts)
        ]

    return await database.read(read)


def bytes_of(url: str) -> bytes:
    """All bytes of a registry on SQLite, without what was deleted; empty on PostgreSQL."""
    _, is_file, path = url.partition("sqlite:///")
    if not is_file:
        return b""
    with sqlite3.connect(path) as connection:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Path(path).read_bytes().lower()


@every_target
async def test_no_table_holds_an_erased_person(
    registry: Registry, database: Database, url: str, target: dict[str, Any]
) -> None:
    created = await fill(registry, "hers", target)
    hers = private(created.target)
    assert {"subscriptions.target", "deliveries.provider_id", "attempts.outcome", "sms_receipts.provider_id"} <= set(
        await holding(database, *hers)
    )
    if url.startswith("sqlite"):
        assert all(text.lower().encode() in bytes_of(url) for text in hers)
    (recipient,) = created.target.recipients

    erased = await registry.retention.erase(created.channel, recipient)

    assert (erased.emptied, erased.deliveries, erased.attempts, erased.cancelled) == (["hers"], 3, 2, 2)
    assert erased.suppressions == 1
    assert await holding(database, *hers) == []
    found = bytes_of(url)
    assert [text for text in hers if text.lower().encode() in found] == []
    (kept,) = await registry.suppressions.list()
    assert (kept.channel, kept.address) == (created.channel, "")
    again = await registry.suppressions.among(created.channel, [recipient], subscription_id="new")
    assert again == {recipient: SuppressionReason.BOUNCED}, "nobody writes to the person again"
    assert (await registry.retention.erase(created.channel, recipient)).emptied == []


@every_channel_of_people
async def test_an_emptied_subscription_stays_disabled_and_others_keep_what_is_theirs(
    registry: Registry, database: Database, spec: ChannelSpec
) -> None:
    example = spec.example.model_dump(mode="json", context=TRUSTED)
    created = await fill(registry, "hers", example)
    name, known = next((name, value) for name, value in example.items() if value == alone(spec.example))
    # Another address of the same form: another last digit, or another first letter.
    changed = re.sub(r"[0-9](?=[^0-9]*$)", lambda digit: str((int(digit[0]) + 1) % 10), known)
    other = {**example, name: changed if changed != known else f"b{known[1:]}"}
    his = await fill(registry, "his", other)
    before = await holding(database, alone(his.target))
    await registry.retention.erase(spec.channel, spec.example.recipients[0])
    assert await registry.subscriptions.get("his") == his.model_copy(update={"version": 1})
    assert await holding(database, alone(his.target)) == before
    left = await registry.subscriptions.get("hers")
    assert (left.state, left.state_reason, left.channel) == (SubscriptionState.DISABLED, ERASED, spec.channel)
    assert (left.target.is_erased, left.target.recipients, left.target.address) == (True, (), "")
    assert left.model_dump(mode="json")["target"]["channel"] == spec.channel
    assert {each.id for each in await registry.subscriptions.list()} == {"hers", "his"}
    with pytest.raises(SubscriptionInvalid, match="id: hers is already in use"):
        await registry.subscriptions.create(created)
    with pytest.raises(SubscriptionInvalid, match="target: the recipient was erased"):
        await registry.subscriptions.set_state("hers", SubscriptionState.ACTIVE)
    (request,) = await registry.attempts.load(
        [Group(event_key=event(id="hers-1").key, channel=spec.channel, subscription_ids=("hers",), attempt=2)]
    )
    assert request.delivery.state is DeliveryState.CANCELLED
    assert (await registry.retention.delete("hers")).gone


async def test_what_a_user_of_wechat_agreed_to_is_erased(registry: Registry) -> None:
    hers, his = Grantee("shop", "oAnn", "paid"), Grantee("shop", "oBob", "paid")
    for grantee in (hers, hers._replace(template_id="sent"), his):
        await registry.wechat_grants.add(grantee, at=datetime.now(UTC))
    await registry.retention.erase(Channel.WECHAT, "shop/oAnn", dry_run=True)
    assert await registry.wechat_grants.get(hers) == 1
    await registry.retention.erase(Channel.WECHAT, "shop/oAnn")
    assert [await registry.wechat_grants.get(each) for each in (hers, hers._replace(template_id="sent"))] == [
        None,
        None,
    ]
    assert await registry.wechat_grants.get(his) == 1


async def test_only_responses_that_name_the_person_are_blanked(registry: Registry) -> None:
    for name, body in (
        ("hers", '{"chat_id": "-10042"}'),
        ("longer", '{"chat_id": "-100427"}'),
        ("other", '{"id": 42}'),
    ):
        await registry.idempotency.claim("key_1", name, name)
        await registry.idempotency.complete("key_1", name, StoredResponse(201, body, "application/json"))
    await registry.retention.erase(Channel.TELEGRAM, "default/-10042")
    stored = {name: (await registry.idempotency.claim("key_1", name, name)).response for name in ("hers", "longer")}
    assert {name: response.body for name, response in stored.items() if response} == {
        "hers": "",
        "longer": '{"chat_id": "-100427"}',
    }


async def test_a_long_endpoint_is_suppressed_as_a_whole(registry: Registry) -> None:
    long, other = (f"{ENDPOINT}{'x' * 1900}{end}" for end in "12")
    await registry.suppressions.add(Suppression(channel=Channel.PUSH, address=long, reason=SuppressionReason.BOUNCED))
    found = await registry.suppressions.among(Channel.PUSH, [long, other], subscription_id="any")
    assert list(found) == [long]


@every_target
def test_an_address_is_read_as_operators_write_it(target: dict[str, Any]) -> None:
    model = SPECS[Channel(target["channel"])].target.model_validate(target)
    (recipient,) = model.recipients
    key = SPECS[model.channel].address_key
    for spelling in (recipient, f" {recipient}\n", *([alone(model)] if recipient.startswith("default/") else [])):
        assert Recipient.parse(spelling, model.channel) == (model.channel, recipient)
        assert key(spelling) == key(recipient)


@pytest.mark.parametrize(
    ("channel", "one", "other"),
    [
        (Channel.PUSH, "ios/" + "ABCDEF" * 11, "ios/" + "abcdef" * 11),
        (Channel.TELEGRAM, "@AnnPerson", "default/@annperson"),
        (Channel.WECOM, "ZhangSan", "default/zhangsan"),
        (Channel.FEISHU, "Ann@example.com", "default/ann@EXAMPLE.com"),
    ],
)
async def test_spellings_that_providers_do_not_tell_apart_are_one_address(
    registry: Registry, channel: Channel, one: str, other: str
) -> None:
    await registry.suppressions.add(
        Suppression(channel=channel, address=recipient_at(channel, one), reason=SuppressionReason.OPERATOR)
    )
    assert len(await registry.suppressions.list(address=other)) == 1
    assert await registry.suppressions.lift(channel, recipient_at(channel, other))


@pytest.mark.parametrize(
    ("channel", "address", "field", "message"),
    [
        (Channel.SLACK, "c0123456789", "address", "write account/address, such as default/C0123456789"),
        (Channel.SLACK, "Acme/C0123456789", "address", "is not an address on slack"),
        (Channel.TELEGRAM, "ann", "address", "is not an address on telegram"),
        (Channel.WECHAT, "o Ann", "address", "is not an address on wechat"),
        (Channel.PUSH, "two words", "address", "is not an address on push"),
        (Channel.PUSH, "https://host/a b", "address", "contains white space"),
        (Channel.WEBHOOK, "https://app.example", "channel", "a webhook has no address of a person; pause"),
        (Channel.TEAMS, "a workflow", "channel", "write one of email, sms, dingtalk"),
        (None, "oAnnPerson", "address", "or name the channel of another address: dingtalk"),
        (None, "0199", "address", "is not an E.164 number"),
    ],
)
def test_a_wrong_spelling_is_refused_by_field_and_with_a_remedy(
    channel: Channel | None, address: str, field: str, message: str
) -> None:
    with pytest.raises(InputInvalid, match=message) as refused:
        Recipient.parse(address, channel)
    (problem,) = refused.value.problems
    assert problem.field == field
    assert address not in str(problem)


async def test_expired_requests_of_other_owners_are_searched_too(registry: Registry, database: Database) -> None:
    """Requests are removed only when their owner sends another one."""
    await registry.idempotency.claim("key_2", "old", "f")
    await registry.idempotency.complete("key_2", "old", StoredResponse(201, '{"openid": "oAnn"}', "application/json"))

    async def age(connection: AsyncConnection) -> None:
        table = metadata.tables["idempotency_keys"]
        await connection.execute(table.update().values(created_at=datetime.now(UTC) - timedelta(days=9)))

    await database.write(age)
    await registry.retention.erase(Channel.WECHAT, "default/oAnn")
    assert await holding(database, "oAnn") == []
