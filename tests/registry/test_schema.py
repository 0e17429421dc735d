"""Making the tables, and telling whether they are there."""

import asyncio
import json
import sys
from functools import partial
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from pydantic import SecretStr
from sqlalchemy import Connection, inspect
from sqlalchemy.ext.asyncio import AsyncConnection

from bellwire.contract import Group
from bellwire.errors import NotSetUp
from bellwire.registry import Registry
from bellwire.registry.db import schema
from bellwire.registry.db.engine import Database
from bellwire.registry.db.tables import metadata
from bellwire.subscriptions import Channel
from bellwire.webhooks import generate_secret
from tests.factories import NOW, event, subscription
from tests.registry.conftest import tell

MIGRATE = """
import asyncio, sys
from bellwire.registry import Registry

async def main():
    registry = await Registry.open(sys.argv[1])
    await registry.migrate()
    await registry.check()
    await registry.close()

asyncio.run(main())
"""


async def test_a_registry_without_tables_says_how_to_make_them(url: str) -> None:
    registry = await Registry.open(url)
    with pytest.raises(NotSetUp, match="python -m starter setup"):
        await registry.check()
    with pytest.raises(NotSetUp, match="python -m starter setup"):
        await registry.events.accept([event()], "run")
    with pytest.raises(NotSetUp, match="python -m starter setup"):
        await registry.subscriptions.list()
    await registry.migrate()
    await registry.check()
    await registry.close()


async def test_migrating_again_changes_nothing(registry: Registry) -> None:
    await registry.events.accept([event(id="1")], "run")
    await registry.migrate()
    assert [found.event.id for found in await registry.events.list()] == ["1"]


async def test_four_processes_may_migrate_at_once(url: str) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", MIGRATE, url, cwd=Path(__file__).parents[2], stderr=asyncio.subprocess.PIPE
        )
        for _ in range(4)
    ]
    said = [(await process.communicate())[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0], said


async def test_four_tasks_may_migrate_at_once(url: str) -> None:
    registry = await Registry.open(url)
    await asyncio.gather(*(registry.migrate() for _ in range(4)))
    await registry.check()
    await registry.close()


def _differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"target_metadata": metadata})
    found: list[object] = compare_metadata(context, metadata)
    inspector = inspect(connection)
    for table in metadata.sorted_tables:
        made = {item["name"]: item.get("dialect_options", {}) for item in inspector.get_indexes(table.name)}
        for index in table.indexes:
            name = f"{connection.dialect.name}_where"
            wanted = index.dialect_options[connection.dialect.name]["where"] is not None
            if wanted != (made[index.name].get(name) is not None):
                found.append(("partial", index.name))
        primary = inspector.get_pk_constraint(table.name)
        if primary["constrained_columns"] != [column.name for column in table.primary_key]:
            found.append(("primary key", table.name))
    return found


async def test_the_migrations_make_the_tables_that_the_code_names(registry: Registry, url: str) -> None:
    database = Database.at(url, pool=1)

    async def differences(connection: AsyncConnection) -> list[object]:
        return await connection.run_sync(_differences)

    assert await database.read(differences) == []
    await database.close()


def _at_revision(connection: Connection, revision: str) -> None:
    config = schema._config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


async def test_a_database_from_before_rate_limits_asks_for_setup_and_keeps_what_it_holds(url: str) -> None:
    happened, wish = event(id="1"), subscription({"channel": "email", "to": "ann@example.com"}, id="a")
    email = {"channel": "email", "state": "active", "locale": "en", "filters": "[]", "types": '["order.*"]'}
    waiting = {"channel": "email", "state": "waiting", "attempts": 1, "schedule_from": 0, "from_retry_after": False}
    stored = {"source": "/shop", "id": "1", "type": "order.paid", "digest": happened.digest, "run_id": ""}
    rows = {
        "tenants": {"id": "acme", "created_at": NOW},
        "subscriptions": {
            **email,
            "id": "a",
            "tenant": "acme",
            "target": wish.target.model_dump_json(),
            "created_at": NOW,
        },
        "events": {
            **stored,
            "key": happened.key,
            "workflow_id": "run",
            "accepted_at": NOW,
            "body": json.dumps(happened.structured()),
        },
        "deliveries": {
            **waiting,
            "event_key": happened.key,
            "subscription_id": "a",
            "reason": "SMTP 451",
            "workflow_id": "run",
            "updated_at": NOW,
        },
    }
    database = Database.at(url, pool=1)

    async def begin(connection: AsyncConnection) -> None:
        await connection.run_sync(partial(_at_revision, revision="0001"))
        for name, row in rows.items():
            await connection.execute(metadata.tables[name].insert().values(**row))

    await database.write(begin)
    await database.close()

    registry = await Registry.open(url)
    with pytest.raises(NotSetUp, match=r"python -m starter setup.* is at 0001, this version needs 0007"):
        await registry.check()
    for asking in (registry.limits.by_channel(), registry.subscriptions.list(), registry.deliveries.list()):
        with pytest.raises(NotSetUp, match="python -m starter setup"):
            await asking
    await registry.migrate()
    await registry.check()
    assert await registry.limits.by_channel() == {}
    assert await registry.subscriptions.list() == [wish]
    group = Group(event_key=happened.key, channel=Channel.EMAIL, subscription_ids=("a",), attempt=2)
    (request,) = await registry.attempts.load([group])
    assert (request.event, request.subscription) == (happened, wish)
    assert (request.delivery.reason, request.delivery.not_before) == ("SMTP 451", None)
    await registry.close()


