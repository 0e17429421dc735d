"""Attachments: files that an event names by URL, fetched at each attempt, within limits.

    "data": {"attachments": [{"url": "https://…/invoice.pdf", "name": "Invoice 42.pdf", "type": "application/pdf"}]}

A file that cannot be had now keeps the mail back, until the schedule tries again. One that never will be, is too large or
would be refused by receivers, is left out, and the mail says so with its link.
"""

import asyncio
import html as escaping
import mimetypes
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from activities.egress.download import Downloader, DownloadFailed
from activities.egress.policy import EgressRefused
from activities.email.message import File, file_name, media_type
from activities.rendering.html import with_more
from activities.rendering.renderer import EmailText
from bellwire.events import Event

#: Most files of a mail; bytes of one, and of all. In base64 that is 20 MB, and relays commonly take 25.
MAX_FILES, MAX_FILE_BYTES, MAX_TOTAL_BYTES = 10, 7_000_000, 15_000_000
#: Mails with files that one process has in memory at the same time.
MAX_AT_ONCE = 4
#: Longest URL that is fetched.
MAX_URL = 2048

#: Fetches one URL through the egress guard: its content type and its content, MAX_FILE_BYTES at most. Raises EgressRefused
#: or FileRefused for what will not be had later either, NotNow for what may be.
Fetch = Callable[[str], Awaitable[tuple[str, bytes]]]

#: Endings that mail services refuse whatever is inside, since a click runs it.
_ENDINGS = """
ade adp apk app appx appxbundle bat cab chm cmd com command cpl desktop diagcab dll dmg exe hta img ins iso isp jar jnlp js
jse lib lnk mde mjs msc msi msix msp mst nsh pif pkg ps1 ps2 psc1 psc2 reg scf scr sct settingcontent-ms sh shb shs sys url
vb vbe vbs vhd vhdx vxd ws wsc wsf wsh xll xnk
"""
_EXECUTABLE = frozenset(_ENDINGS.split())
_EXECUTABLE_TYPES = re.compile(
    r"application/(?:x-(?:ms-?dos-program|ms-?download|dosexec|executable|sh|csh|bat|msi|elf|mach-binary|ms-?installer|"
    r"sharedlib|java-archive|ms-shortcut)|vnd\.microsoft\.portable-executable|vnd\.android\.package-archive|java-archive|"
    r"(?:x-|ecma|java)script|javascript|hta)|text/(?:(?:x-)?(?:java|ecma|vb|shell)script|x-(?:sh|python|msdos-batch))"
)
#: What programs begin with: Windows, Linux, macOS (both orders, and several in one), scripts, Windows shortcuts.
_PROGRAMS = (b"MZ", b"\x7fELF", b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe",
             b"\xca\xfe\xba\xbe", b"#!", b"L\x00\x00\x00\x01\x14\x02\x00")  # fmt: skip


class AttachmentRejected(Exception):
    """The file will not be had, now or later. `reason` is a few words without address or content."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class AttachmentUnavailable(Exception):
    """A file cannot be had now; `reason` is a few words without address or content."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = f"attachment: {reason}"


def fetching(downloader: Downloader, *, timeout: float) -> Fetch:
    """What fetches files from strangers, within `timeout` seconds for each."""

    async def fetch(url: str) -> tuple[str, bytes]:
        try:
            return await downloader.download(url, limit=MAX_FILE_BYTES, timeout=timeout)
        except DownloadFailed as failure:
            raise (AttachmentUnavailable if failure.temporary or failure.operator_fault else AttachmentRejected)(
                failure.reason
            ) from None

    return fetch


@dataclass(kw_only=True)
class AttachmentSet:
    """The files that go with a mail, and those that do not: a line for each."""

    files: list[File] = field(default_factory=list)
    #: Name, link or None, and why.
    left_out: list[tuple[str, str | None, str]] = field(default_factory=list)

    def told(self, text: EmailText) -> EmailText:
        """The text with what was left out at its end."""
        if not self.left_out:
            return text
        lines = [f"{name}, {why}{f': {url}' if url else ''}" for name, url, why in self.left_out]
        items = "".join(f"<li>{_item(*each)}</li>" for each in self.left_out)
        return EmailText(
            subject=text.subject,
            text="\n".join([text.plain.rstrip(), "", "Not attached:", *(f"* {line}" for line in lines), ""]),
            html=None if text.html is None else with_more(text.html, f"<p>Not attached:</p><ul>{items}</ul>"),
        )


