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
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import H2Error, ProtocolError, TooManyStreamsError
from h2.settings import SettingCodes

from activities.providers.http import NotSent, ResponseLost

#: Bytes of a response's body that are kept.
MAX_BODY = 16 * 1024
#: Requests at a time, if the server allows as many.
MAX_STREAMS = 500

#: The bytes of a frame before its payload, and the most of a payload that this end allows (RFC 9113 §4).
_FRAME_HEAD, _MAX_FRAME = 9, 16_384
_GOAWAY, _LEAST_GOAWAY = 7, 8


@dataclass
class Http2Response:
    """A response whose end has come."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class _Stream:
    response: Http2Response = field(default_factory=Http2Response)
    #: Whether the end of the request was sent. Before that, a server does not process it.
    is_sent: bool = False
    #: Whether neither end sends any more on it.
    has_ended: bool = False
    done: asyncio.Future[Http2Response] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Http2Connection:
    """A connection to one origin.

    `is_open` says whether it takes more requests: not once the server says that it goes away, has gone silent, or an error
    occurred. Then make another; this one closes itself after its last response.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self._streams: dict[int, _Stream] = {}
        self._changed = asyncio.Condition()
        self._limit = 1  # until the server's settings have arrived
        self._has_settings = False
        self._received_at = 0.0
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
        negotiated = writer.get_extra_info("ssl_object")
        if negotiated is not None and negotiated.selected_alpn_protocol() != "h2":
            writer.close()
            raise NotSent("no HTTP/2")
        return cls(reader, writer)

    async def request(
        self, path: str, headers: Mapping[str, str], body: bytes, *, authority: str, scheme: str, timeout: float
    ) -> Http2Response:
        """POST `body`. Raises NotSent if the server did not process the request, and ResponseLost if it may have."""
        stream, stream_id, started_at = _Stream(), 0, asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(timeout):
                async with self._changed:
                    await self._changed.wait_for(lambda: not self.is_open or len(self._streams) < self._limit)
                    if not self.is_open:
                        raise NotSent("connection closed")
                    stream_id = self._h2.get_next_available_stream_id()
                    self._streams[stream_id] = stream
                pseudo = {":method": "POST", ":scheme": scheme, ":authority": authority, ":path": path}
                self._h2.send_headers(stream_id, [*pseudo.items(), *headers.items()])
                await self._send_body(stream_id, stream, body)
                return await stream.done
        except TimeoutError:
            if self._received_at < started_at:
                self.is_open = False  # the other end may be gone without a word
            raise _lost(stream, "timeout", "timeout" if stream_id else "no free stream") from None
        except TooManyStreamsError:
            raise NotSent("no free stream") from None
        except (H2Error, OSError):
            self._close()
            raise _lost(stream, "connection lost") from None
        finally:
            if stream_id and not stream.has_ended:
                self._reset(stream_id)  # or it would count as open, and the server would wait for the rest
            self._streams.pop(stream_id, None)
            async with self._changed:
                self._changed.notify_all()
            if not self.is_open and not self._streams:
                self._close()

    async def close(self) -> None:
        """End the connection. Requests in progress raise ResponseLost."""
        self._close()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _send_body(self, stream_id: int, stream: _Stream, body: bytes) -> None:
        """Send the body as the server makes room for it, unless it answers before."""
        self._flush()
        while body and not stream.done.done():
            size = min(len(body), self._h2.local_flow_control_window(stream_id), self._h2.max_outbound_frame_size)
            if size > 0:
                stream.is_sent = size == len(body)
                self._h2.send_data(stream_id, body[:size], end_stream=stream.is_sent)
                body = body[size:]
                self._flush()
                await self._writer.drain()
            else:
                await asyncio.sleep(0.01)  # the window is full; the server opens it
        if body:
            self._reset(stream_id)
            stream.has_ended = True

    async def _read(self) -> None:
        """Feed what arrives to the protocol until the connection ends."""
        unread = b""
        try:
            while data := await self._reader.read(65_536):
                self._received_at = asyncio.get_running_loop().time()
                unread = self._feed(unread + data)
                self._flush()
                # A server that asks without reading, such as by pings, is read from no further.
                await self._writer.drain()
                async with self._changed:
                    self._changed.notify_all()
        except (H2Error, OSError, ValueError):
            pass  # what the server sends is not HTTP/2
        finally:
            self._close()
        async with self._changed:
            self._changed.notify_all()

    def _feed(self, data: bytes) -> bytes:
        """Feed whole frames, and return the rest.

        GOAWAY does not reach the protocol's implementation, which would take no further frame: the responses to requests that
        the server still answers.
        """
        fed = at = 0
        while len(data) - at >= _FRAME_HEAD:
            payload, size = at + _FRAME_HEAD, int.from_bytes(data[at : at + 3], "big")
            if size > _MAX_FRAME:
                raise ProtocolError("frame too large")
            if len(data) < payload + size:
                break
            if data[at + 3] == _GOAWAY:
                if size < _LEAST_GOAWAY:
                    raise ProtocolError("frame too small")
                self._receive(data[fed:at])
                self._go_away(int.from_bytes(data[payload : payload + 4], "big") & 0x7FFF_FFFF)
                fed = payload + size
            at = payload + size
        self._receive(data[fed:at])
        return data[at:]

    def _receive(self, frames: bytes) -> None:
        for event in self._h2.receive_data(frames):
            self._handle(event)

    def _go_away(self, last: int) -> None:
        """RFC 9113 §6.8: what is beyond the last stream was not processed; the others are still answered."""
        self.is_open = False
        for number, stream in self._streams.items():
            if number > last:
                _finish(stream, NotSent("server goes away"))
        if not self._streams:
            self._close()

    def _handle(self, event: Event) -> None:
        match event:
            case RemoteSettingsChanged(changed_settings=changed):
                found = changed.get(SettingCodes.MAX_CONCURRENT_STREAMS)
                if found is not None:
                    self._limit = min(found.new_value, MAX_STREAMS)
                elif not self._has_settings:
                    self._limit = MAX_STREAMS
                self._has_settings = True
            case ResponseReceived(stream_id=int(number), headers=headers) if number in self._streams:
                response = self._streams[number].response
                named = {_text(name): _text(value) for name, value in headers or ()}
                status = named.get(":status", "")
                if not (len(status) == 3 and status.isascii() and status.isdecimal()):
                    _finish(self._streams[number], ResponseLost("invalid response"))
                    return
                response.status, response.headers = int(status), named
            case DataReceived(stream_id=int(number), data=bytes(data), flow_controlled_length=int(length)):
                self._h2.acknowledge_received_data(length, number)
                if (stream := self._streams.get(number)) and len(stream.response.body) < MAX_BODY:
                    stream.response.body += data
            case StreamEnded(stream_id=int(number)) if number in self._streams:
                self._streams[number].has_ended = self._streams[number].is_sent
                _finish(self._streams[number], None)
            case StreamReset(stream_id=int(number), error_code=code) if number in self._streams:
                # RFC 9113 §8.7: a refused stream was not processed.
                refused = code == ErrorCodes.REFUSED_STREAM
                stream = self._streams[number]
                stream.has_ended = True
                _finish(stream, NotSent("stream refused") if refused else _lost(stream, "stream reset"))

    def _reset(self, stream_id: int) -> None:
        """End a stream that nobody waits for any more."""
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
            _finish(stream, _lost(stream, "connection lost"))
        self._writer.close()
        if self._writer.transport.get_write_buffer_size():
            self._writer.transport.abort()  # or it would wait for a server that does not read


def _lost(stream: _Stream, reason: str, before: str | None = None) -> NotSent | ResponseLost:
    """What a failure means for a request; `before`: the reason if its end was not sent."""
    return ResponseLost(reason) if stream.is_sent else NotSent(before or reason)


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")


def _finish(stream: _Stream, error: Exception | None) -> None:
    if stream.done.done():
        return
    if error is not None:
        stream.done.set_exception(error)
        stream.done.exception()  # it is not an error that nobody waits for it any more
    else:
        stream.done.set_result(stream.response)
