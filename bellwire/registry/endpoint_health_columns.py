"""How the receivers of subscriptions fare, as columns of their rows. All of them are null while a receiver is well."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.endpoint_health import HEALTHY, Consent, EndpointHealth
from bellwire.registry.db.tables import subscriptions

#: Those that attempts write.
ATTEMPT_COLUMNS = (
    subscriptions.c.throttled_until,
    subscriptions.c.throttles,
    subscriptions.c.failing_since,
    subscriptions.c.failures,
    subscriptions.c.warnings,
)
COLUMNS = (*ATTEMPT_COLUMNS, subscriptions.c.consent, subscriptions.c.consented_at, subscriptions.c.consented_rate)
#: What is written when a subscription begins afresh.
CLEARED = {column.name: None for column in ATTEMPT_COLUMNS}


def health_of(row: Mapping[Any, Any]) -> EndpointHealth:
    """The condition that a row with COLUMNS tells."""
    if row["throttled_until"] is None and row["failing_since"] is None and row["consent"] is None:
        return HEALTHY
    consent = None
    if row["consent"] is not None:
        consent = Consent(row["consent"], row["consented_at"], row["consented_rate"])
    return EndpointHealth(
        throttled_until=row["throttled_until"],
        throttles=row["throttles"] or 0,
        failing_since=row["failing_since"],
        failures=row["failures"] or 0,
        warnings=row["warnings"] or 0,
        consent=consent,
    )


async def give_consent(connection: AsyncConnection, subscription_id: str, consent: Consent) -> None:
    await connection.execute(
        update(subscriptions)
        .where(subscriptions.c.id == subscription_id)
        .values(consent=consent.given_for, consented_at=consent.given_at, consented_rate=consent.rate)
    )
