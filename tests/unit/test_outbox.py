"""The outbox: what was caught is shown, and hostile mails do nothing in the browser that shows them."""

import asyncio
import json
import smtplib
from collections.abc import AsyncIterator
from email.message import EmailMessage
from html.parser import HTMLParser
from typing import Any

import aiohttp
import pytest

from starter.local.outbox.catching import Catchers, catching
from starter.local.outbox.messages import Caught, Kind, Outbox, mail
from tests.activities.sms.channels import Claims, first, sms_channel

SCRIPT = "<script>alert('owned')</script>"


@pytest.fixture
async def catchers() -> AsyncIterator[Catchers]:
    async with catching(0) as running:
        yield running


@pytest.fixture
async def browser(catchers: Catchers) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(catchers.url) as session:
        yield session


async def text_of(browser: aiohttp.ClientSession, path: str) -> str:
    async with browser.get(path) as response:
        assert response.status == 200, path
        return await response.text()


async def json_of(browser: aiohttp.ClientSession, path: str) -> Any:
    return json.loads(await text_of(browser, path))


def hostile_mail() -> bytes:
    message = EmailMessage()
    message["From"] = "Mallory <mallory@example.com>"
    message["To"] = "ann@example.com"
    message["Subject"] = f'{SCRIPT}"><img src=x onerror=alert(1)>'
    message["X-Note"] = SCRIPT
    message.set_content(f"plain {SCRIPT} </pre>")
    message.add_alternative(
        f"<p onclick=alert(1)>html {SCRIPT}</p><meta http-equiv=refresh content='0;url=http://x'>", subtype="html"
    )
    name = f'{SCRIPT}"\r\nSet-Cookie: x=1;.html'
    message.add_attachment(b"<script>1</script>", maintype="text", subtype="html", filename="placeholder")
    raw = message.as_bytes()
    encoded = "".join(f"%{byte:02X}" for byte in name.encode())
    return raw.replace(b'filename="placeholder"', f"filename*=utf-8''{encoded}".encode())