async def test_a_secret_from_before_rotation_goes_on_signing(url: str) -> None:
    database, secret = Database.at(url, pool=1), generate_secret()

    async def begin(connection: AsyncConnection) -> None:
        await connection.run_sync(partial(_at_revision, revision="0003"))

    columns = "id, tenant, channel, state, types, filters, target, locale, created_at, secret"
    hook = """'acme', 'webhook', 'active', '["order.*"]', '[]', '{"channel": "webhook", "url": "https://app.example/"}', 'en'"""
    mail = """'acme', 'email', 'active', '["order.*"]', '[]', '{"channel": "email", "to": "ann@example.com"}', 'en'"""
    await database.write(begin)
    await tell(
        database,
        f"INSERT INTO tenants (id, created_at) VALUES ('acme', '{NOW}')",
        f"INSERT INTO subscriptions ({columns}) VALUES ('hook', {hook}, '{NOW}', '{secret}')",
        f"INSERT INTO subscriptions ({columns}) VALUES ('mail', {mail}, '{NOW}', NULL)",
    )
    await database.close()
    registry = await Registry.open(url)
    await registry.migrate()
    assert [key.expires_at for key in await registry.signing_secrets.in_use("hook")] == [None]
    assert await registry.signing_secrets.in_use("mail") == ()
    new = await registry.signing_secrets.rotate("hook")
    happened = event()
    group = Group(event_key=happened.key, channel=Channel.WEBHOOK, subscription_ids=("hook",))
    await registry.events.accept([happened], "run")
    await registry.deliveries.add("run", [group])
    (request,) = await registry.attempts.load([group])
    assert request.secrets == (new, SecretStr(secret))
    await registry.close()


async def test_an_sms_that_was_under_way_when_there_was_one_provider_is_asked_for_there(url: str) -> None:
    sending = {
        "channel": "sms",
        "state": "sending",
        "attempts": 1,
        "schedule_from": 0,
        "from_retry_after": False,
        "reason": "",
    }
    stored = {"source": "/shop", "id": "1", "type": "order.paid", "digest": "", "run_id": "", "body": "{}"}
    wish = {"id": "a", "tenant": "acme", "channel": "sms", "state": "active", "locale": "en", "filters": "[]"}
    rows = {
        "tenants": {"id": "acme", "created_at": NOW},
        "subscriptions": {**wish, "types": '["*"]', "target": '{"to": "+14155550123"}', "created_at": NOW},
        "events": {**stored, "key": "k", "workflow_id": "run", "accepted_at": NOW},
        "deliveries": {
            **sending,
            "event_key": "k",
            "subscription_id": "a",
            "workflow_id": "run",
            "updated_at": NOW,
            "intent_at": NOW,
        },
    }
    database = Database.at(url, pool=1)

    async def begin(connection: AsyncConnection) -> None:
        await connection.run_sync(partial(_at_revision, revision="0001"))
        for name, row in rows.items():
            await connection.execute(metadata.tables[name].insert().values(**row))

    await database.write(begin)
    await database.close()
    registry = await Registry.open(url)
    await registry.migrate()
    assert [delivery.asked for delivery in await registry.deliveries.list()] == ["twilio/2"]
    await registry.close()


async def test_a_schema_from_the_future_is_named(registry: Registry, url: str) -> None:
    database = Database.at(url, pool=1)
    await tell(database, "UPDATE alembic_version SET version_num = '9999'")
    await database.close()
    with pytest.raises(NotSetUp, match="9999"):
        await registry.check()
    with pytest.raises(NotSetUp, match="newer than this version"):
        await registry.migrate()
