"""Temporal's own CLI with the gateway as its codec server: histories are readable with the token only."""

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bellwire import Event
from bellwire.keys.keyring import new_entry
from bellwire.temporal.codec import ENCODING
from starter.checkout import CHECKOUT, program
from starter.local.processes import environment_without
from tests.acceptance.conftest import System, running_gateway, running_system

TOKEN = "a-token-of-twenty-characters"
PRIVATE = "ann@example.com"


@asynccontextmanager
async def gateway(system: System, folder: Path) -> AsyncIterator[str]:
    """The address of its codec server."""
    async with running_gateway(system, log=folder / "gateway.log", BELLWIRE_CODEC_TOKENS=TOKEN) as address:
        yield f"{address}/codec"


async def temporal(system: System, *arguments: str) -> tuple[int, str]:
    """Status and output of Temporal's CLI."""
    child = await asyncio.create_subprocess_exec(
        *(program("temporal"), *arguments, "--address", system.stack.address),
        env={**environment_without("BELLWIRE_", "TEMPORAL_"), "TEMPORAL_CONFIG_FILE": "/dev/null"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(child.communicate(), 30)
    return child.returncode or 0, output.decode()


async def command(system: System, *arguments: str, keys: str | None) -> tuple[int, str]:
    """Status and output of `python -m starter`, with keys of its own."""
    variables = {name: value for name, value in system.variables.items() if name != "BELLWIRE_ENCRYPTION_KEYS"}
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "starter", *arguments),
        cwd=CHECKOUT,
        env={
            **environment_without("BELLWIRE_", "TEMPORAL_"),
            **variables,
            **({"BELLWIRE_ENCRYPTION_KEYS": keys} if keys else {}),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(child.communicate(), 60)
    return child.returncode or 0, output.decode()


@pytest.fixture(scope="module")
def keys() -> str:
    return new_entry("one")


@pytest.fixture(scope="module")
async def encrypting(tmp_path_factory: pytest.TempPathFactory, keys: str) -> AsyncIterator[System]:
    async with running_system(tmp_path_factory.mktemp("encrypting"), BELLWIRE_ENCRYPTION_KEYS=keys) as system:
        yield system


@pytest.mark.slow
async def test_a_history_is_readable_with_the_token_and_not_without(encrypting: System, tmp_path: Path) -> None:
    event = Event(source="/tests", type="read.it", data={"to": PRIVATE})
    receipt = await encrypting.client.publish(event)
    await encrypting.client.wait(receipt, timeout=30)
    show = ("workflow", "show", "--workflow-id", receipt.workflow_id, "--detailed")
    async with gateway(encrypting, tmp_path) as codec:
        status, plain = await temporal(encrypting, *show, "--codec-endpoint", codec, "--codec-auth", f"Bearer {TOKEN}")
        assert (status, PRIVATE in plain) == (0, True)
        for given in ((), ("--codec-endpoint", codec), ("--codec-endpoint", codec, "--codec-auth", "Bearer guessed")):
            _, hidden = await temporal(encrypting, *show, *given)
            assert PRIVATE not in hidden
        _, hidden = await temporal(encrypting, *show)
        assert "encryption-key-id" in hidden


async def test_the_input_of_an_operators_update_is_encrypted_in_the_history(encrypting: System, tmp_path: Path) -> None:
    encrypting.hooks.script("/update", 503, repeat=True)
    subscription = await encrypting.hook("/update", "tell.it", retry_schedule=[600])
    receipt = await encrypting.client.publish(Event(source="/tests", type="tell.it"))
    await encrypting.hooks.arrived(1, "/update")
    async with gateway(encrypting, tmp_path) as codec:
        with_codec = ("--codec-endpoint", codec, "--codec-auth", f"Bearer {TOKEN}")
        update = ("workflow", "update", "execute", "--workflow-id", receipt.workflow_id, "--name", "cancel")
        # Before the first attempt is recorded, there is nothing to cancel.
        async with asyncio.timeout(30):
            while not (await encrypting.client.status(receipt)).unsettled[0].attempts:
                await asyncio.sleep(0.05)
        status, output = await temporal(encrypting, *update, "--input", f'"{subscription.id}"', *with_codec)
        assert (status, "deliveries:1" in output) == (0, True)
        _, history = await temporal(encrypting, "workflow", "show", "--workflow-id", receipt.workflow_id, "-o", "json")
        assert (await encrypting.client.wait(receipt, timeout=30)).counts.cancelled == 1
    updates = [event for event in json.loads(history)["events"] if event["eventType"].endswith("UPDATE_ACCEPTED")]
    (payload,) = updates[0]["workflowExecutionUpdateAcceptedEventAttributes"]["acceptedRequest"]["input"]["args"][
        "payloads"
    ]
    assert base64.b64decode(payload["metadata"]["encoding"]) == ENCODING


@pytest.mark.slow
async def test_commands_read_and_publish_with_the_keys_and_name_a_missing_one(encrypting: System, keys: str) -> None:
    publish = ("publish", "--type", "say.it", "--source", "/tests", "--id", "said", "--data", '{"a": 1}', "--wait")
    assert (await command(encrypting, *publish, keys=keys))[0] == 0
    status, output = await command(encrypting, "events", "show", "said", keys=keys)
    assert (status, '"a": 1' in output) == (0, True)
    status, output = await command(encrypting, "events", "show", "said", keys=None)
    assert (status, "encrypted with key 'one'" in output, "BELLWIRE_ENCRYPTION_KEYS" in output) == (1, True, True)
    status, output = await command(encrypting, "events", "show", "said", keys=new_entry("two"))
    assert (status, "not among two" in output) == (1, True)


@pytest.mark.slow
async def test_the_registry_is_rekeyed_while_a_worker_runs(encrypting: System, keys: str) -> None:
    """The last test of this system: its worker cannot read what is under the new key."""
    await encrypting.client.wait(
        await encrypting.client.publish(Event(source="/tests", type="rekey.it", data={"to": PRIVATE})), timeout=30
    )
    both = f"{new_entry('two')},{keys}"
    status, output = await command(encrypting, "rekey", "--check", keys=both)
    assert (status, "events.body" in output, "run `python -m starter rekey`" in output) == (1, True, True)
    assert (await command(encrypting, "rekey", keys=both))[0] == 0
    assert await command(encrypting, "rekey", "--check", keys=both) == (0, "everything is under key two\n")
    status, output = await command(encrypting, "events", "list", keys=both.partition(",")[0])
    assert (status, "rekey.it" in output) == (0, True)
    status, output = await command(encrypting, "rekey", keys=None)
    assert (status, "keys new" in output) == (2, True)
