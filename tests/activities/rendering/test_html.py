"""Inlined styles and plain text of HTML mails."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.rendering.html import append_to_body, html_to_text, inline_styles

PAGE = """<!doctype html><html><head><title>t</title><style>
h1 { color: red } .total > td { padding: 4px } p:hover { color: green } @media (max-width: 9px) { h1 { color: blue } }
</style></head><body><h1>Paid</h1><table><tr class="total"><td>Total</td><td>19.90</td></tr></table></body></html>"""


def test_scripts_styles_and_titles_are_not_in_the_plain_text() -> None:
    assert html_to_text("<head><title>t</title></head><script>x</script><p>a</p>\n\n\n<p>b") == "a\n\nb"
    assert html_to_text(PAGE) == "Paid\n\nTotal 19.90"


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ('<p>See <a href="https://x.example/a?b=1&amp;c=2">the <b>order</b></a>.', "See the order (https://x.example/a?b=1&c=2)."),
        ('<a href="https://x.example/">https://x.example/</a>', "https://x.example/"),
        ('<a href="mailto:ann@example.com">Ann</a>', "Ann (mailto:ann@example.com)"),
        ('<a href="javascript:alert(1)">click</a> <a href="#top">up</a> <a name="x">here</a>', "click up here"),
        ('<a href="https://x.example/\n\nBcc: eve">odd</a>', "odd"),
        ("<ul><li>one<li>two</ul>", "* one\n* two"),
        ("<p>one<br>two &lt;three&gt; &amp; four</p>", "one\ntwo <three> & four"),
        ("", ""),
        ("<!-- nothing -->", ""),
    ],
)  # fmt: skip
def test_html_is_converted_to_text_with_its_links(html: str, text: str) -> None:
    assert html_to_text(html) == text


@given(st.text(alphabet=st.sampled_from('<>/!-="a&;# \n?pdivtrl')))
def test_malformed_html_is_converted_to_text(html: str) -> None:
    assert html_to_text(html) == html_to_text(html).strip()


def test_styles_are_inlined_and_media_queries_stay() -> None:
    page = inline_styles(PAGE)
    assert '<h1 style="color: red' in page
    assert page.count('<td style="padding: 4px') == 2
    assert "@media (max-width: 9px) { h1 { color: blue } }" in page
    assert "h1 { color: red }" not in page


def test_a_page_without_styles_is_unchanged() -> None:
    assert inline_styles("<P>Hi") == "<P>Hi"


@pytest.mark.parametrize(
    "page", ["<style>", "<style>}}}{{{</style><p>a", "<style>a{b:c", "<div>" * 3000 + "<style>p{}</style>"]
)
def test_invalid_css_does_not_fail(page: str) -> None:
    assert inline_styles(page)


async def test_no_style_sheet_is_loaded_from_the_network_or_the_disk(tmp_path: Path) -> None:
    requests = []

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readline())
        writer.close()

    (tmp_path / "a.css").write_text("p { color: red }")
    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/a.css"
    async with server:
        for place in (url, (tmp_path / "a.css").as_uri(), str(tmp_path / "a.css")):
            sheet = f'<link rel="stylesheet" href="{place}"><style>@import "{place}"; b {{ color: blue }}</style>'
            page = await asyncio.to_thread(inline_styles, f"<html><head>{sheet}</head><body><p>a<b>c</b></body></html>")
            assert '<b style="color: blue' in page
            assert "<p>" in page
    assert requests == []


def test_html_is_appended_at_the_end_of_the_body() -> None:
    assert append_to_body("<body>a</BODY ></html>", "<p>b</p>") == "<body>a<p>b</p></BODY ></html>"
    assert append_to_body("a", "<p>b</p>") == "a<p>b</p>"
