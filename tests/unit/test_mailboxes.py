# ruff: noqa: RUF001 - characters that look like others are what this is about
"""Mailboxes have one canonical form: in it they are stored and sent, and by their key they are compared."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.email.message import Composer
from bellwire.email.return_path import ReturnPath
from bellwire.email.unsubscribe_links import LinkKeys
from bellwire.errors import SubscriptionInvalid
from bellwire.events import event_key
from bellwire.formats.mailboxes import MAX_MAILBOX, Sender, canonical_mailbox, folded, mailbox_key, parse_sender
from bellwire.service.settings import Settings, SettingsInvalid
from bellwire.targets import EmailTarget

KEYS = LinkKeys("a2" * 22)
#: Spellings of one mailbox each: the form that is stored and sent, and others that are accepted.
SPELLINGS = {
    "ann@example.com": ["Ann@Example.COM", "ａｎｎ＠ｅｘａｍｐｌｅ．ｃｏｍ", "ann@example。com", "ａnn@example.com"],
    "kunde@xn--strae-oqa.de": ["kunde@straße.de", "KUNDE@STRAẞE.de", "kunde@XN--STRAE-OQA.DE", "kunde@stra\u00dfe.de"],
    "jürgen@xn--bcher-kva.example": [
        "ju\u0308rgen@bücher.example",
        "JÜRGEN@BÜCHER.example",
        "jürgen@bu\u0308cher.example",
    ],
    "カ@xn--fsqu00a.example": ["\uff76@例子.example"],
    # A joiner is a letter of its own in these scripts: without it, the domain is another one.
    "ann@xn--mgba3gch31f060k.com": ["ann@نامه\u200cای.com", "Ann@نامه\u200cای．COM"],
    "ann@xn--10cl1a0b660p.com": ["ann@ශ්\u200dරී.com"],
}
REFUSED = [
    "a@b，c.com",
    "a，b@c.com",
    "a＜b＞@c.com",
    "a；b@c.com",
    "a＠b@c.com",
    "a@b@c.com",
    "x²@a.com",
    "ﬁ@a.com",
    "ann\ufe0f@a.com",
    "ann\u200b@a.com",
    "ann\u200d@a.com",
    "ann@a\u200db.com",
    "ann@a\u00adb.com",
    "a\u034fnn@a.com",
    "ann\u3164@a.com",
    "ann\u00a0@a.com",
    "ann@a.com.",
    "ann@a.com。",
    "ann@192.0.2.1",
    "ann@[192.0.2.1]",
    "ann@a_b.com",
    "ann\0@a.com",
    '"a b"@c.com',
    "é" * 33 + "@a.com",
    "a" * 20 + "@" + ".".join(["ü" * 55] * 4) + ".com",
]
ANY = st.text(st.characters() | st.sampled_from("aAßẞſσςΣİıＡ＠@..²é\u0301\u00ad\u200d-"), max_size=12)


@pytest.mark.parametrize(("canonical", "spelling"), [(one, each) for one in SPELLINGS for each in SPELLINGS[one]])
def test_spellings_of_one_mailbox_are_equal_in_all_that_looks_for_it(canonical: str, spelling: str) -> None:
    assert mailbox_key(canonical_mailbox(spelling)) == mailbox_key(spelling) == mailbox_key(canonical)
    assert EmailTarget(to=(spelling, canonical)).recipients == (canonical_mailbox(spelling),)
    path = ReturnPath("bounces@mail.example.com", KEYS)
    token = path.read(path.sender(event_key("/shop", "1"), "sub", canonical))
    assert token is not None
    assert path.verifies(token, "sub", spelling)
    request = KEYS.read(KEYS.unsubscribe_token("sub", spelling))
    assert request is not None
    assert request.match(["bob@example.com", canonical]) == canonical


@pytest.mark.parametrize(("canonical", "spelling"), [(one, SPELLINGS[one][0]) for one in list(SPELLINGS)[1:]])
def test_an_address_is_stored_in_its_canonical_form(canonical: str, spelling: str) -> None:
    assert EmailTarget(to=spelling).to == canonical


def test_the_case_of_the_local_part_is_kept_and_not_compared() -> None:
    assert EmailTarget(to="Ann@Example.COM").to == "Ann@example.com"
    assert EmailTarget(to=("Ann@example.com", "ann@EXAMPLE.com", "bob@example.com")).recipients == (
        "Ann@example.com",
        "bob@example.com",
    )


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_that_two_programs_read_differently_is_refused(address: str) -> None:
    with pytest.raises(SubscriptionInvalid, match="is not an email address"):
        EmailTarget(to=address)


def test_mailboxes_of_two_people_differ() -> None:
    people = ["groß@a.de", "gross@a.de", "kunde@straße.de", "kunde@strasse.de", "ann@a.de", "ann@b.de", "a.nn@a.de"]
    assert len({mailbox_key(address) for address in people}) == len(people)


@given(ANY | st.text(st.sampled_from("aÉßé王カＡ.+-"), max_size=9), ANY | st.sampled_from(["a.de", "ß.de", "ａ。de"]))
def test_what_is_accepted_can_be_sent_and_stays_the_same(local: str, domain: str) -> None:
    try:
        canonical = canonical_mailbox(f"{local}@{domain}")
    except ValueError:
        return
    assert canonical_mailbox(canonical) == canonical
    assert mailbox_key(canonical) == mailbox_key(f"{local}@{domain}")
    sent, _, host = canonical.rpartition("@")
    assert host.isascii()
    assert len(canonical.encode()) <= MAX_MAILBOX
    assert not set(sent) & set(' <>@,;:()[]\\"\r\n\0')


@given(ANY)
def test_a_key_is_its_own_key_in_every_normalization_and_case(text: str) -> None:
    key = mailbox_key(text)
    assert mailbox_key(key) == key
    assert folded(folded(text)) == folded(text)
    assert folded(unicodedata.normalize("NFD", text)) == folded(text)


@given(st.from_regex(r"\A[a-zA-Z0-9.+-]{1,20}\Z"))
def test_upper_case_has_the_same_key(local: str) -> None:
    assert mailbox_key(f"{local.upper()}@example.com") == mailbox_key(f"{local.lower()}@EXAMPLE.com")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("b@example.net", Sender("", "b@example.net")),
        ("<b@example.net>", Sender("", "b@example.net")),
        ("Bell <b@example.net>", Sender("Bell", "b@example.net")),
        ("Bell<b@example.net>", Sender("Bell", "b@example.net")),
        ("Bell @ Work <b@example.net>", Sender("Bell @ Work", "b@example.net")),
        ("noreply@example.net <b@example.net>", Sender("noreply@example.net", "b@example.net")),
        ('"noreply@example.net" <b@example.net>', Sender("noreply@example.net", "b@example.net")),
        ('"Bell, \\"the\\" (x)" <b@example.net>', Sender('Bell, "the" (x)', "b@example.net")),
        ("Acme, Inc. (Berlin) <b@example.net>", Sender("Acme, Inc. (Berlin)", "b@example.net")),
        ("b@example.net (Bell)", Sender("Bell", "b@example.net")),
        ("=?utf-8?q?B=C3=A9ll?= <b@example.net>", Sender("Béll", "b@example.net")),
        ('"=?utf-8?q?x?=" <b@example.net>', Sender("=?utf-8?q?x?=", "b@example.net")),
        ("通知 <b@straße.de>", Sender("通知", "b@xn--strae-oqa.de")),
    ],
)
def test_a_sender_is_the_address_in_the_last_angle_brackets(text: str, expected: Sender) -> None:
    assert parse_sender(text) == expected
    assert Composer(text).address == expected.address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Bell",
        "Bell <>",
        "Team: a@b.com, c@d.com;",
        "Team:;",
        "a@b.com, c@d.com",
        "a@b.com, Bell <c@d.com>",
        "A <a@b.com>, C <c@d.com>",
        "a@b.com <c@d.com> x",
        'Bell <"b c"@d.com>',
        "Bell <@hub.com:b@d.com>",
        '"Bell <b@d.com>',
        "a@b.com (x) c@d.com",
    ],
)
def test_a_list_a_group_or_an_address_that_cannot_be_sent_from_is_refused(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="address"):
        parse_sender(text)
    if text:
        monkeypatch.setenv("BELLWIRE_EMAIL_FROM", text)
        with pytest.raises(SettingsInvalid, match="BELLWIRE_EMAIL_FROM: must be an address"):
            Settings.read()


def test_an_address_is_found_by_the_letters_of_a_label_that_is_only_accepted_as_an_a_label() -> None:
    assert EmailTarget(to="ann@xn--i-7iq.ws").to == "ann@xn--i-7iq.ws"
    assert mailbox_key("ann@i❤.ws") == mailbox_key("Ann@I❤\ufe0f.ws") == mailbox_key("ann@xn--i-7iq.ws")
