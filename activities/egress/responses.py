"""Reading of HTTP responses that do not follow HTTP: a response counts once its head is whole.

aiohttp discards a response with its status if the bytes after the head break the rules: a body after 204, more bytes than
Content-Length says, Content-Length given twice, or beside chunked. Endpoints send all of these. So the connection keeps the head
until it is whole. If the parser fails before it returned the response, the head is read again here, by the rules of RFC 9112
§6.3 for recipients, and the connection is closed after it. A correct response costs one more call per read.

A head has at most MAX_HEAD bytes and MAX_FIELDS fields. Interim responses (1xx) before it count, and are at most MAX_INTERIM.
"""

import asyncio
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpResponseParser
from aiohttp.http_exceptions import BadHttpMessage, HttpProcessingError

#: Bytes of a response's status line and header fields, interim responses included.
MAX_HEAD = 65_536
#: Header fields of a response.
MAX_FIELDS = 1000
#: Interim responses (1xx) before a response.
MAX_INTERIM = 8
#: Limits of aiohttp's parser, which has none for the head as a whole.
_PARSER_LIMITS = {"max_line_size": MAX_HEAD, "max_field_size": MAX_HEAD, "max_headers": MAX_FIELDS}

_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_LINE_END = re.compile(rb"\r?\n")
_STATUS_LINE = re.compile(rb"(HTTP/1\.[01]) ([1-9][0-9][0-9])(?: .*)?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*:[ \t]*(.*?)[ \t]*", re.DOTALL)
_LENGTH = re.compile(rb"[0-9]{1,18}")
#: More interim responses than are read. aiohttp's parser makes an object of each, which costs tens of milliseconds for 64 KiB.
_TOO_MANY_INTERIM = re.compile(
    rb"(?:\r?\n)*(?:HTTP/1\.[01] 1(?!01)[0-9][0-9][^\n]*\n(?:[^\r\n][^\n]*\n)*\r?\n){%d}" % (MAX_INTERIM + 1)
)
#: They have no body, whatever their fields say (RFC 9112 §6.3).
_WITHOUT_BODY = frozenset({204, 304})
_SWITCHING_PROTOCOLS = 101

_Feed = tuple[Any, bool, bytes]
_NOTHING: _Feed = ((), False, b"")


class ResponseConnector(aiohttp.TCPConnector):
    """Opens connections that keep responses whose head is whole."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = partial(ResponseConnection, loop=asyncio.get_running_loop())  # type: ignore[assignment]


class ResponseConnection(ResponseHandler):
    """aiohttp's side of a connection, with a parser that keeps responses whose head is whole."""

    def set_response_params(self, **params: Any) -> None:
        """Prepare for the next response. The client calls it before it sends a request."""
        # Bytes that came before the request are for the new parser, too.
        early, self._tail = self._tail, b""
        params |= _PARSER_LIMITS
        super().set_response_params(**params)
        self._parser = cast(HttpResponseParser, _HeadKeeper(self, self._parser, params))
        if early:
            self.data_received(early)

    def new_parser(
        self,
        *,
        skip_payload: bool = False,
        read_bufsize: int,
        read_timeout: float | None = None,  # noqa: ARG002 - of the connection
        timeout_ceil_threshold: float = 5,  # noqa: ARG002 - of the connection
        **params: Any,
    ) -> Any:
        """A parser with the parameters of `set_response_params`."""
        return HttpResponseParser(
            self,
            self._loop,
            read_bufsize,
            payload_exception=aiohttp.ClientPayloadError,
            response_with_body=not skip_payload,
            **params,
        )


