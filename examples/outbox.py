"""Publish an event in the transaction that makes it true: the transactional outbox, here on SQLite.

    python examples/outbox.py 42
    python -m starter relay --url sqlite:///shop.db --once

The first command needs neither Temporal nor Bellwire's workers. If it is killed, or fails as with the order 13, then there is
neither an order that is paid nor an event. Run it twice: the event is published once.
"""

import sqlite3
import sys

from bellwire import Event, outbox


def pay(connection: sqlite3.Connection, order: str) -> None:
    with connection:  # one transaction
        connection.execute("INSERT INTO paid (id) VALUES (?) ON CONFLICT DO NOTHING", (order,))
        outbox.insert(
            connection,
            Event(
                id=f"order-{order}-paid",
                source="/shop/orders",
                type="order.paid",
                subject=order,
                tenant="acme",
                data={"order": order, "total": "19.90 EUR"},
            ),
        )
        if order == "13":
            raise SystemExit("order 13 cannot be paid, so nothing happened")


def main(order: str) -> None:
    connection = sqlite3.connect("shop.db")
    connection.execute("CREATE TABLE IF NOT EXISTS paid (id TEXT PRIMARY KEY)")
    outbox.create_table(connection)
    pay(connection, order)
    print("paid", order)
    connection.close()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "42")
