"""Attachments: files that an event names by URL. Each attempt fetches them, within limits.

    "data": {"attachments": [{"url": "https://…/invoice.pdf", "name": "Invoice 42.pdf", "type": "application/pdf"}]}

A temporary failure to fetch a file defers the delivery. A file that fails permanently, is too large or would be refused by
receivers is left out, and the mail says so with a link to it.
"""

import html as escaping
import mimetypes
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from activities.egress.download import Downloader, DownloadFailed
from activities.egress.name_lookups import requesting_tenant
from activities.egress.policy import EgressRefused
from activities.email.files import File, file_name, media_type
from activities.rendering.html.final import append_to_body
from activities.rendering.renderer import EmailText
from activities.tenant_slots import TenantSlots
from bellwire.events import Event
from bellwire.formats.hosts import is_visible

#: Files of a mail, bytes of one file, and bytes of all files. In base64 that is 20 MB; relays commonly accept 25.
MAX_FILES, MAX_FILE_BYTES, MAX_TOTAL_BYTES = 10, 7_000_000, 15_000_000
#: Mails with files that one process holds in memory at the same time, and those of one tenant: a slow server holds up only
#: the tenant that names it.
MAX_CONCURRENT, MAX_CONCURRENT_PER_TENANT = 8, 2
#: Longest URL in characters.
MAX_URL = 2048

#: Fetches one URL under the egress policy and returns its content type and at most MAX_FILE_BYTES of content. Raises
#: EgressRefused or AttachmentRejected for a permanent failure, AttachmentUnavailable for a temporary one.
Fetch = Callable[[str], Awaitable[tuple[str, bytes]]]

#: File name extensions that mail services refuse whatever the content, since a click runs the file.
_EXTENSIONS = """
ade adp apk app appx appxbundle bat cab chm cmd com command cpl desktop diagcab dll dmg exe hta img ins iso isp jar jnlp js
jse lib lnk mde mjs msc msi msix msp mst nsh pif pkg ps1 ps2 psc1 psc2 reg scf scr sct settingcontent-ms sh shb shs sys url
vb vbe vbs vhd vhdx vxd ws wsc wsf wsh xll xnk
"""
_EXECUTABLE_EXTENSIONS = frozenset(_EXTENSIONS.split())
_EXECUTABLE_TYPES = re.compile(
    r"application/(?:x-(?:ms-?dos-program|ms-?download|dosexec|executable|sh|csh|bat|msi|elf|mach-binary|ms-?installer|"
    r"sharedlib|java-archive|ms-shortcut)|vnd\.microsoft\.portable-executable|vnd\.android\.package-archive|java-archive|"
    r"(?:x-|ecma|java)script|javascript|hta)|text/(?:(?:x-)?(?:java|ecma|vb|shell)script|x-(?:sh|python|msdos-batch))"
)
#: Magic bytes of programs: Windows, Linux, macOS (both byte orders, universal), scripts, Windows shortcuts.
_EXECUTABLE_MAGIC = (b"MZ", b"\x7fELF", b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe",
             b"\xca\xfe\xba\xbe", b"#!", b"L\x00\x00\x00\x01\x14\x02\x00")  # fmt: skip


class AttachmentRejected(Exception):
    """A file is refused or cannot be fetched, now or later. `reason` contains no address and no content."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class AttachmentUnavailable(Exception):
    """A file cannot be fetched now, but perhaps later. `reason` contains no address and no content."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = f"attachment: {reason}"


def attachment_fetch(downloader: Downloader, *, timeout: float) -> Fetch:
    """A Fetch that uses `downloader`, within `timeout` seconds for each file."""

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
    """The files to attach to a mail, and the files that are left out."""

    files: list[File] = field(default_factory=list)
    #: Name, link or None, and reason of each file that is left out.
    left_out: list[tuple[str, str | None, str]] = field(default_factory=list)

    def add_notice(self, text: EmailText) -> EmailText:
        """The text with a list of the files that are left out at its end."""
        if not self.left_out:
            return text
        lines = [f"{name}, {reason}{f': {url}' if url else ''}" for name, url, reason in self.left_out]
        items = "".join(f"<li>{_item(*each)}</li>" for each in self.left_out)
        return EmailText(
            subject=text.subject,
            text="\n".join([text.text.rstrip(), "", "Not attached:", *(f"* {line}" for line in lines), ""]),
            html=None if text.html is None else append_to_body(text.html, f"<p>Not attached:</p><ul>{items}</ul>"),
        )


