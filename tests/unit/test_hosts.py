# ruff: noqa: RUF001 - characters that look like others are what this is about
"""Host names have one canonical form by IDNA 2008, the same for mail domains, URLs, relays and settings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.egress.policy import Egress, EgressRefused
from activities.sms.provider_config import ProviderConfig
from bellwire.email.relay_urls import parse_relays
from bellwire.errors import SubscriptionInvalid
from bellwire.formats.hosts import MAX_HOST, MAX_LABEL, canonical_host
from bellwire.formats.web_urls import with_canonical_host
from bellwire.service.settings import Settings
from bellwire.targets import EmailTarget, WebhookTarget

#: Names whose IDNA 2003 form is somebody else's, by their form in IDNA 2008.
DEVIATIONS = {
    "straße.de": "xn--strae-oqa.de",
    "क्\u200dष.example": "xn--11b2ezcw70k.example",
    "faß.de": "xn--fa-hia.de",
    "βόλος.gr": "xn--nxasmm1c.gr",
    "STRAẞE.de": "xn--strae-oqa.de",
    "نامه\u200cای.example": "xn--mgba3gch31f060k.example",
}
CANONICAL = {
    "bücher.example": "xn--bcher-kva.example",
    "BÜCHER.example": "xn--bcher-kva.example",
    "bu\u0308cher.example": "xn--bcher-kva.example",
    "XN--BCHER-KVA.Example": "xn--bcher-kva.example",
    "ｅｘａｍｐｌｅ．com": "example.com",
    "example。com": "example.com",
    "例え｡jp": "xn--r8jz45g.jp",
    "a_b.straße.de": "a_b.xn--strae-oqa.de",
    "r3---sn.example.com": "r3---sn.example.com",
    "xn--ls8h.la": "xn--ls8h.la",  # an emoji's, in use
    "192.0.2.1": "192.0.2.1",
    "１９２.0.2.1": "192.0.2.1",
    "printer.local": "printer.local",
    "localhost": "localhost",
}
NEVER = [
    "",
    ".",
    "a..b",
    ".example",
    "a" * (MAX_LABEL + 1) + ".example",
    ".".join(["a" * MAX_LABEL] * 4) + ".de",
    "ß" * 60 + ".de",
    "-a.example",
    "a-.example",
    "127.1",
    "2130706433",
    "0x7f000001",
    "1.2.3.256",
    "١٢٧.1",
    "b，c.com",
    "b＜c.com",
    "a／b.com",
    "a b.com",
    "a%b.com",
    "xn--a.example",
    "xn--.example",
    "xn--80.example",
    "a\u200db.com",
    "a\ud83d.com",
    "i❤.ws",
    "\u0301a.com",
    "x" * 5000 + "é",
]
ANY = st.text(st.characters() | st.sampled_from("a0.-_ßς。．\u200d١ü"), max_size=20) | st.from_regex(
    r"\A(?:[a-zßüς例éÀ-ÿа-я]{1,8}[.。]){1,3}[a-z]{2,3}\Z"
)


@pytest.mark.parametrize(("given_name", "expected"), [*CANONICAL.items(), *DEVIATIONS.items()])
def test_name_has_its_form_of_idna_2008(given_name: str, expected: str) -> None:
    assert canonical_host(given_name) == expected
    assert canonical_host(f"{given_name}.") == expected
    assert canonical_host(expected) == expected


@pytest.mark.parametrize("host", NEVER)
def test_host_that_can_never_be_reached_is_refused_for_mail_and_webhooks(host: str) -> None:
    with pytest.raises(ValueError, match="has a host"):
        canonical_host(host)
    with pytest.raises(SubscriptionInvalid):
        EmailTarget(to=f"ann@{host}")
    with pytest.raises(SubscriptionInvalid):
        WebhookTarget(url=f"https://{host}/")


@pytest.mark.parametrize(
    "host",
    ["straße.de", "printer.local", "localhost", "xn--bcher-kva.example", "例え｡jp", "نامه\u200cای.com", "ශ්\u200dරී.com"],
)
def test_host_that_may_be_reached_is_accepted_for_mail_and_webhooks(host: str) -> None:
    assert EmailTarget(to=f"ann@{host}").to == f"ann@{canonical_host(host)}"
    assert WebhookTarget(url=f"https://{host}/")


@given(ANY)
def test_the_canonical_form_is_ascii_short_and_its_own_canonical_form(host: str) -> None:
    try:
        canonical = canonical_host(host)
    except ValueError:
        return
    assert canonical.isascii()
    assert canonical == canonical.lower()
    assert ":" in canonical or len(canonical) <= MAX_HOST
    assert canonical_host(canonical) == canonical


@pytest.mark.parametrize(("host", "expected"), DEVIATIONS.items())
def test_the_host_that_is_dialled_named_in_tls_and_in_the_host_header_is_that_of_idna_2008(
    host: str, expected: str
) -> None:
    url = Egress(ports=None).checked(f"https://{host}/a%2fb?x=é")
    assert (url.raw_host, url.raw_path_qs) == (expected, "/a%2fb?x=%C3%A9")


@pytest.mark.parametrize("host", ["a\u200db.com", "i❤.ws"])
def test_host_that_idna_2008_refuses_is_not_requested_by_idna_2003(host: str) -> None:
    with pytest.raises(EgressRefused, match="invalid URL"):
        Egress(ports=None).checked(f"https://{host}/")


def test_an_attachment_in_another_script_keeps_its_host() -> None:
    assert Egress(ports=None).checked("https://FAß.de:8443/a.pdf").raw_host == "xn--fa-hia.de"


def test_relays_settings_and_providers_have_hosts_in_idna_2008(monkeypatch: pytest.MonkeyPatch) -> None:
    (relay,) = parse_relays("smtp+starttls://u:p@mail.straße.de")
    assert relay.host == "mail.xn--strae-oqa.de"
    for name, value in {
        "SMTP_HOST": "mail.straße.de",
        "EMAIL_FROM": "Bell <bell@straße.de>",
        "DKIM_DOMAIN": "Straße.de",
        "DKIM_SELECTOR": "s1",
        "DKIM_KEY": "key",
        "WEBHOOK_ORIGIN": "straße.de",
        "TWILIO_URL": "https://straße.de/api",
    }.items():
        monkeypatch.setenv(f"BELLWIRE_{name}", value)
    settings = Settings.read()
    assert settings.smtp_host == "mail.xn--strae-oqa.de"
    assert (settings.dkim_domain, settings.webhook_origin) == ("xn--strae-oqa.de", "xn--strae-oqa.de")
    assert settings.twilio_url == "https://xn--strae-oqa.de/api"
    fields = {"name": "acme", "sender": "+14155550100", "body": {"fields": {"t": "{text}"}}, "response": {"id": "/id"}}
    provider = ProviderConfig.model_validate({**fields, "url": "https://a_b.straße.de:8443/{to}"})
    assert provider.url == "https://a_b.xn--strae-oqa.de:8443/{to}"


def test_with_a_canonical_host_the_rest_of_a_url_stays_as_it_was() -> None:
    assert with_canonical_host("https://FAß.de/ß?ß#ß") == "https://xn--fa-hia.de/ß?ß#ß"
    assert with_canonical_host("https://App.Example/") == "https://App.Example/"
