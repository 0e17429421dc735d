"""Splits a mail into its parts, by its MIME structure and in linear time.

Mails that report failures are often damaged: a line before the headers, boundaries that are missing, parts that are encoded
against the standard or written in an unknown charset. The splitter accepts these. It does not look into a returned mail
unless asked, so what that mail contains cannot change how the report around it is read.
"""

import binascii
import codecs
import quopri
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message

#: Depth to which multiparts are split, and parts of one mail.
MAX_DEPTH, MAX_PARTS = 8, 1000
#: Bytes of one block of headers.
_MAX_HEADERS = 256 * 1024
#: Characters of the value of a field.
_MAX_VALUE = 10_000

_FIELD = re.compile(rb"([!-9;-~]{1,200})[ \t]*:")
#: What may come before the headers: byte order marks, blank lines, and the line that starts a mail in an mbox file, also as
#: mail programs quote it.
_BEFORE_HEADERS = re.compile(rb"(?:\xef\xbb\xbf|[ \t]*\n|>*From [^\n]*(?:\n|\Z))*[ \t]*")
_KIND = re.compile(r"\s*([\w.+-]+/[\w.+-]+)", re.ASCII)
#: Comments, which may stand in any structured field (RFC 5322 §3.2.2); nested ones are removed from the inside out.
_COMMENT = re.compile(r"\([^()]*\)")


class Fields:
    """The fields of a block of headers, by names without regard to case."""

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        self.fields = fields

    def __contains__(self, name: str) -> bool:
        return any(name == each for each, _ in self.fields)

    def __bool__(self) -> bool:
        return bool(self.fields)

    def get(self, name: str) -> str:
        """The value of the first field with this name, on one line; empty without one."""
        return next((value for each, value in self.fields if each == name), "")

    def all(self, *names: str) -> list[str]:
        """The values of the fields with these names, in the order of the names."""
        return [value for name in names for each, value in self.fields if each == name]


@dataclass(frozen=True)
class Part:
    """A mail, or a part of one: its headers, and its body as it was transferred."""

    fields: Fields
    body: bytes

    @property
    def kind(self) -> str:
        """The media type in lower case."""
        found = _KIND.match(without_comments(self.fields.get("content-type")))
        return found[1].lower() if found else "text/plain"

    @property
    def content(self) -> bytes:
        """The body, decoded by its transfer encoding. What cannot be decoded stays as it is."""
        encoding = without_comments(self.fields.get("content-transfer-encoding")).strip().lower()
        if encoding == "quoted-printable":
            return one_newline(quopri.decodestring(self.body))
        if encoding == "base64":
            digits = re.sub(rb"[^A-Za-z0-9+/]", b"", self.body)
            digits = digits[:-1] if len(digits) % 4 == 1 else digits
            return one_newline(binascii.a2b_base64(digits + b"=" * (-len(digits) % 4)))
        return self.body

    @property
    def mail(self) -> "Part":
        """The mail in the content, such as a returned one."""
        return parse_mail(self.content)


def parse_mail(raw: bytes) -> Part:
    """The mail in `raw`: headers after any byte order mark, blank lines and From_ lines, and the rest."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raw = raw.decode("utf-16", "replace").encode()
    raw = one_newline(raw)
    before = _BEFORE_HEADERS.match(raw)
    return _part(raw[before.end() :] if before else raw)


def leaves(mail: Part) -> list[Part]:
    """The parts of a mail that are not multiparts, in order."""
    found: list[Part] = []
    _split(mail, found, MAX_DEPTH)
    return found


def blocks(content: bytes) -> Iterator[Fields]:
    """The groups of fields in a machine-readable part, with blank lines between them."""
    for block in re.split(rb"\n[ \t]*\n", content):
        if block.strip():
            yield _part(block.strip(b"\n")).fields


def one_newline(raw: bytes) -> bytes:
    """The bytes with \\n at the end of each line, in place of \\r\\n, \\r\\r\\n or \\r."""
    for _ in range(3):
        if b"\r" in raw:
            raw = raw.replace(b"\r\n", b"\n")
    return raw.replace(b"\r", b"\n")


def without_comments(text: str) -> str:
    for _ in range(5):
        shorter = _COMMENT.sub(" ", text)
        if shorter == text:
            break
        text = shorter
    return text


def _part(raw: bytes) -> Part:
    """Headers and body. The body starts after a blank line, or at the first line that is no header."""
    lines: list[tuple[bytes, list[bytes]]] = []
    start, limit = 0, min(len(raw), _MAX_HEADERS)
    while start < limit:
        end = raw.find(b"\n", start)
        end = len(raw) if end < 0 else end
        line = raw[start:end]
        if not line:
            start = end + 1
            break
        if line[:1] in b" \t" and lines:
            lines[-1][1].append(line)
        elif field := _FIELD.match(line):
            lines.append((field[1], [line[field.end() :]]))
        else:
            break
        start = end + 1
    fields = [(name.decode().lower(), _value(b" ".join(value))) for name, value in lines]
    return Part(Fields(fields), raw[start:])


def _value(raw: bytes) -> str:
    """The value of a field on one line. Bytes that are not UTF-8 are read as Latin-1, which maps each byte."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return " ".join(text.split())[:_MAX_VALUE]


def _split(part: Part, found: list[Part], depth: int) -> None:
    inner = _inner(part) if depth and part.kind.startswith("multipart/") else []
    if not inner:
        found.append(part)
    for each in inner:
        if len(found) >= MAX_PARTS:
            return
        _split(each, found, depth - 1)


def _inner(part: Part) -> list[Part]:
    """The parts of a multipart; a body without its boundary is tried again decoded, and with the boundary that it uses."""
    header = Message()
    header["Content-Type"] = part.fields.get("content-type")
    boundary = header.get_boundary()
    named = boundary.encode("utf-8", "replace") if boundary else None
    content = part.content
    for body in (part.body, content) if content is not part.body else (part.body,):
        guess = re.search(rb"\n--(\S[^\n]{0,69}?)[ \t]*\n", b"\n" + body)
        for each in (named, guess and guess[1]):
            if each and (found := _between(body, each)):
                return found
    return []


def _between(body: bytes, boundary: bytes) -> list[Part]:
    """The parts after each delimiter. Parts after the closing one are found too, since some mails have it too early."""
    body = b"\n" + body
    found: list[Part] = []
    start: int | None = None
    for match in re.finditer(rb"\n--" + re.escape(boundary) + rb"(--)?[ \t]*(?=\n|\Z)", body):
        if start is not None:
            found.append(_part(body[start : match.start()]))
        start = None if match[1] else match.end() + 1
        if len(found) >= MAX_PARTS:
            return found
    if start is not None:
        found.append(_part(body[start:]))
    return found
