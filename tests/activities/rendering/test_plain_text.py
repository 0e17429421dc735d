"""The plain text of mails that have only HTML."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.rendering.html.final import finish

PAGE = """<!doctype html><html><head><title>t</title><style>h1 { color: red }</style></head>
<body><h1>Paid</h1><table><tr class="total"><td>Total</td><td>19.90</td></tr></table></body></html>"""


def html_to_text(html: str) -> str:
    return finish(html).text


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
        ("<ol><li>one<li>two<ul><li>a</ul><li>three</ol>", "1. one\n2. two\n* a\n3. three"),
        ("<p>one<br>two &lt;three&gt; &amp; four</p>", "one\ntwo <three> & four"),
        ("<div>a</div> <div>b</div>c<br><br><br>d", "a\nb\nc\n\nd"),
        ("<p> a <b> b</b>\n c&nbsp;d</p>", "a b c d"),
        ("<pre>a\n  b</pre>c", "a\nb\n\nc"),
        ('<div style="display:none">preview <br><b>text</b></div>shown', "shown"),
        ("a\ue000b\ue001c", "abc"),
        ("", ""),
        ("<!-- nothing -->", ""),
    ],
)  # fmt: skip
def test_html_is_converted_to_text_with_its_links(html: str, text: str) -> None:
    assert html_to_text(html) == text


@pytest.mark.parametrize("depth", [300, 3_000])
@pytest.mark.parametrize("tag", ["div", "b", "table><tr><td", "blockquote", "ul><li"])
def test_deeply_nested_html_still_yields_its_text(depth: int, tag: str) -> None:
    assert "hello" in html_to_text(f"<{tag}>" * depth + "hello")


@given(st.text(alphabet=st.sampled_from('<>/!-="a&;# \n?pdivtrl')))
def test_malformed_html_is_converted_to_text(html: str) -> None:
    assert html_to_text(html) == html_to_text(html).strip()


def test_text_full_of_urls_is_converted_once() -> None:
    urls = "http://" * 36_000
    assert html_to_text(urls) == urls
    assert html_to_text(f'<a href="{urls}">x</a>' + "(" + urls) == f"x ({urls})({urls}"