class _HeadKeeper:
    """A parser of one response, which reads the head again if aiohttp's parser fails after it is whole.

    Has the methods that the connection calls on its parser.
    """

    __slots__ = ("_connection", "_error", "_head", "_interim", "_params", "_parser", "_payload")

    def __init__(self, connection: ResponseConnection, parser: Any, params: Mapping[str, Any]) -> None:
        self._connection, self._parser, self._params = connection, parser, params
        self._head, self._interim = b"", 0
        #: What the parser said of a head that is not whole yet.
        self._error: HttpProcessingError | None = None
        #: The body, once the head is whole.
        self._payload: aiohttp.StreamReader | None = None

    def feed_data(self, data: bytes) -> _Feed:
        """Messages, whether the protocol is switched, and the bytes after that. Raises HttpProcessingError."""
        if self._payload is not None:
            return self._feed_body(self._payload, data)
        room = MAX_HEAD - len(self._head)
        result = self._feed_head(data[:room])
        if self._payload is None:
            if len(data) >= room:
                raise BadHttpMessage("the head of the response is too long")
            return result
        if len(data) > room:
            self._feed_surplus(self._payload, data[room:])
        return result

    def _feed_head(self, data: bytes) -> _Feed:
        self._head += data
        if _TOO_MANY_INTERIM.match(self._head):
            raise BadHttpMessage("too many interim responses")
        if self._error is not None:
            return self._read_again(self._error)
        try:
            messages, upgraded, tail = self._parser.feed_data(data)
        except HttpProcessingError as error:
            return self._read_again(error)
        if not messages:
            return messages, upgraded, tail
        if len(messages) == 1 and messages[0][0].code >= 200 and not _has_unexpected_body(messages[0][0]):
            self._begin(messages[0])  # as nearly always
            return messages, upgraded, tail
        kept = [each for each in messages if not _is_interim(each[0].code)]
        self._count_interim(len(messages) - len(kept))
        if kept:
            self._begin(kept[0])
            if len(kept) > 1 or _has_unexpected_body(kept[0][0]):
                self._connection.force_close()  # the bytes that follow are not the next response
        return kept[:1], upgraded, tail

    def _read_again(self, error: HttpProcessingError) -> _Feed:
        """The response by its head. Raises `error`, that of aiohttp's parser, if the head is not valid."""
        self._error = error
        try:
            found = _Head.find(self._head)
        except ValueError:
            raise error from None
        if found is None:
            return _NOTHING
        self._count_interim(found.interim - self._interim)
        self._parser = self._connection.new_parser(**self._params)
        messages, _, _ = self._parser.feed_data(found.normalized)
        if not messages:
            raise error
        self._begin(messages[0])
        self._feed_surplus(messages[0][1], found.rest)
        return messages[:1], False, b""

    def _begin(self, message: Any) -> None:
        self._head, self._payload = b"", message[1]

    def _feed_body(self, payload: aiohttp.StreamReader, data: bytes) -> _Feed:
        """Feed the body. Raises HttpProcessingError, which closes the connection, for bytes that are not part of it."""
        try:
            result: _Feed = self._parser.feed_data(data)
        except HttpProcessingError as error:
            if not payload.is_eof():
                payload.set_exception(aiohttp.ClientPayloadError(str(error)))
            raise
        return result

    def _feed_surplus(self, payload: aiohttp.StreamReader, rest: bytes) -> None:
        """Feed what came together with the head. An error in it is one of the body, and closes the connection later."""
        if not rest:
            return
        try:
            if not payload.is_eof():
                self._feed_body(payload, rest)
        except HttpProcessingError:
            pass
        else:
            if not payload.is_eof():
                return
        self._connection.force_close()

    def _count_interim(self, number: int) -> None:
        self._interim += number
        if self._interim > MAX_INTERIM:
            raise BadHttpMessage("too many interim responses")

    def feed_eof(self) -> Any:
        return None if self._error is not None and self._payload is None else self._parser.feed_eof()

    def pause_reading(self) -> None:
        self._parser.pause_reading()


class _Head(NamedTuple):
    """A head that is whole, without what made aiohttp's parser fail."""

    #: The number of interim responses before it.
    interim: int
    #: The head as bytes: with one length at most, and with `Connection: close`.
    normalized: bytes
    #: The bytes after it.
    rest: bytes

    @classmethod
    def find(cls, data: bytes) -> "_Head | None":
        """The head at the start of `data`; None if it is not whole. Raises ValueError for what is not HTTP."""
        interim = 0
        while True:
            data = data.lstrip(b"\r\n")
            if not data[:5].startswith(b"HTTP/"[: len(data)]):
                raise ValueError("not a status line")
            end = _END_OF_HEAD.search(data)
            if end is None:
                return None
            first, *lines = _LINE_END.split(data[: end.start()])
            found = _STATUS_LINE.fullmatch(first)
            if found is None or b"\0" in data[: end.start()]:
                raise ValueError("not a valid head")
            data = data[end.end() :]
            if not _is_interim(status := int(found[2])):
                return cls(interim, b"\r\n".join([first, *_fields(status, lines), b"", b""]), data)
            interim += 1


def _fields(status: int, lines: list[bytes]) -> list[bytes]:
    """The header fields, with at most one that says how long the body is. Raises ValueError if it has two lengths.

    Lines that are not fields are left out. A length beside chunked is ignored (RFC 9112 §6.3).
    """
    if len(lines) > MAX_FIELDS:
        raise ValueError("too many fields")
    unfolded: list[bytes] = []
    for line in lines:
        if line[:1] in {b" ", b"\t"} and unfolded:
            unfolded[-1] += b" " + line.strip()
        else:
            unfolded.append(line)
    kept, lengths, chunked = [b"Connection: close"], set[bytes](), False
    for field in filter(None, map(_FIELD.fullmatch, unfolded)):
        name, value = field[1].lower(), field[2]
        if name == b"content-length":
            lengths |= {each.strip() for each in value.split(b",")}
        elif name == b"transfer-encoding":
            chunked = chunked or value.lower().endswith(b"chunked")
        elif name not in {b"connection", b"upgrade"}:
            kept.append(field[1] + b": " + value)
    if status in _WITHOUT_BODY:
        return kept
    if chunked:
        return [*kept, b"Transfer-Encoding: chunked"]
    if len(lengths) > 1 or not all(map(_LENGTH.fullmatch, lengths)):
        raise ValueError("not a valid Content-Length")
    return [*kept, *(b"Content-Length: " + length for length in lengths)]


def _is_interim(status: int) -> bool:
    return 100 <= status < 200 and status != _SWITCHING_PROTOCOLS


def _has_unexpected_body(message: Any) -> bool:
    """Whether a body follows a response that must not have one."""
    if message.code not in _WITHOUT_BODY:
        return False
    return bool(message.chunked) or message.headers.get("content-length", "0") != "0"
