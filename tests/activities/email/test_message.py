"""The bytes of composed mails. No value of an event can change the structure of a mail."""

import base64
import re
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import dkim  # type: ignore[import-untyped]
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from activities.email.dkim import DkimSigner
from activities.email.files import File, file_name, media_type
from activities.email.message import Composer, ascii_domain
from activities.rendering.renderer import EmailText, Renderer
from activities.rendering.text import one_line
from bellwire.email.unsubscribe_links import LinkKeys, UnsubscribeLinks
from tests.activities.email.test_dkim import RSA, pem, record
from tests.factories import event, send_request, subscription

KEY = base64.b64encode(b"k" * 32).decode()
LINKS = UnsubscribeLinks("https://bell.example", KEY)
SIGNER = DkimSigner("example.net", "bell1", pem(RSA))
ANN = "ann@example.com"
HEADERS = {"From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"}
LISTED = {"List-Unsubscribe", "List-Unsubscribe-Post"}
#: Any character, and often those that end a header, steer a reader or have no encoding.
WILD = st.text(
    st.characters(exclude_categories=())
    | st.sampled_from('\r\n\0\t :=?<>"\\,;.@/\x0b\x0c\x85\u2028\u202e\ud800\udc00é订'),
    max_size=150,
)
PLAIN = EmailText(subject="Order 42 is paid", text="Paid.\n")


async def made(
    text: EmailText = PLAIN, *, to: str = ANN, sender: str = "Bell <bell@example.net>", **fields: Any
) -> bytes:
    composer = Composer(sender, links=fields.pop("links", None), signer=fields.pop("signer", None))
    drafted = {"message_id": "<1@example.net>", "subscription_id": "sub", **fields}
    return await composer.compose(await composer.draft(text, **drafted), to)


def read(mail: bytes) -> EmailMessage:
    return message_from_bytes(mail, policy=policy.default)


def body_of(mail: EmailMessage, kind: str) -> str:
    part = mail.get_body((kind,))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")


async def test_a_mail_has_each_header_once_and_text_before_html() -> None:
    mail = read(await made(EmailText(subject="Hi", text="Text\n", html="<p>Text</p>"), links=LINKS, signer=SIGNER))
    assert sorted(mail.keys()) == sorted(HEADERS | LISTED | {"DKIM-Signature"})
    assert (mail["Auto-Submitted"], mail["Message-ID"], mail["To"]) == ("auto-generated", "<1@example.net>", ANN)
    assert parsedate_to_datetime(mail["Date"]).tzinfo is not None
    assert mail.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]


async def test_each_recipient_has_a_signed_unsubscribe_link_of_its_own() -> None:
    composer = Composer("bell@example.net", links=LINKS, signer=SIGNER)
    draft = await composer.draft(PLAIN, message_id="<1@example.net>", subscription_id="sub")
    for address in (ANN, "bob@bücher.example"):
        raw = await composer.compose(draft, address)
        mail = read(raw)
        assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        link = re.fullmatch(r"<https://bell\.example/unsubscribe/([\w-]+)>", mail["List-Unsubscribe"])
        assert link
        unsubscribe = LinkKeys(KEY).read(link[1])
        assert unsubscribe is not None
        assert (unsubscribe.subscription_id, unsubscribe.match([ANN, "bob@bücher.example"])) == ("sub", address)
        assert {"list-unsubscribe", "list-unsubscribe-post"} <= set(re.findall(r"[a-z-]+", str(mail["DKIM-Signature"])))
        assert dkim.verify(raw, dnsfunc=record)
        assert not dkim.verify(raw.replace(b"One-Click", b"No-Click"), dnsfunc=record)
        assert not dkim.verify(raw.replace(b"/unsubscribe/", b"/unsubscribe/x"), dnsfunc=record)


async def test_without_links_and_signer_there_is_neither_link_nor_signature() -> None:
    assert not (LISTED | {"DKIM-Signature"}) & set(read(await made()).keys())


