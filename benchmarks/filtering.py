"""Filtering: what it costs to match one event with the subscriptions of a tenant, for each dialect of filters."""

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire import Event, Subscription
from bellwire.registry import Registry
from bellwire.registry.db.engine import Database
from bellwire.registry.subscriptions import create
from benchmarks.figures import CRITERIA, Result, median_ratio
from benchmarks.sizes import Sizes

#: Filters of each dialect by the number of a subscription; one in a thousand matches the event.
FILTERS: Mapping[str, Callable[[int], dict[str, Any]]] = {
    "exact": lambda number: {"exact": {"subject": f"order/{number}"}},
    "prefix": lambda number: {"prefix": {"subject": f"order/{number}"}},
    "suffix": lambda number: {"suffix": {"subject": f"/{number}"}},
    "all": lambda number: {"all": [{"prefix": {"subject": "order/"}}, {"suffix": {"subject": f"/{number}"}}]},
    "sql": lambda number: {"sql": f"subject LIKE 'order/{number}%' AND priority > 5 AND region IN ('eu', 'us')"},
    "data": lambda number: {"data": {"order": {"total": [{"numeric": ["=", number]}], "currency": ["EUR", "CHF"]}}},
}
MIXED = "mixed"
DATA = {"order": {"total": 42, "currency": "EUR", "lines": [{"sku": f"A-{number}"} for number in range(4)]}}


async def filters(sizes: Sizes) -> Result:
    """One event and the candidates of each dialect, whose filters all differ, warm; then all dialects mixed."""
    seconds: dict[str, list[float]] = {name: [] for name in (*FILTERS, MIXED)}
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'registry.db'}"
        registry, database = await Registry.open(url), Database.at(url, pool=1)
        try:
            await registry.migrate()
            # Few of most dialects, since it takes time to make them.
            counts = {name: sizes.filters // (1 if name in {"exact", MIXED} else 5) or 1 for name in seconds}
            for name, count in counts.items():
                await database.write(_subscribe, name, count)
            for name, measured in seconds.items():
                for repeat in range(sizes.repeats + 1):
                    began = time.perf_counter()
                    await registry.matching.match(_event(name), limit=sizes.filters, scan=2 * sizes.filters)
                    if repeat:  # the first match compiles the filters
                        measured.append(time.perf_counter() - began)
        finally:
            await database.close()
            await registry.close()
    cost = {
        f"µs per candidate, {name}": [each / counts[name] * 1e6 for each in values] for name, values in seconds.items()
    }
    return Result(
        criterion=CRITERIA["filters"],
        ratio=median_ratio(seconds[MIXED], seconds["exact"]),
        raw={**cost, "ms per event, mixed": [each * 1e3 for each in seconds[MIXED]]},
        notes=[
            f"{sizes.filters:,} subscriptions of one tenant, a fifth for most dialects; no two filters alike; SQLite"
        ],
    )


async def _subscribe(connection: AsyncConnection, dialect: str, count: int) -> None:
    names = list(FILTERS)
    for number in range(count):
        of = names[number % len(names)] if dialect == MIXED else dialect
        subscription = Subscription.model_validate(
            {
                "id": f"{dialect}-{number}",
                "types": [f"order.{dialect}"],
                "filters": [FILTERS[of](number)],
                "target": {"channel": "webhook", "url": "https://app.example/hooks"},
            }
        )
        await create(connection, subscription, secret=None)


def _event(dialect: str) -> Event:
    extensions: dict[str, str | int | bool] = {"priority": 7, "region": "eu"}
    return Event(source="/shop", type=f"order.{dialect}", subject="order/42", extensions=extensions, data=DATA)
