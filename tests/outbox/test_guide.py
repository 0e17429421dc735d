"""The programs of the guide, and the example, do what they say."""

import inspect
import re
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from starter.checkout import CHECKOUT
from tests.outbox.test_inserting import by_psycopg, by_sqlite3, sync_engine

PAGE = (CHECKOUT / "docs" / "how-to" / "publish-in-your-transaction.md").read_text()
#: The programs of the page, by title.
PROGRAMS = {
    match[1]: textwrap.dedent(match[2])
    for match in re.finditer(r'^ +```python title="(\w+)"\n(.*?)^ +```$', PAGE, flags=re.DOTALL | re.MULTILINE)
}
ORDERS = "CREATE TABLE orders (id TEXT PRIMARY KEY, paid BOOLEAN NOT NULL DEFAULT false)"
ORDER = "INSERT INTO orders (id) VALUES ('42')"
STATE = "SELECT orders.paid, bellwire_outbox.event_id FROM orders LEFT JOIN bellwire_outbox ON subject = orders.id"


async def pay(title: str, connection: Any) -> None:
    scope: dict[str, Any] = {}
    exec(compile(PROGRAMS[title], title, "exec"), scope)
    called = scope["pay"](connection, "42")
    if inspect.isawaitable(called):
        await called


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("title", [title for title in PROGRAMS if title != "shop_sqlite3"])
async def test_the_programs_of_the_guide_pay_and_publish_together(outbox_url: str, title: str) -> None:
    with psycopg.connect(outbox_url, autocommit=True) as server:
        server.execute(ORDERS)
        server.execute(ORDER)
        if title == "shop_asyncpg":
            async with asyncpg.create_pool(outbox_url, min_size=1) as pool:
                await pay(title, pool)
        elif title == "shop_psycopg":
            async with by_psycopg(outbox_url) as connection:
                await pay(title, connection)
        elif title == "shop_sqlalchemy":
            with sync_engine(outbox_url) as engine, Session(engine) as session:
                await pay(title, session)
        else:
            engine = create_async_engine(outbox_url.replace("postgresql:", "postgresql+asyncpg:"))
            async with AsyncSession(engine) as session:
                await pay(title, session)
            await engine.dispose()
        assert server.execute(STATE).fetchall() == [(True, "order-42-paid")]


async def test_the_program_for_sqlite_pays_and_publishes_together(sqlite_file: Path) -> None:
    async with by_sqlite3(f"sqlite:///{sqlite_file}") as connection:
        connection.execute(ORDERS)
        connection.execute(ORDER)
        await pay("shop_sqlite3", connection)
        assert connection.execute(STATE).fetchall() == [(1, "order-42-paid")]


def test_the_guide_has_a_program_for_each_kind_of_connection() -> None:
    assert PROGRAMS.keys() == {
        *("shop_sqlalchemy", "shop_sqlalchemy_async", "shop_asyncpg", "shop_psycopg", "shop_sqlite3"),
    }


def test_the_example_inserts_an_event_once_and_none_without_the_order(tmp_path: Path) -> None:
    example = str(CHECKOUT / "examples" / "outbox.py")
    for order, status in (("42", 0), ("42", 0), ("13", 1), ("43", 0)):
        ran = subprocess.run([sys.executable, example, order], cwd=tmp_path, capture_output=True, text=True)
        assert ran.returncode == status, ran.stderr
    connection = sqlite3.connect(tmp_path / "shop.db")
    rows = connection.execute("SELECT event_id, tenant FROM bellwire_outbox ORDER BY id").fetchall()
    paid = connection.execute("SELECT id FROM paid ORDER BY id").fetchall()
    connection.close()
    assert rows == [("order-42-paid", "acme"), ("order-43-paid", "acme")]
    assert paid == [("42",), ("43",)]