@settings(max_examples=250, deadline=None)
@given(subject=WILD, name=WILD, message_id=WILD, subscription_id=WILD, file=WILD, kind=WILD, to=WILD)
@example("a\r\nBcc: e@x", "b\r\nBcc: e@x", "<\r\nBcc: e@x>", "d\nX: y", "e\r\nX: y", "text/plain\r\nX: y", "f\r\nX: y")
@example("a" * 2000, "b" * 2000, "c" * 300, "d" * 63, "e" * 2000, "f/" + "g" * 900, "h" * 254)
@example("订" * 2000, "订" * 2000, "订" * 300, "订" * 63, "订" * 2000, "订/订", "订" * 80)
async def test_no_value_can_end_its_header(
    subject: str, name: str, message_id: str, subscription_id: str, file: str, kind: str, to: str
) -> None:
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    mail = await made(
        EmailText(subject=subject, text="Paid.\n"),
        to=to,
        sender=f'"{quoted}" <bell@example.net>',
        message_id=message_id,
        subscription_id=subscription_id,
        files=[File(name=file, type=kind, content=b"%PDF")],
        links=LINKS,
    )
    head, _, body = mail.partition(b"\r\n\r\n")
    names = [line.partition(b":")[0].decode() for line in head.split(b"\r\n") if line[:1] not in (b" ", b"\t")]
    assert sorted(names) == sorted(HEADERS | LISTED)
    assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", head)
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", mail)
    assert max(map(len, mail.split(b"\r\n"))) <= 998
    assert all(line.strip() for line in head.split(b"\r\n"))
    part_heads = [part.partition(b"\r\n\r\n")[0] for part in re.split(rb"--=+\w+==(?:--)?\r\n", body)]
    known = (b"content-", b"mime-version:", b" ", b"\t")
    assert all(line.lower().startswith(known) for each in part_heads for line in each.split(b"\r\n") if line)
    message = read(mail)
    assert len(list(message.iter_attachments())) == 1
    assert message["From"].addresses[0].addr_spec == "bell@example.net"


@settings(max_examples=60, deadline=None)
@given(order=st.text(max_size=120), name=st.text(max_size=40))
async def test_subject_and_text_of_any_data_are_read_unchanged(order: str, name: str) -> None:
    data = {"order": order.encode(errors="replace").decode(), name.encode(errors="replace").decode(): 1}
    text = await Renderer(None).email(send_request(subscription({"channel": "email", "to": ANN}), event(data=data)))
    message = read(await made(text))
    assert one_line(str(message["Subject"]), limit=300) == text.subject
    assert body_of(message, "plain") == text.text


@pytest.mark.parametrize(
    "name", ["Bell", "Bell, the", 'O\'Bell "x"', "通知" * 40, "=?utf-8?q?x?=", "Bell " * 19 + "Bell"]
)
async def test_the_senders_name_is_read_unchanged(name: str) -> None:
    quoted = name.replace('"', '\\"')
    mail = await made(sender=f'"{quoted}" <bell@example.net>')
    # Python's parser of addresses leaves spaces between encoded words, which RFC 2047 §6.2 has readers drop.
    field = str(message_from_bytes(mail)["From"])
    assert str(make_header(decode_header(field))).replace("\\", "").replace("\r\n", "") in {
        f"{name} <bell@example.net>",
        f'"{name}" <bell@example.net>',
    }
    assert all(len(line) <= 78 for line in mail.partition(b"\r\n\r\n")[0].split(b"\r\n"))


