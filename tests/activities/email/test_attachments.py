"""Attachments: files that are attached, files that are left out, and files that defer the mail."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import Any

import pytest
from aiohttp import web

from activities.egress.download import Downloader
from activities.egress.policy import Egress, EgressRefused
from activities.email.attachments import (
    MAX_CONCURRENT,
    MAX_CONCURRENT_PER_TENANT,
    MAX_FILE_BYTES,
    MAX_FILES,
    AttachmentRejected,
    Attachments,
    AttachmentSet,
    AttachmentUnavailable,
    Fetch,
    attachment_fetch,
)
from activities.rendering.renderer import EmailText
from bellwire.events import Event
from starter.local.receivers.webhooks import WebhookReceiver, WebhookResponse
from tests.factories import event

PDF = "application/pdf"
TEXT = EmailText(subject="s", text="Paid.\n", html="<body><p>Paid.</p></body>")


class Files:
    """A web server with files, and a `fetch` for it under the egress policy."""

    def __init__(self) -> None:
        self.url = ""
        self.contents: dict[str, tuple[str, bytes]] = {}
        self.statuses: dict[str, int] = {}
        self.requests: list[str] = []
        self.fetch: Fetch

    async def respond(self, request: web.Request) -> web.Response:
        self.requests.append(request.path)
        if request.path in self.statuses:
            return web.Response(status=self.statuses[request.path])
        kind, content = self.contents[request.path]
        return web.Response(body=content, headers={"content-type": kind})

    def put(self, path: str, content: bytes = b"%PDF", kind: str = PDF) -> str:
        self.contents[path] = (kind, content)
        return f"{self.url}{path}"


@asynccontextmanager
async def files() -> AsyncIterator[Files]:
    serving = Files()
    app = web.Application()
    app.router.add_get("/{path:.*}", serving.respond)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    serving.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    egress = Egress(allow=[ip_network("127.0.0.1/32")], allow_http=True, ports=None)
    async with egress.session() as session:
        serving.fetch = attachment_fetch(Downloader(session, egress), timeout=60)
        try:
            yield serving
        finally:
            await runner.cleanup()


def naming(*attachments: Any) -> Event:
    return event(data={"order": "42", "attachments": list(attachments)})


async def load(fetch: Fetch | None, published: Event, *, wanted: bool = True) -> AttachmentSet:
    async with Attachments(fetch).load(published, tenant="acme", wanted=wanted) as found:
        return found


async def test_files_are_named_by_the_event_the_link_or_the_type() -> None:
    async with files() as serving:
        published = naming(
            {"url": serving.put("/a/1", b"%PDF 1"), "name": "../Invoice 42.pdf", "type": "application/x-pdf; v=1"},
            {"url": f"{serving.url}/b/%E5%8F%91.csv?x=1"},
            {"url": serving.put("/", b"%PDF 3")},
        )
        serving.contents["/b/发.csv"] = ("text/csv; charset=utf-8", b"a;b")
        found = await load(serving.fetch, published)
    assert [(file.name, file.type, file.content) for file in found.files] == [
        ("Invoice 42.pdf", "application/x-pdf", b"%PDF 1"),
        ("发.csv", "text/csv", b"a;b"),
        ("file 3.pdf", PDF, b"%PDF 3"),
    ]
    assert found.add_notice(TEXT) is TEXT


async def test_nothing_is_fetched_unless_the_target_asks_for_files() -> None:
    async with files() as serving:
        found = await load(serving.fetch, naming({"url": serving.put("/a.pdf")}), wanted=False)
        assert (found, serving.requests) == (AttachmentSet(), [])


@pytest.mark.parametrize("data", [None, "text", [], {}, {"attachments": None}, {"attachments": {"url": "https://x"}}])
async def test_data_of_another_shape_has_no_files(data: Any) -> None:
    assert await load(None, event(data=data)) == AttachmentSet()


async def test_without_fetch_the_mail_has_links_to_the_files() -> None:
    found = await load(None, naming({"url": "https://x.example/a.pdf?a=1&b=2", "name": "A <b>.pdf"}))
    text = found.add_notice(TEXT)
    assert text.text == (
        "Paid.\n\nNot attached:\n* A _b_.pdf, attachments are disabled: https://x.example/a.pdf?a=1&b=2\n"
    )
    assert text.html == (
        '<body><p>Paid.</p><p>Not attached:</p><ul><li><a href="https://x.example/a.pdf?a=1&amp;b=2">A _b_.pdf</a>, '
        "attachments are disabled</li></ul></body>"
    )


@pytest.mark.parametrize(
    "given",
    [
        None,
        "https://x.example/a.pdf",
        {},
        {"url": 7},
        {"url": "javascript:alert(1)"},
        {"url": "file:///etc/passwd"},
        {"url": "https://user:secret@x.example/"},
        {"url": "https://[x"},
        {"url": "https://x.example/\r\nX: y"},
        {"url": "https://x.example/" + "a" * 2048},
    ],
)
async def test_an_invalid_link_is_left_out_without_a_link(given: Any) -> None:
    async def never(url: str) -> tuple[str, bytes]:
        raise AssertionError(url)

    found = await load(never, naming(given))
    assert found.files == []
    assert found.left_out == [("file 1", None, "no https link")]
    assert found.add_notice(TEXT).text.endswith("* file 1, no https link\n")


@pytest.mark.parametrize(
    ("name", "kind", "content"),
    [
        ("setup.exe", "application/octet-stream", b"x"),
        ("invoice.pdf.JS", PDF, b"x"),
        ("run. exe .", PDF, b"x"),
        ("a.pdf", "application/x-msdownload", b"x"),
        ("a.pdf", "text/javascript; charset=utf-8", b"x"),
        ("a.pdf", PDF, b"MZ\x90\0"),
        ("a.pdf", PDF, b"\x7fELF\2"),
        ("a.txt", "text/plain", b"#!/bin/sh\n"),
        ("a.pdf", PDF, b"\xcf\xfa\xed\xfe\x07"),
    ],
)
async def test_programs_are_left_out_by_name_type_and_content(name: str, kind: str, content: bytes) -> None:
    async with files() as serving:
        for given in ({"name": name, "type": kind}, {"name": name}, {"name": name, "type": PDF}):
            found = await load(serving.fetch, naming({"url": serving.put("/a", content, kind), **given}))
            [(_, url, why)] = found.left_out
            assert (found.files, url, why) == ([], f"{serving.url}/a", "programs are not sent")


async def test_a_program_by_its_name_is_not_fetched() -> None:
    async with files() as serving:
        await load(serving.fetch, naming({"url": serving.put("/setup.exe")}))
        assert serving.requests == []


async def test_files_above_the_limit_are_left_out_and_smaller_ones_are_attached() -> None:
    async with files() as serving:
        names = [
            ("/over", MAX_FILE_BYTES + 1),
            ("/1", MAX_FILE_BYTES),
            ("/2", MAX_FILE_BYTES),
            ("/3", 1_500_000),
            ("/4", 9),
        ]
        urls = [serving.put(path, b"%" * size) for path, size in names]
        found = await load(serving.fetch, naming(*({"url": url} for url in urls)))
    assert [file.name for file in found.files] == ["1.pdf", "2.pdf", "4.pdf"]
    assert [(url, why) for _, url, why in found.left_out] == [
        (urls[0], "larger than 7000000 bytes"),
        (urls[3], "larger than 15 MB together"),
    ]


async def test_a_fetch_that_ignores_the_limit_is_checked() -> None:
    async def fetch(_: str) -> tuple[str, bytes]:
        return PDF, b"%" * (MAX_FILE_BYTES + 1)

    [(_, _, why)] = (await load(fetch, naming({"url": "https://x.example/a.pdf"}))).left_out
    assert why == "larger than 7 MB"


async def test_of_more_than_ten_files_ten_are_attached() -> None:
    async with files() as serving:
        url = serving.put("/a.pdf")
        found = await load(serving.fetch, naming(*({"url": url} for _ in range(MAX_FILES + 3))))
        assert len(serving.requests) == len(found.files) == MAX_FILES
    assert found.left_out == [("a.pdf", url, "more than 10 files"), ("2 more", None, "more than 10 files")]


async def test_a_rejected_file_is_left_out_and_the_others_are_attached() -> None:
    async with files() as serving:
        serving.statuses["/a.pdf"] = 404
        found = await load(serving.fetch, naming({"url": f"{serving.url}/a.pdf"}, {"url": serving.put("/b.pdf")}))
        assert found.left_out == [("a.pdf", f"{serving.url}/a.pdf", "HTTP 404")]
        assert [file.name for file in found.files] == ["b.pdf"]


async def test_an_unavailable_file_fails_the_whole_set() -> None:
    async with files() as serving:
        serving.statuses["/a.pdf"] = 503
        published = naming({"url": serving.put("/b.pdf")}, {"url": f"{serving.url}/a.pdf"})
        with pytest.raises(AttachmentUnavailable) as unavailable:
            await load(serving.fetch, published)
        assert unavailable.value.reason == "attachment: HTTP 503"
        del serving.statuses["/a.pdf"]
        serving.put("/a.pdf")
        assert len((await load(serving.fetch, published)).files) == 2


@pytest.mark.parametrize("url", ["http://169.254.169.254/latest/meta-data", "http://10.0.0.1/a", "http://[::1]/a"])
async def test_a_file_at_a_forbidden_address_is_left_out(url: str) -> None:
    async with files() as serving:
        [(_, link, why)] = (await load(serving.fetch, naming({"url": url}))).left_out
    assert (link, why) == (url, "address not allowed")


async def test_an_unexpected_error_is_raised() -> None:
    async def broken(_: str) -> tuple[str, bytes]:
        raise KeyError

    with pytest.raises(KeyError):
        await load(broken, naming({"url": "https://x.example/a.pdf"}))


async def test_the_number_of_mails_with_files_in_memory_is_limited() -> None:
    held, most, release = 0, 0, asyncio.Event()
    full = asyncio.Event()

    async def fetch(_: str) -> tuple[str, bytes]:
        return PDF, b"%PDF"

    attachments = Attachments(fetch)

    async def one(tenant: str) -> None:
        nonlocal held, most
        async with attachments.load(naming({"url": "https://x.example/a.pdf"}), tenant=tenant, wanted=True):
            held += 1
            most = max(most, held)
            if held == MAX_CONCURRENT:
                full.set()
            await release.wait()
            held -= 1

    sending = [asyncio.create_task(one(f"tenant-{n}")) for n in range(3 * MAX_CONCURRENT)]
    await full.wait()
    release.set()
    await asyncio.gather(*sending)
    assert most == MAX_CONCURRENT


async def test_slow_files_of_one_tenant_do_not_hold_up_the_mails_of_another() -> None:
    release, slow = asyncio.Event(), 0

    async def fetch(url: str) -> tuple[str, bytes]:
        nonlocal slow
        if "slow" in url:
            slow += 1
            await release.wait()
        return PDF, b"%PDF"

    attachments = Attachments(fetch)

    async def one(tenant: str, url: str) -> int:
        async with attachments.load(naming({"url": url}), tenant=tenant, wanted=True) as found:
            return len(found.files)

    waiting = [asyncio.create_task(one("evil", f"https://slow.example/{n}")) for n in range(24)]
    async with asyncio.timeout(5):
        while slow < MAX_CONCURRENT_PER_TENANT:
            await asyncio.sleep(0.01)
        assert await one("good", "https://x.example/a.pdf") == 1
    assert slow == MAX_CONCURRENT_PER_TENANT
    release.set()
    assert await asyncio.gather(*waiting) == [1] * 24


async def test_files_are_downloaded_under_the_egress_policy() -> None:
    egress = Egress(allow=[ip_network("127.0.0.1/32")], allow_http=True, ports=None)
    async with WebhookReceiver() as hooks, egress.session() as session:
        hooks.script("/a", WebhookResponse(status=200, headers={"content-type": "application/pdf"}, body=b"%PDF-"))
        hooks.script("/gone", 404)
        hooks.script("/busy", 503)
        fetch = attachment_fetch(Downloader(session, egress), timeout=60)
        assert await fetch(hooks.url("/a")) == ("application/pdf", b"%PDF-")
        with pytest.raises(AttachmentRejected, match="HTTP 404"):
            await fetch(hooks.url("/gone"))
        with pytest.raises(AttachmentUnavailable, match="HTTP 503"):
            await fetch(hooks.url("/busy"))
        with pytest.raises(EgressRefused):
            await fetch("http://10.0.0.1/")


async def test_a_host_in_a_script_with_joiners_is_fetched() -> None:
    fetched: list[str] = []

    async def fetch(url: str) -> tuple[str, bytes]:
        fetched.append(url)
        return PDF, b"%PDF"

    url = "https://\u0dc1\u0dca\u200d\u0dbb\u0dd3.example/a.pdf"
    happened = event(data={"attachments": [{"url": url}]})
    async with Attachments(fetch).load(happened, tenant="acme", wanted=True) as found:
        assert [file.name for file in found.files] == ["a.pdf"]
    assert fetched == [url]
