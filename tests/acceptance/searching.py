"""Searches everything that a system writes for private texts."""

import base64
import sqlite3
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from bellwire.exchanges import unpack
from tests.acceptance.conftest import System


def found_in(texts: Mapping[str, str], places: Mapping[str, bytes]) -> dict[str, set[str]]:
    """The names of the texts that occur, by place."""
    forms = {name: forms_of(text) for name, text in texts.items()}
    return {
        place: {
            name
            for name, written in forms.items()
            if any(form.lower() in lower or form in text for form in written[:2])
            or any(form in text for form in written[2:])
        }
        for place, text in places.items()
        for lower in [text.lower()]
    }


def forms_of(text: str) -> list[bytes]:
    """Every form in which a text may be written: plain, in hexadecimal, in base64 at any of its three alignments."""
    raw = text.encode()
    shifted = [base64.b64encode(b"-" * shift + raw)[4 * (shift > 0) :] for shift in range(3)]
    return [raw, raw.hex().encode(), *(some[: len(some) // 4 * 4 - 4] for some in shifted)]


async def histories(system: System) -> bytes:
    """Every run as Temporal stores it, not decoded: events, memos, search attributes, summaries."""
    temporal, written = system.client.temporal, b""
    async for run in temporal.list_workflows():
        handle = temporal.get_workflow_handle(run.id, run_id=run.run_id)
        description = await handle.describe()
        written += description.raw_description.SerializeToString()
        written += b"".join(each.SerializeToString() for each in (await handle.fetch_history()).events)
    assert written
    return written


async def page(url: str) -> bytes:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert response.status == 200
        return await response.read()


def files(folder: Path) -> dict[str, bytes]:
    """The contents of the files by the start of their names, so that a database and its -wal are one place."""
    places: dict[str, bytes] = {}
    for file in sorted(each for each in folder.iterdir() if each.is_file()):
        place = "log" if file.suffix == ".log" else file.name.partition(".")[0]
        places[place] = places.get(place, b"") + file.read_bytes()
    return places


def exchanges(folder: Path) -> bytes:
    """What attempts sent and received, as someone reads it who has the file and no keys: it is compressed."""
    with sqlite3.connect(folder / "registry.db") as connection:
        stored = [value for (value,) in connection.execute("SELECT exchanges FROM attempts") if value]
    connection.close()
    assert stored
    return b"".join(each.model_dump_json().encode() for value in stored for each in unpack(value))
