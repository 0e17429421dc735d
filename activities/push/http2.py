"""Http2Connection: one connection of HTTP/2 (RFC 9113) with many requests at a time, for APNs."""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes

from activities.providers.http import NotSent, ResponseLost

#: Bytes of a response's body that are kept.
MAX_BODY = 16 * 1024
#: Requests at a time, if the server allows as many.
MAX_STREAMS = 500
#: Requests in a row that time out, while nothing at all arrives, after which the connection counts as dead.
MAX_SILENT = 2


@dataclass
class Http2Response:
    """A response whose end has come."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class _Stream:
    response: Http2Response = field(default_factory=Http2Response)
    done: asyncio.Future[Http2Response] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Http2Connection:
    """A connection to one origin. It is closed once the server says that it goes away, or an error occurs; then make another."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._streams: dict[int, _Stream] = {}
        self._changed = asyncio.Condition()
        self._limit = 1  # until the server's settings have arrived
        self._silent = 0
        self.is_open = True
        self._h2.initiate_connection()
        self._flush()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, url: str, *, timeout: float, tls: ssl.SSLContext | None = None) -> "Http2Connection":
        """Connect to https://host:port, or without TLS to http://host:port. Raises NotSent."""
        parts = urlsplit(url)
        context = None
        if parts.scheme == "https":
            context = tls or ssl.create_default_context()
            context.set_alpn_protocols(["h2"])
        port = parts.port or (443 if context else 80)
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=context)
        except TimeoutError:
            raise NotSent("connect timeout") from None
        except ssl.SSLError:
            raise NotSent("TLS failed") from None
        except OSError:
            raise NotSent("connect failed") from None
        return cls(reader, writer)

    async def request(
        self, path: str, headers: Mapping[str, str], body: bytes, *, authority: str, scheme: str, timeout: float
    ) -> Http2Response:
        """POST `body`. Raises NotSent if the server did not process the request, and ResponseLost if it may have."""
        sent = False
        stream_id = 0
        try:
            async with asyncio.timeout(timeout):
                async with self._changed:
                    await self._changed.wait_for(lambda: not self.is_open or len(self._streams) < self._limit)
                    if not self.is_open:
                        raise NotSent("connection closed")
                    stream_id = self._h2.get_next_available_stream_id()
                    stream = self._streams[stream_id] = _Stream()
                pseudo = {":method": "POST", ":scheme": scheme, ":authority": authority, ":path": path}
                self._h2.send_headers(stream_id, [*pseudo.items(), *headers.items()])
                sent = True
                await self._send_body(stream_id, body)
                return await stream.done
        except TimeoutError:
            if sent and self.is_open:
                self._reset(stream_id)
                self._silent += 1
                # The next request gets another connection. A network may have dropped this one without telling.
                self.is_open = self._silent < MAX_SILENT
            raise (ResponseLost("timeout") if sent else NotSent("no free stream")) from None
        except (H2Error, OSError):
            self._close()
            raise (ResponseLost("connection lost") if sent else NotSent("connection closed")) from None
        finally:
            async with self._changed:
                self._streams.pop(stream_id, None)
                if not self.is_open and not self._streams:
                    self._writer.close()
                self._changed.notify_all()

    async def close(self) -> None:
        """End the connection. Requests in progress raise ResponseLost."""
        self._close()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _send_body(self, stream_id: int, body: bytes) -> None:
        while body:
            if not self.is_open:
                raise OSError
            size = min(len(body), self._h2.local_flow_control_window(stream_id), self._h2.max_outbound_frame_size)
            if size:
                self._h2.send_data(stream_id, body[:size], end_stream=size == len(body))
                body = body[size:]
                self._flush()
                await self._writer.drain()
            else:
                await asyncio.sleep(0.01)  # the window is full; the server opens it

    async def _read(self) -> None:
        """Feed what arrives to the protocol until the connection ends."""
        try:
            while data := await self._reader.read(65_536):
                self._silent = 0
                for event in self._h2.receive_data(data):
                    self._handle(event)
                self._flush()
                async with self._changed:
                    self._changed.notify_all()
        except (H2Error, OSError):
            pass
        self._close()
        async with self._changed:
            self._changed.notify_all()

    def _handle(self, event: Event) -> None:
        match event:
            case RemoteSettingsChanged(changed_settings=changed):
                found = changed.get(SettingCodes.MAX_CONCURRENT_STREAMS)
                self._limit = min(found.new_value, MAX_STREAMS) if found is not None else max(self._limit, MAX_STREAMS)
            case ResponseReceived(stream_id=int(number), headers=headers) if number in self._streams:
                response = self._streams[number].response
                named = {str(name): str(value) for name, value in headers or ()}
                response.status, response.headers = int(named.get(":status", "0")), named
            case DataReceived(stream_id=int(number), data=bytes(data), flow_controlled_length=int(length)):
                self._h2.acknowledge_received_data(length, number)
                if (stream := self._streams.get(number)) and len(stream.response.body) < MAX_BODY:
                    stream.response.body += data
            case StreamEnded(stream_id=int(number)) if number in self._streams:
                _finish(self._streams[number], None)
            case StreamReset(stream_id=int(number), error_code=code) if number in self._streams:
                # RFC 9113 §8.7: a refused stream was not processed.
                refused = code == ErrorCodes.REFUSED_STREAM
                _finish(self._streams[number], NotSent("stream refused") if refused else ResponseLost("stream reset"))
            case ConnectionTerminated(last_stream_id=last):
                # RFC 9113 §6.8: what is beyond the last stream was not processed.
                self.is_open = False
                for number, stream in self._streams.items():
                    if number > (last or 0):
                        _finish(stream, NotSent("server goes away"))

    def _reset(self, stream_id: int) -> None:
        try:
            self._h2.reset_stream(stream_id, ErrorCodes.CANCEL)
            self._flush()
        except H2Error:
            pass

    def _flush(self) -> None:
        if data := self._h2.data_to_send():
            self._writer.write(data)

    def _close(self) -> None:
        self.is_open = False
        for stream in self._streams.values():
            _finish(stream, ResponseLost("connection lost"))
        self._writer.close()


def _finish(stream: _Stream, error: Exception | None) -> None:
    if stream.done.done():
        return
    if error is not None:
        stream.done.set_exception(error)
        stream.done.exception()  # it is not an error that nobody waits for it any more
    else:
        stream.done.set_result(stream.response)