class Attachments:
    """Gathers the files of events by `fetch`; with None nothing is fetched, and all are left out."""

    def __init__(self, fetch: Fetch | None) -> None:
        self._fetch = fetch
        self._room = asyncio.Semaphore(MAX_AT_ONCE)

    @asynccontextmanager
    async def of(self, event: Event, *, wanted: bool) -> AsyncIterator[AttachmentSet]:
        """The files of an event, for as long as they are needed; none unless `wanted`. Raises NotNow."""
        named = _named(event) if wanted else []
        if not named:
            yield AttachmentSet()
            return
        async with self._room:
            yield await self._gathered(named)

    async def _gathered(self, named: list[Any]) -> AttachmentSet:
        found = AttachmentSet()
        room = MAX_TOTAL_BYTES
        for number, given in enumerate(named, start=1):
            url, name, kind = _read(given)
            name = name or f"file {number}"
            try:
                if number > MAX_FILES:
                    raise AttachmentRejected(f"more than {MAX_FILES} files")  # noqa: TRY301
                file = await self._one(url, name, kind, room=room)
            except AttachmentRejected as refusal:
                found.left_out.append((name, url, refusal.reason))
                if number > MAX_FILES and len(named) > number:
                    found.left_out.append((f"{len(named) - number} more", None, refusal.reason))
                    break
            else:
                room -= len(file.content)
                found.files.append(file)
        return found

    async def _one(self, url: str | None, name: str, kind: str | None, *, room: int) -> File:
        if url is None:
            raise AttachmentRejected("no https link")
        _check_kind(name, media_type(kind))
        if self._fetch is None:
            raise AttachmentRejected("files are not fetched here")
        if room <= 0:
            raise AttachmentRejected("too large together")
        try:
            from_retry_after, content = await self._fetch(url)
        except EgressRefused as refusal:
            raise AttachmentRejected(refusal.reason) from None
        if len(content) > MAX_FILE_BYTES:
            raise AttachmentRejected(f"larger than {MAX_FILE_BYTES // 1_000_000} MB")
        if len(content) > room:
            raise AttachmentRejected(f"larger than {MAX_TOTAL_BYTES // 1_000_000} MB together")
        _check_kind(name, media_type(from_retry_after))
        kind = media_type(kind or from_retry_after)
        if "." not in name:
            name += mimetypes.guess_extension(kind) or ""
        _check_kind(name, kind)
        if content.startswith(_PROGRAMS):
            raise AttachmentRejected("programs are not sent")
        return File(name=name, type=kind, content=content)


def _named(event: Event) -> list[Any]:
    given = event.data.get("attachments") if isinstance(event.data, dict) else None
    return given if isinstance(given, list) else []


def _read(given: Any) -> tuple[str | None, str, str | None]:
    """Link, name and stated type of what an event names; a link that no browser should open is none."""
    fields = given if isinstance(given, dict) else {}
    url, name, kind = (fields.get(key) if isinstance(fields.get(key), str) else None for key in ("url", "name", "type"))
    try:
        parts = urlsplit(url or "")
        usable = parts.scheme in {"https", "http"} and parts.hostname and "@" not in parts.netloc
    except ValueError:
        return None, file_name(name) if name else "", kind
    if url is None or not usable or len(url) > MAX_URL or not url.isprintable() or " " in url:
        return None, file_name(name) if name else "", kind
    last = unquote(parts.path.rpartition("/")[2], errors="replace")
    return url, file_name(name or last) if name or last else "", kind


def _check_kind(name: str, kind: str) -> None:
    """Raise FileRefused for a program, by the ending of its name or by its type."""
    if name.rpartition(".")[2].strip().lower() in _EXECUTABLE or _EXECUTABLE_TYPES.fullmatch(kind):
        raise AttachmentRejected("programs are not sent")


def _item(name: str, url: str | None, why: str) -> str:
    name, why = escaping.escape(name), escaping.escape(why)
    return f'<a href="{escaping.escape(url)}">{name}</a>, {why}' if url else f"{name}, {why}"
