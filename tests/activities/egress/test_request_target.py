"""Path and query of URLs are sent as they were given, and never change which host is dialled."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from activities.egress.download import Downloader
from activities.egress.policy import Egress, EgressRefused, request_target
from tests.activities.egress.test_bypasses import guard
from tests.activities.listeners import listening
from tests.activities.webhook.test_webhook import attempt

TARGETS = [
    "/h?response-content-type=application%2Fpdf",
    "/Invoice%20%281%29.pdf?k=1",
    "/a%3Bb",
    "/http%3A%2F%2Fx.example",
    "/a%40b",
    "/x?t=a%2Cb",
    "/invoke?sp=%2Ftriggers%2Fmanual%2Frun&sig=a-b_c",
    "/%7Euser",
    "/~user",
    "/x?",
    "/x?a&b=&&",
    "/ok?a=1&b=c+d%20e",
    "/ok?a=%25s3",
    "/ok/%2fb",
    "/ok?s=a%3D%2B%26",
    "/a/../b/./c//d",
    "/100%",
    "/a;b=c,d:e@f!$&'()*",
    "//127.0.0.2/",
    "/?next=https://app.example/?x=y",
]


@pytest.mark.parametrize("target", TARGETS)
async def test_request_target_is_sent_as_it_was_given(target: str) -> None:
    async with listening("127.0.0.1") as here:
        assert (await attempt(f"http://127.0.0.1:{here.port}{target}")).reason == "HTTP 204"
    assert here.heads[0].split(" ")[1] == target


async def test_downloads_send_it_as_it_was_given() -> None:
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    async with listening("127.0.0.1", answer=ok) as here, guard().session() as session:
        await Downloader(session, guard()).download(f"http://127.0.0.1:{here.port}{TARGETS[0]}", limit=9, timeout=5)
    assert here.heads[0].split(" ")[1] == TARGETS[0]


@pytest.mark.parametrize(
    ("rest", "target"),
    [
        ("", "/"),
        ("?x=1", "/?x=1"),
        ("#part", "/"),
        ("/a#part?x", "/a"),
        ("/a b", "/a%20b"),
        ("/é?ö=ü", "/%C3%A9?%C3%B6=%C3%BC"),
        ('/"<>^`{|}\\', "/%22%3C%3E%5E%60%7B%7C%7D%5C"),
        ("/a\r\nX-Evil: 1", "/aX-Evil:%201"),
        ("/a\x00b", "/a%00b"),
        ("/a\u2028b", "/a%E2%80%A8b"),
    ],
)
def test_what_may_not_stand_in_a_url_is_encoded(rest: str, target: str) -> None:
    assert request_target(f"https://app.example{rest}") == target
    assert Egress(ports=None).checked(f"https://app.example{rest}").raw_path_qs == target


@given(st.text(alphabet="ab./:?#@\\[]%0\t\r\n \x00é", max_size=24))
@example("[]@")
@example("é.")
def test_target_never_changes_the_host_that_was_checked(rest: str) -> None:
    url = f"https://app.example{rest}"
    try:
        checked = Egress(ports=None).checked(url)
    except EgressRefused:
        return
    parsed = URL(url)
    assert (checked.raw_host, checked.port, checked.scheme) == (parsed.raw_host, parsed.port, "https")
    assert (URL(str(checked)).raw_host, URL(str(checked)).port) == (parsed.raw_host, parsed.port)
    assert all("!" <= character <= "~" for character in checked.raw_path_qs)


def test_host_in_brackets_and_its_port_are_kept() -> None:
    checked = Egress(ports=None).checked("https://[2606:4700:4700::1111]:8443/x%2Fy")
    assert (checked.raw_host, checked.port) == ("2606:4700:4700::1111", 8443)
    assert str(checked) == "https://[2606:4700:4700::1111]:8443/x%2Fy"
    assert Egress(ports=None).checked("https://app.example./").raw_host == "app.example."
