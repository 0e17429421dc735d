"""FakeApns: Apple's push service over HTTP/2 without TLS. It can go away, reset streams and answer nothing."""

import asyncio
import json
import uuid
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Any, Self

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, StreamEnded
from h2.settings import SettingCodes


@dataclass(frozen=True, kw_only=True)
class ApnsAnswer:
    """How a push is answered."""

    status: int = 200
    #: Apple's reason, and the time in milliseconds of a 410.
    reason: str = ""
    timestamp: int | float | str | None = None
    #: Whether the push is accepted; None: if the status is 200.
    accept: bool | None = None
    #: RST_STREAM with this code instead of an answer.
    reset: ErrorCodes | None = None
    #: GOAWAY before the answer: with `last` streams processed.
    go_away_after: int | None = None
    #: No answer until the server closes.
    never: bool = False


@dataclass
class _Request:
    headers: dict[str, str]
    body: bytearray = field(default_factory=bytearray)


class FakeApns:
    """An async context manager. `accepted` has headers and payload of each push."""

    def __init__(self, *, max_streams: int = 100) -> None:
        self.accepted: list[dict[str, Any]] = []
        self.connections = 0
        #: The authorizations that were seen, each once, in order.
        self.tokens: list[str] = []
        self.most_at_once = 0
        #: Seconds before each answer.
        self.latency = 0.0
        self._max_streams = max_streams
        self._scripts: dict[str, deque[ApnsAnswer]] = defaultdict(deque)
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def script(self, *answers: ApnsAnswer, device: str = "") -> None:
        """Give these answers in turn to pushes to this device, or to any; later pushes are accepted."""
        self._scripts[device].extend(answers)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        connection.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: self._max_streams})
        writer.write(connection.data_to_send())
        open_requests: dict[int, _Request] = {}
        loop = asyncio.get_running_loop()
        try:
            while data := await reader.read(65_536):
                for event in connection.receive_data(data):
                    match event:
                        case RequestReceived(stream_id=int(number), headers=headers):
                            open_requests[number] = _Request({str(k): str(v) for k, v in headers or ()})
                            self.most_at_once = max(self.most_at_once, len(open_requests))
                        case DataReceived(stream_id=int(number), data=bytes(body), flow_controlled_length=int(size)):
                            connection.acknowledge_received_data(size, number)
                            open_requests[number].body.extend(body)
                        case StreamEnded(stream_id=int(number)):
                            answer = self._take(open_requests.pop(number))
                            if self.latency:
                                loop.call_later(self.latency, self._answer_late, connection, number, answer, writer)
                            else:
                                self._answer(connection, number, answer)
                writer.write(connection.data_to_send())
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def _take(self, request: _Request) -> ApnsAnswer:
        """Accept the push, or not; how it is answered."""
        token = request.headers.get("authorization", "")
        if token not in self.tokens:
            self.tokens.append(token)
        script = self._scripts[request.headers.get(":path", "").rpartition("/")[2]] or self._scripts[""]
        answer = script.popleft() if script else ApnsAnswer()
        if answer.accept if answer.accept is not None else answer.status == 200 and answer.reset is None:
            self.accepted.append({"headers": request.headers, "payload": json.loads(bytes(request.body))})
        return answer

    def _answer_late(
        self, connection: H2Connection, number: int, answer: ApnsAnswer, writer: asyncio.StreamWriter
    ) -> None:
        if not writer.is_closing():
            self._answer(connection, number, answer)
            writer.write(connection.data_to_send())

    def _answer(self, connection: H2Connection, number: int, answer: ApnsAnswer) -> None:
        if answer.go_away_after is not None:
            connection.close_connection(last_stream_id=answer.go_away_after)
            return
        if answer.reset is not None:
            connection.reset_stream(number, answer.reset)
            return
        if answer.never:
            return
        headers = [(":status", str(answer.status)), ("apns-id", str(uuid.uuid4()).upper())]
        body: dict[str, object] = {"reason": answer.reason} if answer.reason else {}
        if answer.timestamp is not None:
            body["timestamp"] = answer.timestamp
        connection.send_headers(number, headers, end_stream=not body)
        if body:
            connection.send_data(number, json.dumps(body).encode(), end_stream=True)