class Elements(HTMLParser):
    """The elements of a page, with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


async def test_a_mail_is_caught_and_shown_with_its_parts(catchers: Catchers, browser: aiohttp.ClientSession) -> None:
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = "Ihre Bestellung Nr. 42", "bell@example.net", "ann@example.com"
    message.set_content("Bezahlt: 19,90 €")
    message.add_alternative("<p>Bezahlt: <b>19,90 €</b></p>", subtype="html")
    message.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="Rechnung Nr. 42.pdf")

    def send() -> None:
        with smtplib.SMTP(catchers.smtp.host, catchers.smtp.port) as client:
            client.send_message(message)

    await asyncio.to_thread(send)
    (shown,) = (await json_of(browser, "/api/messages"))["messages"]
    assert (shown["kind"], shown["from"], shown["to"]) == ("email", "bell@example.net", ["ann@example.com"])
    assert shown["title"] == "Ihre Bestellung Nr. 42"
    assert (shown["text"].strip(), shown["html"].strip()) == ("Bezahlt: 19,90 €", "<p>Bezahlt: <b>19,90 €</b></p>")
    assert shown["attachments"] == [{"name": "Rechnung Nr. 42.pdf", "media_type": "application/pdf", "size": 4}]
    page = await text_of(browser, f"/messages/{shown['id']}")
    assert "Ihre Bestellung Nr. 42" in page
    assert "Rechnung Nr. 42.pdf" in page
    assert "Ihre Bestellung Nr. 42" in await text_of(browser, "/?kind=email")
    assert "Ihre Bestellung" not in await text_of(browser, "/?kind=sms")
    assert "Rechnung" in await text_of(browser, f"/messages/{shown['id']}/source")
    async with browser.get(f"/messages/{shown['id']}/attachments/0") as response:
        assert await response.read() == b"%PDF"
        assert "Rechnung%20Nr.%2042.pdf" in response.headers["Content-Disposition"]


async def test_no_script_of_a_mail_runs_on_any_page(catchers: Catchers, browser: aiohttp.ClientSession) -> None:
    number = catchers.outbox.add(mail("mallory@example.com", ("ann@example.com",), hostile_mail()))
    for path in ("/", f"/messages/{number}"):
        page = await text_of(browser, path)
        elements = Elements(page).found
        assert not {"script", "img", "p onclick"} & {tag for tag, _ in elements if tag != "p"}
        assert not [attributes for _, attributes in elements if any(name.startswith("on") for name in attributes)]
        assert "&lt;script&gt;" in page
    frames = [
        attributes
        for tag, attributes in Elements(await text_of(browser, f"/messages/{number}")).found
        if tag == "iframe"
    ]
    assert [(frame["src"], frame["sandbox"]) for frame in frames] == [(f"/messages/{number}/html", "")]


async def test_every_response_has_a_policy_and_the_html_of_a_mail_is_sandboxed(
    catchers: Catchers, browser: aiohttp.ClientSession
) -> None:
    number = catchers.outbox.add(mail("mallory@example.com", ("ann@example.com",), hostile_mail()))
    at = f"/messages/{number}"
    policies = {}
    for path in ("/", at, f"{at}/html", f"{at}/source", f"{at}/attachments/0", "/api/messages", "/style.css"):
        async with browser.get(path) as response:
            assert response.status == 200
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert "Set-Cookie" not in response.headers
            policies[path] = response.headers["Content-Security-Policy"]
            types = response.content_type
        if path.endswith(("source", "attachments/0")):
            assert types in {"text/plain", "application/octet-stream"}
    assert all("default-src 'none'" in policy and "script-src" not in policy for policy in policies.values())
    html = policies[f"{at}/html"]
    assert html.startswith("sandbox;")
    assert "allow-" not in html


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff\xfe\x00",
        b"Subject: =?utf-8?b?//////?=\n\nx",
        b"Content-Type: text/plain; charset=nonsense\n\nx\xff",
        b"From: <<<@@\nTo: a@[\nDate: never\n\nx",
        b"Content-Type: multipart/mixed; boundary=\n\n--",
        b"Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: message/rfc822\n\n--x--",
        b"Content-Transfer-Encoding: base64\n\n!!!!",
        b"Content-Disposition: attachment; filename*=utf-8''%ff%00\n\nx",
    ],
)
async def test_a_mail_that_is_no_mail_is_shown_by_its_source(
    catchers: Catchers, browser: aiohttp.ClientSession, raw: bytes
) -> None:
    number = catchers.outbox.add(mail("x", ("ann@example.com",), raw))
    await text_of(browser, "/")
    await text_of(browser, f"/messages/{number}")
    await json_of(browser, "/api/messages")
    async with browser.get(f"/messages/{number}/source") as response:
        assert raw in await response.read()


async def test_an_sms_is_caught(catchers: Catchers, browser: aiohttp.ClientSession) -> None:
    async with aiohttp.ClientSession() as session:
        await sms_channel(catchers.sms, session, Claims()).attempt(first())
    (shown,) = (await json_of(browser, "/api/messages?kind=sms"))["messages"]
    assert (shown["to"], shown["text"][:20]) == (["+14155550123"], shown["title"][:20])


async def test_webhooks_are_caught_and_answered_with_the_status_of_their_path(
    catchers: Catchers, browser: aiohttp.ClientSession
) -> None:
    event = {"type": "order.paid", "source": "/shop", "data": {"order": SCRIPT}}
    async with browser.post("/hooks/orders?x=1", json=event, headers={"Host": "app.example"}) as response:
        assert response.status == 204
    async with browser.post("/hooks/503", data=b"\xff") as response:
        assert response.status == 503
    async with browser.options("/hooks", headers={"WebHook-Request-Origin": "sender.example"}) as response:
        assert response.headers["WebHook-Allowed-Origin"] == "sender.example"
    newest, second, oldest = (await json_of(browser, "/api/messages?kind=webhook"))["messages"]
    assert [newest["title"], second["to"], oldest["title"]] == ["OPTIONS", ["POST /hooks/503"], "order.paid"]
    assert SCRIPT not in await text_of(browser, f"/messages/{oldest['id']}")


async def test_everything_can_be_deleted_but_not_by_another_site(
    catchers: Catchers, browser: aiohttp.ClientSession
) -> None:
    catchers.outbox.add(Caught(kind=Kind.SMS, sender="", to=("+1",), title="x", text="x"))
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
        async with browser.post("/delete", headers=headers) as response:
            assert response.status == 403
    async with browser.get("/", headers={"Host": "evil.example"}) as response:
        assert response.status == 403  # a name that someone else has pointed to this machine
    assert len(catchers.outbox.list()) == 1
    async with browser.delete("/api/messages") as response:
        assert response.status == 204
    assert catchers.outbox.list() == []
    catchers.outbox.add(Caught(kind=Kind.SMS, sender="", to=("+1",), title="x", text="x"))
    async with browser.post("/delete", headers={"Origin": catchers.url.rstrip("/")}) as response:
        assert (response.status, "Nothing was sent yet" in await response.text()) == (200, True)


async def test_the_page_and_the_catchers_listen_on_the_loopback_address_only(catchers: Catchers) -> None:
    assert catchers.url.startswith("http://127.0.0.1:")
    assert (catchers.smtp.host, catchers.sms.host) == ("127.0.0.1", "127.0.0.1")


def test_memory_is_bounded_by_number_and_by_bytes() -> None:
    outbox = Outbox(max_messages=3, max_bytes=1000)
    for number in range(5):
        outbox.add(Caught(kind=Kind.SMS, sender="", to=("+1",), title=str(number), text="x"))
    assert [caught.title for _, caught in outbox.list()] == ["4", "3", "2"]
    outbox.add(Caught(kind=Kind.SMS, sender="", to=("+1",), title="big", text="x" * 999))
    assert ([caught.title for _, caught in outbox.list()], outbox.dropped) == (["big", "4"], 4)
    outbox.add(Caught(kind=Kind.SMS, sender="", to=("+1",), title="huge", text="x" * 5000))
    assert [caught.title for _, caught in outbox.list()] == ["huge"]


@pytest.mark.parametrize(
    ("given", "mails", "sms"),
    [
        ({}, True, True),
        ({"BELLWIRE_SMTP_RELAYS": "smtp://mail.example"}, False, True),
        ({"BELLWIRE_TWILIO_ACCOUNT_SID": "AC1"}, True, False),
        ({"BELLWIRE_SMS_PROVIDERS": "providers.toml"}, True, False),
    ],
)
async def test_a_relay_or_provider_that_is_set_is_used_instead(
    catchers: Catchers, given: dict[str, str], mails: bool, sms: bool
) -> None:
    settings = catchers.settings(given)
    assert ("BELLWIRE_SMTP_PORT" in settings, "BELLWIRE_TWILIO_URL" in settings) == (mails, sms)