async def test_lone_surrogates_are_replaced_and_pairs_are_joined() -> None:
    odd = "a \ud83d\ude00 b \ud800 c"
    mail = read(await made(EmailText(subject=odd, text=odd, html=f"<style>p{{}}</style><p>{odd}</p>")))
    assert mail["Subject"] == body_of(mail, "plain").strip() == "a 😀 b \ufffd c"
    assert "😀 b \ufffd" in body_of(mail, "html")


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:image/png;base64,AAAA", "ftp://x.example/y.png"])
async def test_no_unsafe_url_of_a_style_is_in_the_mail_that_is_sent(url: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    style = f"td {{ color: red; background: url('{url}') }}"
    (tmp_path / "a" / "email.html").write_text(f"<style>{style}</style><table><tr><td>a</td></tr></table>")
    to = subscription({"channel": "email", "to": ANN})
    text = await Renderer(tmp_path).email(send_request(to, event(type="a")))
    html = body_of(read(await made(text)), "html")
    assert '<td style="color: red' in html
    assert url not in html


@pytest.mark.parametrize("line", ["x" * 5000, "订" * 5000, "From me", ".", " trailing ", "=" * 300])
async def test_long_lines_are_encoded_and_the_text_is_unchanged(line: str) -> None:
    mail = await made(EmailText(subject="s", text=f"{line}\nend\n", html=f"<p>{line}</p>\n"))
    assert max(map(len, mail.split(b"\r\n"))) <= 300  # a list header aside, 78
    assert mail.isascii()
    assert body_of(read(mail), "plain") == f"{line}\nend\n"
    assert body_of(read(mail), "html") == f"<p>{line}</p>\n"


async def test_files_are_attached_unchanged() -> None:
    contents = [bytes(range(256)) * 50, b"a;b\r\n", b""]
    files = [
        File(name="发票 42.pdf", type="application/pdf", content=contents[0]),
        File(name="a.csv", type="text/csv", content=contents[1]),
        File(name="x", type="message/rfc822", content=contents[2]),
    ]
    raw = await made(EmailText(subject="s", text="t\n", html="<p>t</p>"), files=files, signer=SIGNER)
    mail = read(raw)
    assert mail.get_content_type() == "multipart/mixed"
    assert body_of(mail, "html").strip() == "<p>t</p>"
    parts = list(mail.iter_attachments())
    assert [part.get_filename() for part in parts] == ["发票 42.pdf", "a.csv", "x"]
    assert [part.get_content_type() for part in parts] == ["application/pdf", "text/csv", "application/octet-stream"]
    assert [part.get_payload(decode=True) for part in parts] == contents
    assert [part.get_content_disposition() for part in parts] == ["attachment"] * 3
    assert dkim.verify(raw, dnsfunc=record)
    assert max(map(len, raw.split(b"\r\n"))) <= 100


@pytest.mark.parametrize(
    ("given_name", "name"),
    [
        ("invoice.pdf", "invoice.pdf"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Windows\\a.pdf", "a.pdf"),
        ("..", "file"),
        ("", "file"),
        (" .hidden. ", "hidden"),
        ("fdp.exe\u202eevil", "fdp.exeevil"),
        ('a"b\r\nX: y<c>|d?.txt', "a_bX_ y_c_d_.txt"),
        ("发票\0.pdf", "发票.pdf"),
        ("x" * 300 + ".pdf", "x" * 96 + ".pdf"),
        ("x." + "y" * 300, "x." + "y" * 98),
    ],
)
def test_file_names_are_valid_on_every_system(given_name: str, name: str) -> None:
    assert file_name(given_name) == name


@pytest.mark.parametrize(
    ("given_type", "kind"),
    [
        ("application/pdf", "application/pdf"),
        (" Text/CSV; charset=utf-8", "text/csv"),
        ("multipart/mixed", "application/octet-stream"),
        ("message/rfc822", "application/octet-stream"),
        ("pdf", "application/octet-stream"),
        ("a/b\r\nX: y", "application/octet-stream"),
        (None, "application/octet-stream"),
    ],
)
def test_an_invalid_media_type_is_replaced(given_type: str | None, kind: str) -> None:
    assert media_type(given_type) == kind


def test_a_domain_is_encoded_in_ascii() -> None:
    assert ascii_domain("ann@bücher.example") == "ann@xn--bcher-kva.example"
