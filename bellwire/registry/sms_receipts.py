"""SMS receipts: rows, and the resource `registry.sms_receipts`.

Receipts are stored by the provider's id, beside the delivery: one may arrive before its attempt is recorded, and after a
redelivery there is one for each SMS that was sent.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal

from sqlalchemy import case, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.deliveries import Delivery, DeliveryKey
from bellwire.errors import DeliveryNotFound
from bellwire.registry import deliveries, suppressions
from bellwire.registry.db.engine import Database
from bellwire.registry.db.tables import sms_receipts
from bellwire.sms.receipts import RANKS, SmsReceipt
from bellwire.suppressions import Suppression

_KEYS = ("event_key", "subscription_id", "provider_id")


async def record_all(
    connection: AsyncConnection, receipts: Sequence[tuple[SmsReceipt, Suppression | None]]
) -> list[bool | None]:
    keys = [DeliveryKey(receipt.event_key, receipt.subscription_id) for receipt, _ in receipts]
    existing = await deliveries.by_keys(connection, keys)
    results: list[bool | None] = [None] * len(receipts)
    # In one order for all processes, so that two never deadlock.
    for place in sorted(range(len(receipts)), key=lambda place: (*keys[place], receipts[place][0].provider_id)):
        if keys[place] in existing:
            results[place] = await _record(connection, receipts[place][0])
    await suppressions.add(
        connection,
        *(suppression for new, (_, suppression) in zip(results, receipts, strict=True) if new and suppression),
    )
    return results


async def _record(connection: AsyncConnection, receipt: SmsReceipt) -> bool:
    row = receipt.model_dump()
    row |= {"status": str(receipt.status), "price": None if receipt.price is None else str(receipt.price)}
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    stored_rank = case({str(status): rank for status, rank in RANKS.items()}, value=sms_receipts.c.status)
    written = await connection.execute(
        insert(sms_receipts)
        .values(**row)
        .on_conflict_do_update(
            index_elements=_KEYS,
            set_={name: value for name, value in row.items() if name not in _KEYS},
            where=stored_rank < RANKS[receipt.status],
        )
    )
    return written.rowcount > 0


async def of_events(connection: AsyncConnection, event_keys: Iterable[str]) -> list[SmsReceipt]:
    query = select(sms_receipts).where(sms_receipts.c.event_key.in_(sorted(set(event_keys))))
    return [
        SmsReceipt.model_validate({**row, "price": None if row["price"] is None else Decimal(row["price"])})
        for row in (await connection.execute(query)).mappings()
    ]


class SmsReceipts:
    """The resource `registry.sms_receipts`: the delivery receipts that providers send."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, receipt: SmsReceipt, *, suppression: Suppression | None = None) -> bool:
        """Store a receipt, and add `suppression`, unless one of the same or a higher rank is stored; return whether it was.

        Raises DeliveryNotFound.
        """
        (new,) = await self.record_all([(receipt, suppression)])
        if new is None:
            raise DeliveryNotFound
        return new

    async def record_all(self, receipts: Sequence[tuple[SmsReceipt, Suppression | None]]) -> Sequence[bool | None]:
        """The same for several in one transaction; None for one whose delivery does not exist."""
        return await self._database.write(record_all, receipts)

    async def of_deliveries(self, deliveries: Sequence[Delivery]) -> dict[str, SmsReceipt]:
        """Return the receipt of the SMS that each delivery sent last, by delivery id."""
        sent = {(one.event_key, one.subscription_id, one.provider_id): one.id for one in deliveries if one.provider_id}
        if not sent:
            return {}
        receipts = await self._database.read(of_events, {key for key, _, _ in sent})
        keyed = [((one.event_key, one.subscription_id, one.provider_id), one) for one in receipts]
        return {sent[key]: one for key, one in keyed if key in sent}
