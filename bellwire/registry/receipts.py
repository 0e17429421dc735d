"""Confirmations, as rows: what providers say later of what they have accepted.

They are kept by the provider's id beside the delivery, not in it: one may come before the attempt is on record that it is
about, and a delivery that is made again is confirmed anew.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal

from sqlalchemy import bindparam, case, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.deliveries import Delivery
from bellwire.errors import DeliveryNotFound
from bellwire.registry import suppressions
from bellwire.registry.db.engine import Database
from bellwire.registry.db.tables import deliveries, sms_receipts
from bellwire.sms.receipts import RANKS, SmsReceipt
from bellwire.suppressions import Suppression

_KEYS = ("event_key", "subscription_id", "provider_id")
_KNOWN = select(deliveries.c.event_key).where(
    deliveries.c.event_key == bindparam("key"), deliveries.c.subscription_id == bindparam("subscription")
)


async def record_receipt(
    connection: AsyncConnection, receipt: SmsReceipt, *, suppression: Suppression | None = None
) -> bool:
    """Keep it if it is news, and then suppress as well; False if as much or more was known. Raises DeliveryNotFound."""
    given = {"key": receipt.event_key, "subscription": receipt.subscription_id}
    if (await connection.execute(_KNOWN, given)).first() is None:
        raise DeliveryNotFound
    row = receipt.model_dump()
    row |= {
        "status": str(receipt.status),
        "price": None if receipt.price is None else str(receipt.price),
    }
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    known = case({str(status): rank for status, rank in RANKS.items()}, value=sms_receipts.c.status)
    written = await connection.execute(
        insert(sms_receipts)
        .values(**row)
        .on_conflict_do_update(
            index_elements=_KEYS,
            set_={name: value for name, value in row.items() if name not in _KEYS},
            where=known < RANKS[receipt.status],
        )
    )
    news = written.rowcount > 0
    if news and suppression is not None:
        await suppressions.suppress(connection, suppression)
    return news


async def of_events(connection: AsyncConnection, event_keys: Iterable[str]) -> list[SmsReceipt]:
    """All that was confirmed of these events."""
    query = select(sms_receipts).where(sms_receipts.c.event_key.in_(sorted(set(event_keys))))
    return [
        SmsReceipt.model_validate({**row, "price": None if row["price"] is None else Decimal(row["price"])})
        for row in (await connection.execute(query)).mappings()
    ]


class SmsReceipts:
    """What providers report later about SMS they accepted."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, receipt: SmsReceipt, *, suppression: Suppression | None = None) -> bool:
        """Keep what a provider says later of an SMS, and suppress as well, if it is news; False if it is not.

        Raises DeliveryNotFound.
        """
        return await self._database.write(record_receipt, receipt, suppression=suppression)

    async def of_deliveries(self, deliveries: Sequence[Delivery]) -> dict[str, SmsReceipt]:
        """By delivery id, what was confirmed of that which was sent last."""
        sent = {(one.event_key, one.subscription_id, one.provider_id): one.id for one in deliveries if one.provider_id}
        if not sent:
            return {}
        found = await self._database.read(of_events, {key for key, _, _ in sent})
        named = [((one.event_key, one.subscription_id, one.provider_id), one) for one in found]
        return {sent[name]: one for name, one in named if name in sent}
