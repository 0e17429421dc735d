"""Files that an event names: what goes along, what is left out and said to be, and what keeps the mail back."""

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
    """A web server with files, and a `fetch` that goes through the egress guard, as the worker's does."""

    def __init__(self) -> None:
        self.url = ""
        self.contents: dict[str, tuple[str, bytes]] = {}
        self.statuses: dict[str, int] = {}
        self.asked: list[str] = []
        self.fetch: Fetch

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
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
    app.router.add_get("/{path:.*}", serving.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    serving.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    egress = Egress(allow=[ip_network("127.0.0.1/32")], allow_http=True, ports=None)
    async with egress.session(timeout=5) as session:

        async def fetch(url: str) -> tuple[str, bytes]:
            async with session.get(egress.checked(url), allow_redirects=False) as response:
                if response.status != 200:
                    raise (AttachmentUnavailable if response.status >= 500 else AttachmentRejected)(
                        f"HTTP {response.status}"
                    )
                content = await response.read()
                if len(content) > MAX_FILE_BYTES:
                    raise AttachmentRejected("larger than 7 MB")
                return response.content_type, content

        serving.fetch = fetch
        try:
            yield serving
        finally:
            await runner.cleanup()


def naming(*attachments: Any) -> Event:
    return event(data={"order": "42", "attachments": list(attachments)})


async def gathered(fetch: Fetch | None, happened: Event, *, wanted: bool = True) -> AttachmentSet:
    async with Attachments(fetch).load(happened, wanted=wanted) as found:
        return found


async def test_files_are_fetched_and_named_by_the_event_by_their_link_or_by_their_type() -> None:
    async with files() as serving:
        happened = naming(
            {"url": serving.put("/a/1", b"%PDF 1"), "name": "../Invoice 42.pdf", "type": "application/x-pdf; v=1"},
            {"url": f"{serving.url}/b/%E5%8F%91.csv?x=1"},
            {"url": serving.put("/", b"%PDF 3")},
        )
        serving.contents["/b/发.csv"] = ("text/csv; charset=utf-8", b"a;b")
        found = await gathered(serving.fetch, happened)
    assert [(file.name, file.type, file.content) for file in found.files] == [
        ("Invoice 42.pdf", "application/x-pdf", b"%PDF 1"),
        ("发.csv", "text/csv", b"a;b"),
        ("file 3.pdf", PDF, b"%PDF 3"),
    ]
    assert found.add_notice(TEXT) is TEXT


async def test_nothing_is_fetched_for_a_target_that_wants_no_files() -> None:
    async with files() as serving:
        found = await gathered(serving.fetch, naming({"url": serving.put("/a.pdf")}), wanted=False)
        assert (found, serving.asked) == (AttachmentSet(), [])


@pytest.mark.parametrize("data", [None, "text", [], {}, {"attachments": None}, {"attachments": {"url": "https://x"}}])
async def test_data_of_another_shape_names_no_files(data: Any) -> None:
    assert await gathered(None, event(data=data)) == AttachmentSet()


async def test_without_a_way_to_fetch_the_mail_has_the_links() -> None:
    found = await gathered(None, naming({"url": "https://x.example/a.pdf?a=1&b=2", "name": "A <b>.pdf"}))
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
async def test_what_is_no_link_is_left_out_without_one(given: Any) -> None:
    async def never(url: str) -> tuple[str, bytes]:
        raise AssertionError(url)

    found = await gathered(never, naming(given))
    assert found.files == []
    assert found.left_out == [("file 1", None, "no https link")]
    assert found.add_notice(TEXT).plain.endswith("* file 1, no https link\n")


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
async def test_programs_are_left_out_by_name_by_type_and_by_content(name: str, kind: str, content: bytes) -> None:
    async with files() as serving:
        for given in ({"name": name, "type": kind}, {"name": name}, {"name": name, "type": PDF}):
            found = await gathered(serving.fetch, naming({"url": serving.put("/a", content, kind), **given}))
            [(_, url, why)] = found.left_out
            assert (found.files, url, why) == ([], f"{serving.url}/a", "programs are not sent")


async def test_a_program_by_its_name_is_not_even_fetched() -> None:
    async with files() as serving:
        await gathered(serving.fetch, naming({"url": serving.put("/setup.exe")}))
        assert serving.asked == []


async def test_a_file_that_is_too_large_is_left_out_and_smaller_ones_go_along() -> None:
    async with files() as serving:
        names = [
            ("/over", MAX_FILE_BYTES + 1),
            ("/1", MAX_FILE_BYTES),
            ("/2", MAX_FILE_BYTES),
            ("/3", 1_500_000),
            ("/4", 9),
        ]
        urls = [serving.put(path, b"%" * size) for path, size in names]
        found = await gathered(serving.fetch, naming(*({"url": url} for url in urls)))
    assert [file.name for file in found.files] == ["1.pdf", "2.pdf", "4.pdf"]
    assert [(url, why) for _, url, why in found.left_out] == [
        (urls[0], "larger than 7 MB"),
        (urls[3], "larger than 15 MB together"),
    ]


async def test_a_fetch_that_minds_no_limit_is_minded() -> None:
    async def fetch(_: str) -> tuple[str, bytes]:
        return PDF, b"%" * (MAX_FILE_BYTES + 1)

    [(_, _, why)] = (await gathered(fetch, naming({"url": "https://x.example/a.pdf"}))).left_out
    assert why == "larger than 7 MB"


async def test_of_more_than_ten_files_ten_go_along() -> None:
    async with files() as serving:
        url = serving.put("/a.pdf")
        found = await gathered(serving.fetch, naming(*({"url": url} for _ in range(MAX_FILES + 3))))
        assert len(serving.asked) == len(found.files) == MAX_FILES
    assert found.left_out == [("a.pdf", url, "more than 10 files"), ("2 more", None, "more than 10 files")]


async def test_a_file_that_will_not_be_had_is_left_out_and_the_others_go_along() -> None:
    async with files() as serving:
        serving.statuses["/a.pdf"] = 404
        found = await gathered(serving.fetch, naming({"url": f"{serving.url}/a.pdf"}, {"url": serving.put("/b.pdf")}))
        assert found.left_out == [("a.pdf", f"{serving.url}/a.pdf", "HTTP 404")]
        assert [file.name for file in found.files] == ["b.pdf"]


async def test_a_file_that_may_be_had_later_keeps_the_mail_back() -> None:
    async with files() as serving:
        serving.statuses["/a.pdf"] = 503
        happened = naming({"url": serving.put("/b.pdf")}, {"url": f"{serving.url}/a.pdf"})
        with pytest.raises(AttachmentUnavailable) as late:
            await gathered(serving.fetch, happened)
        assert late.value.reason == "attachment: HTTP 503"
        del serving.statuses["/a.pdf"]
        serving.put("/a.pdf")
        assert len((await gathered(serving.fetch, happened)).files) == 2


@pytest.mark.parametrize("url", ["http://169.254.169.254/latest/meta-data", "http://10.0.0.1/a", "http://[::1]/a"])
async def test_what_may_not_be_dialled_is_left_out(url: str) -> None:
    async with files() as serving:
        [(_, link, why)] = (await gathered(serving.fetch, naming({"url": url}))).left_out
    assert (link, why) == (url, "address not allowed")


async def test_an_error_of_ours_is_no_outcome() -> None:
    async def broken(_: str) -> tuple[str, bytes]:
        raise KeyError

    with pytest.raises(KeyError):
        await gathered(broken, naming({"url": "https://x.example/a.pdf"}))


async def test_few_mails_with_files_are_in_memory_at_the_same_time() -> None:
    inside, most, free = 0, 0, asyncio.Event()
    full = asyncio.Event()

    async def fetch(_: str) -> tuple[str, bytes]:
        return PDF, b"%PDF"

    attachments = Attachments(fetch)

    async def one() -> None:
        nonlocal inside, most
        async with attachments.load(naming({"url": "https://x.example/a.pdf"}), wanted=True):
            inside += 1
            most = max(most, inside)
            if inside == MAX_CONCURRENT:
                full.set()
            await free.wait()
            inside -= 1

    sending = [asyncio.create_task(one()) for _ in range(3 * MAX_CONCURRENT)]
    await full.wait()
    free.set()
    await asyncio.gather(*sending)
    assert most == MAX_CONCURRENT


async def test_files_come_from_real_servers_through_the_guard() -> None:
    egress = Egress(allow=[ip_network("127.0.0.1/32")], allow_http=True, ports=None)
    async with WebhookReceiver() as hooks, egress.session() as session:
        hooks.script("/a", WebhookResponse(status=200, headers={"content-type": "application/pdf"}, body=b"%PDF-"))
        hooks.script("/gone", 404)
        hooks.script("/busy", 503)
        fetch = attachment_fetch(Downloader(session, egress), timeout=5)
        assert await fetch(hooks.url("/a")) == ("application/pdf", b"%PDF-")
        with pytest.raises(AttachmentRejected, match="HTTP 404"):
            await fetch(hooks.url("/gone"))
        with pytest.raises(AttachmentUnavailable, match="HTTP 503"):
            await fetch(hooks.url("/busy"))
        with pytest.raises(EgressRefused):
            await fetch("http://10.0.0.1/")
