"""Opens the outbox that a URL names."""

from pathlib import Path

from bellwire.service.settings_values import outbox_url
from starter.operations.problems import InputInvalid
from starter.relay.postgres import PostgresOutbox
from starter.relay.sqlite import SqliteOutbox
from starter.relay.store import OutboxStore


def open_outbox(url: str) -> OutboxStore:
    """The outbox at sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME, not connected yet. Raises InputInvalid."""
    try:
        url = outbox_url(url)
    except ValueError as error:
        raise InputInvalid(str(error), field="url") from error
    if url.startswith("sqlite"):
        return SqliteOutbox(Path(url.removeprefix("sqlite:///")))
    return PostgresOutbox(url)
