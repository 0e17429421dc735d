"""The mail sink: an SMTP server that accepts every mail and records when it came, by the delivery id in its Message-ID."""

import asyncio
import re
import time
from typing import cast

_MESSAGE_ID = re.compile(rb"^message-id: *<([^@>]+)@", re.IGNORECASE | re.MULTILINE)
_END = b"\r\n.\r\n"


class MailConnection(asyncio.Protocol):
    """One SMTP connection. It parses as much of SMTP as Bellwire sends."""

    def __init__(self, accepted: dict[str, float]) -> None:
        self._accepted = accepted
        self._buffer = bytearray()
        self._in_data = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._transport.write(b"220 sink\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(_END if self._in_data else b"\r\n")) >= 0:
            received = bytes(self._buffer[:end])
            del self._buffer[: end + len(_END if self._in_data else b"\r\n")]
            self._transport.write(self._take_mail(received) if self._in_data else self._respond(received))

    def _take_mail(self, mail: bytes) -> bytes:
        self._in_data = False
        if found := _MESSAGE_ID.search(mail):
            self._accepted.setdefault(found[1].decode(), time.monotonic())
        return b"250 OK\r\n"

    def _respond(self, line: bytes) -> bytes:
        command = line[:4].upper()
        if command == b"DATA":
            self._in_data = True
            return b"354 go on\r\n"
        return b"221 bye\r\n" if command == b"QUIT" else b"250 OK\r\n"