class Attachments:
    """Loads the files of events by `fetch`. Without `fetch`, all files are left out."""

    def __init__(self, fetch: Fetch | None) -> None:
        self._fetch = fetch
        self._slots = TenantSlots(MAX_CONCURRENT, per_tenant=MAX_CONCURRENT_PER_TENANT)

    @asynccontextmanager
    async def load(self, event: Event, *, tenant: str, wanted: bool) -> AsyncIterator[AttachmentSet]:
        """The files of an event, held in memory within the context. Empty unless `wanted`. Raises AttachmentUnavailable."""
        entries = _entries(event) if wanted else []
        if not entries:
            yield AttachmentSet()
            return
        requesting_tenant.set(tenant)
        async with self._slots.hold(tenant):
            yield await self._load_all(entries)

    async def _load_all(self, entries: list[Any]) -> AttachmentSet:
        found = AttachmentSet()
        bytes_left = MAX_TOTAL_BYTES
        for number, entry in enumerate(entries, start=1):
            url, name, kind = _parse(entry)
            name = name or f"file {number}"
            try:
                if number > MAX_FILES:
                    raise AttachmentRejected(f"more than {MAX_FILES} files")  # noqa: TRY301
                file = await self._load_one(url, name, kind, bytes_left=bytes_left)
            except AttachmentRejected as rejection:
                found.left_out.append((name, url, rejection.reason))
                if number > MAX_FILES and len(entries) > number:
                    found.left_out.append((f"{len(entries) - number} more", None, rejection.reason))
                    break
            else:
                bytes_left -= len(file.content)
                found.files.append(file)
        return found

    async def _load_one(self, url: str | None, name: str, kind: str | None, *, bytes_left: int) -> File:
        if url is None:
            raise AttachmentRejected("no https link")
        _refuse_programs(name, media_type(kind))
        if self._fetch is None:
            raise AttachmentRejected("attachments are disabled")
        if bytes_left <= 0:
            raise AttachmentRejected("too large together")
        try:
            content_type, content = await self._fetch(url)
        except EgressRefused as refusal:
            raise AttachmentRejected(refusal.reason) from None
        if len(content) > MAX_FILE_BYTES:
            raise AttachmentRejected(f"larger than {MAX_FILE_BYTES // 1_000_000} MB")
        if len(content) > bytes_left:
            raise AttachmentRejected(f"larger than {MAX_TOTAL_BYTES // 1_000_000} MB together")
        _refuse_programs(name, media_type(content_type))
        kind = media_type(kind or content_type)
        if "." not in name:
            name += mimetypes.guess_extension(kind) or ""
        _refuse_programs(name, kind)
        if content.startswith(_EXECUTABLE_MAGIC):
            raise AttachmentRejected("programs are not sent")
        return File(name=name, type=kind, content=content)


def _entries(event: Event) -> list[Any]:
    given = event.data.get("attachments") if isinstance(event.data, dict) else None
    return given if isinstance(given, list) else []


def _parse(given: Any) -> tuple[str | None, str, str | None]:
    """Link, name and media type of an entry in the event; None for a link that browsers should not open."""
    fields = given if isinstance(given, dict) else {}
    url, name, kind = (fields.get(key) if isinstance(fields.get(key), str) else None for key in ("url", "name", "type"))
    try:
        parts = urlsplit(url or "")
        usable = parts.scheme in {"https", "http"} and parts.hostname and "@" not in parts.netloc
    except ValueError:
        return None, file_name(name) if name else "", kind
    if url is None or not usable or len(url) > MAX_URL or not is_visible(url) or " " in url:
        return None, file_name(name) if name else "", kind
    last = unquote(parts.path.rpartition("/")[2], errors="replace")
    return url, file_name(name or last) if name or last else "", kind


def _refuse_programs(name: str, kind: str) -> None:
    """Raise AttachmentRejected for a program, recognized by its extension or its media type."""
    if name.rpartition(".")[2].strip().lower() in _EXECUTABLE_EXTENSIONS or _EXECUTABLE_TYPES.fullmatch(kind):
        raise AttachmentRejected("programs are not sent")


def _item(name: str, url: str | None, reason: str) -> str:
    name, reason = escaping.escape(name), escaping.escape(reason)
    return f'<a href="{escaping.escape(url)}">{name}</a>, {reason}' if url else f"{name}, {reason}"
