"""The example receivers of each language, started as the guides say and sent signed requests."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import IO

import pytest

from bellwire.events import MAX_EVENT_BYTES
from bellwire.webhooks import TOLERANCE, generate_secret, sign

FOLDER = Path(__file__).parents[2] / "examples" / "receivers"
#: Seconds for a compiler without a cache, on a busy machine.
START_TIMEOUT = 100.0
READ_TIMEOUT = 30.0

COMMANDS = {
    "python": [sys.executable, "python/receive_standard_library.py", "0"],
    "python-bellwire": [sys.executable, "python/receive_webhook.py", "0"],
    "node": ["node", "node/receive.mjs", "0"],
    "go": ["go", "run", "go/main.go", "0"],
    "java": ["java", "java/Receiver.java", "0"],
}
#: Programs that take more than 5 s to start: a compiler whose cache is empty.
SLOW = {"go"}

NEW_IDS = (f"dlv_receivers_{number:05}" for number in count(1))


@dataclass(frozen=True)
class Receiver:
    """A program that listens."""

    port: int
    secret: str
    lines: "Queue[str]"

    def post(
        self,
        webhook_id: str,
        *,
        secrets: Sequence[str] = (),
        age: float = 0,
        padding: int = 0,
        added: bytes = b"",
        changed: Mapping[str, str] | None = None,
    ) -> int:
        """The status of the response to a request that was signed `age` seconds ago, by default with the right secret.

        `padding` makes the event longer, `added` goes to the end of the signed body. `changed` replaces the headers
        webhook-id, -timestamp and -signature: {right} stands for the right value, and an empty text leaves the header out.
        """
        body, timestamp = event_of(webhook_id) + b" " * padding, int(time.time() - age)
        signature = sign(secrets or self.secret, webhook_id, timestamp, body)
        right = {"id": webhook_id, "timestamp": str(timestamp), "signature": signature}
        headers = {
            name: (changed or {}).get(name, "{right}").replace("{right}", value) for name, value in right.items()
        }
        connection = HTTPConnection("127.0.0.1", self.port, timeout=READ_TIMEOUT)
        try:
            connection.request(
                "POST",
                "/hooks",
                body + added,
                {f"webhook-{name}": value for name, value in headers.items() if value},
            )
            return connection.getresponse().status
        finally:
            connection.close()

    def handled_before(self, marker: str) -> list[str]:
        """The lines printed until one that names `marker`, and that one."""
        lines = [self.lines.get(timeout=READ_TIMEOUT)]
        while marker not in lines[-1]:
            lines.append(self.lines.get(timeout=READ_TIMEOUT))
        return lines


def event_of(webhook_id: str) -> bytes:
    """An event that names the id, so that what a receiver prints of it does."""
    return f'{{"specversion": "1.0", "type": "order.paid", "id": "of-{webhook_id}", "data": {{"total": "19,90 €"}}}}'.encode()


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in COMMANDS]
)
def receiver(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    program, *arguments = COMMANDS[request.param]
    if shutil.which(program) is None:
        reason = f"{program} is not installed"
        if os.environ.get("BELLWIRE_TEST_LANGUAGES") == "required":
            pytest.fail(f"{reason}, and BELLWIRE_TEST_LANGUAGES says that it is required")
        pytest.skip(reason)
    secret, log, lines = generate_secret(), tmp_path_factory.mktemp("receiver") / "stderr", Queue[str]()
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [program, *arguments],
            cwd=FOLDER,
            env={**os.environ, "BELLWIRE_SECRET": secret, "GOTOOLCHAIN": "local", "GOPROXY": "off"},
            stdout=subprocess.PIPE,
            stderr=stderr,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        ) as process,
    ):
        reader = Thread(target=_read, args=(process.stdout, lines))
        reader.start()
        try:
            first = lines.get(timeout=START_TIMEOUT).strip()
            assert first.startswith("listening on http://127.0.0.1:"), log.read_text()
            yield Receiver(int(first.rstrip("/").rpartition(":")[2]), secret, lines)
        finally:
            os.killpg(process.pid, signal.SIGTERM)  # `go run` starts the program as a child
            reader.join()


def _read(stream: IO[str], lines: "Queue[str]") -> None:
    """Put the lines into the queue, and an empty one when the program has ended."""
    for line in stream:
        lines.put(line)
    lines.put("")


def test_a_signed_request_is_accepted_and_handled(receiver: Receiver) -> None:
    webhook_id = next(NEW_IDS)
    assert receiver.post(webhook_id) == 204
    assert "order.paid" in receiver.handled_before(webhook_id)[-1]


def test_a_repeated_id_is_accepted_and_handled_once(receiver: Receiver) -> None:
    webhook_id, next_id = next(NEW_IDS), next(NEW_IDS)
    assert [receiver.post(webhook_id, age=age) for age in (60, 30, 0)] == [204, 204, 204]
    assert receiver.post(next_id) == 204
    handled = receiver.handled_before(next_id)
    assert len([line for line in handled if webhook_id in line]) == 1


@pytest.mark.parametrize("beyond", [60, -60])
def test_a_timestamp_outside_the_tolerance_is_refused(receiver: Receiver, beyond: float) -> None:
    age = TOLERANCE.total_seconds() * (1 if beyond > 0 else -1) + beyond
    assert receiver.post(next(NEW_IDS), age=age) == 401
    assert receiver.post(next(NEW_IDS), age=age - 2 * beyond) == 204


@pytest.mark.parametrize(
    "signature",
    ["", " ", "v1", "v1,", "v1,AAAA", "v2,{right}", "{right}=", "x{right}", "v1a,{right} v1,é"],
    ids=repr,
)
def test_a_signature_that_does_not_match_is_refused(receiver: Receiver, signature: str) -> None:
    assert receiver.post(next(NEW_IDS), changed={"signature": signature}) == 401


def test_a_signature_by_another_secret_is_refused(receiver: Receiver) -> None:
    assert receiver.post(next(NEW_IDS), secrets=[generate_secret()]) == 401


def test_a_body_that_was_changed_after_signing_is_refused(receiver: Receiver) -> None:
    assert receiver.post(next(NEW_IDS), added=b" ") == 401


@pytest.mark.parametrize("old_first", [True, False])
def test_one_of_several_signatures_is_enough_while_a_secret_is_rotated(receiver: Receiver, old_first: bool) -> None:
    secrets = [receiver.secret, generate_secret()]
    assert receiver.post(next(NEW_IDS), secrets=secrets if old_first else secrets[::-1]) == 204


@pytest.mark.parametrize("header", ["id", "timestamp", "signature"])
def test_a_request_without_one_of_the_headers_is_refused(receiver: Receiver, header: str) -> None:
    assert receiver.post(next(NEW_IDS), changed={header: ""}) == 401


@pytest.mark.parametrize("timestamp", ["0", "-{right}", "{right}.0", "{right}x", "9" * 5000, "now"])
def test_a_timestamp_that_was_changed_or_is_malformed_is_refused(receiver: Receiver, timestamp: str) -> None:
    assert receiver.post(next(NEW_IDS), changed={"timestamp": timestamp}) == 401


def test_a_forged_request_does_not_hide_the_real_one(receiver: Receiver) -> None:
    webhook_id = next(NEW_IDS)
    assert receiver.post(webhook_id, changed={"signature": "v1,AAAA"}) == 401
    assert receiver.post(webhook_id) == 204
    assert webhook_id in receiver.handled_before(webhook_id)[-1]


def test_an_event_of_the_largest_size_is_accepted(receiver: Receiver) -> None:
    webhook_id = next(NEW_IDS)
    assert receiver.post(webhook_id, padding=MAX_EVENT_BYTES - len(event_of(webhook_id))) == 204
