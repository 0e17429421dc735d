"""The options of a webhook target: what is refused, and that private values are never shown."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import ValidationError

from bellwire.errors import SubscriptionInvalid, fields_in_error
from bellwire.keys import certificates
from bellwire.models import TRUSTED
from bellwire.subscriptions import Subscription
from bellwire.targets import WebhookFormat, WebhookTarget
from bellwire.targets.stored_secret import HIDDEN
from tests.certificates import Authority, new_key, parts
from tests.factories import subscription

URL = "https://app.example/hooks"
AUTHORITY = Authority()
VALID = AUTHORITY.certificate("acme")


def hook(**options: Any) -> dict[str, Any]:
    return {"channel": "webhook", "url": URL, **options}


def error_of(**options: Any) -> str:
    with pytest.raises(ValidationError) as error:
        subscription(hook(**options))
    assert "s3cret" not in str(error.value)
    return fields_in_error(error.value)


def test_omitted_options_have_defaults() -> None:
    target = WebhookTarget(url=URL)
    assert target.format is WebhookFormat.CLOUDEVENTS
    assert (target.headers, target.timeout, target.client_certificate) == ({}, None, None)


HEADERS = "target.headers: "


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "xml"}, "target.format: must be 'cloudevents', 'cloudevents-binary', 'standard'"),
        ({"timeout": 0.9}, "target.timeout: must be greater than or equal to 1"),
        ({"timeout": 30.1}, "target.timeout: must be less than or equal to 30"),
        ({"headers": ["s3cret"]}, "target.headers: must be an object"),
        ({"headers": {"x": 5}}, "target.headers.x: must be a string"),
        *(
            ({"headers": {name: "s3cret"}}, f"{HEADERS}{name} is set by Bellwire or by HTTP")
            for name in (
                *(
                    "Host",
                    "content-length",
                    "Content-Type",
                    "content-encoding",
                    "connection",
                    "Transfer-Encoding",
                    "te",
                ),
                *("trailer", "upgrade", "expect", "keep-alive", "user-agent", "accept-encoding", "proxy-authorization"),
                *("webhook-id", "Webhook-Signature", "webhook-request-origin", "ce-id", "CE-anything"),
            )
        ),
        *(
            ({"headers": {name: "s3cret"}}, f"{HEADERS}{name!r} is not a valid header name")
            for name in ("", "x y", "x:y", "x\r\ny", "x\0", "größe", ":authority", "x/y")
        ),
        ({"headers": {"x" * 101: "s3cret"}}, "is not a valid header name"),
        *(
            ({"headers": {"x-key": value}}, f"{HEADERS}x-key: the value is not valid")
            for value in (
                *("", " ", "s3cret ", "\ts3cret", "s3cret\r\nhost: evil.example", "s3cret\n", "s3\0cret", "s3cret é"),
                *("s3cret\x7f", "s3cret" * 500),
            )
        ),
        ({"headers": {"x-key": HIDDEN}}, "target.headers.x-key: has stars instead of the value"),
        ({"headers": {"X-Key": "s3cret", "x-key": "s3cret"}}, f"{HEADERS}x-key is given twice"),
        ({"headers": {f"x-{number}": "s3cret" for number in range(21)}}, f"{HEADERS}are 21; the limit is 20"),
        ({"headers": {f"x-{number}": "s" * 1500 for number in range(3)}}, f"{HEADERS}have more than 4,096 characters"),
    ],
)
def test_an_invalid_option_is_named_and_its_value_not_shown(options: dict[str, Any], message: str) -> None:
    assert message in error_of(**options)


def test_valid_headers_are_unchanged() -> None:
    headers = {
        "Authorization": "Bearer s3cret=",
        "x-odd!#$%&'*+-.^_`|~": "a b\tc",
        "cookie": 'a="1"; b=2',
        "accept": "*/*",
    }
    target = WebhookTarget.model_validate(hook(headers={**headers, **{f"x-{number}": "1" for number in range(16)}}))
    assert {name: value.get_secret_value() for name, value in target.headers.items() if name in headers} == headers


CERTIFICATE = "target.client_certificate: "


@pytest.mark.parametrize(
    ("pem", "message"),
    [
        ("s3cret", "no certificate found"),
        ("", "no certificate found"),
        (parts(VALID)[1], "no certificate found"),
        (parts(VALID)[0], "no private key found"),
        (parts(VALID)[0].replace("M", "N") + parts(VALID)[1], "no certificate found"),
        (parts(VALID)[0] + parts(VALID)[1][:60], "no private key found"),
        (parts(VALID)[0] + parts(AUTHORITY.certificate("other"))[1], "the private key does not match"),
        (AUTHORITY.certificate("acme", password=b"s3cret"), "the private key is encrypted"),
        (AUTHORITY.certificate("acme", days=-1), "the certificate expired on 20"),
        (
            AUTHORITY.certificate("acme", rsa.generate_private_key(65537, 1024)),
            "cannot be used for TLS: EE_KEY_TOO_SMALL",
        ),
        ("x" * 70_000, "at most 65536"),
    ],
)
def test_an_unusable_certificate_is_refused(pem: str, message: str) -> None:
    text = error_of(client_certificate=pem)
    assert text.startswith(CERTIFICATE + message) or message in text
    assert "-----BEGIN CERTIFICATE-----\n" not in text


def test_a_certificate_needs_an_https_url() -> None:
    assert "client_certificate: needs an https URL" in error_of(url="http://app.example/", client_certificate=VALID)


@pytest.mark.parametrize("key", [new_key(), rsa.generate_private_key(65537, 2048)])
def test_certificate_chain_and_key_may_have_either_order(key: Any) -> None:
    certificate, private = parts(AUTHORITY.certificate("acme", key))
    for pem in (certificate + private, private + certificate, certificate + AUTHORITY.pem + private):
        assert certificates.checked(pem) == pem
        assert WebhookTarget.model_validate(hook(client_certificate=pem)).client_certificate


def test_secrets_are_stored_and_never_shown() -> None:
    subscribed = subscription(hook(headers={"x-key": "s3cret"}, client_certificate=VALID))
    for shown in (
        repr(subscribed),
        str(subscribed),
        subscribed.model_dump_json(),
        str(subscribed.model_dump(mode="json")),
        str(subscribed.model_dump()),
    ):
        assert "s3cret" not in shown
        assert "BEGIN" not in shown
    assert subscribed.model_dump(mode="json")["target"]["headers"] == {"x-key": "**********"}
    stored = subscribed.model_dump_json(context=TRUSTED)
    assert Subscription.model_validate_json(stored, context=TRUSTED) == subscribed


def test_stars_are_not_stored_as_secrets() -> None:
    subscribed = subscription(hook(headers={"x-key": "s3cret"}))
    with pytest.raises(ValidationError, match="stars"):
        Subscription.model_validate_json(subscribed.model_dump_json())


@pytest.mark.parametrize(
    "host",
    [
        "app..example",
        ".example",
        "app.example..",
        "a" * 64 + ".example",
        "127.1",
        "2130706433",
        "0x7f000001",
        "1.2.3.256",
    ],
)
def test_host_that_can_never_be_reached_is_refused(host: str) -> None:
    with pytest.raises(SubscriptionInvalid, match=r"^url: has a host"):
        WebhookTarget(url=f"https://{host}/")


@pytest.mark.parametrize(
    "host",
    [
        "app.example",
        "app.example.",
        "a" * 63 + ".example",
        "192.0.2.1",
        "[2001:db8::1]",
        "straße.de",
        "hooks",
        "1.example",
    ],
)
def test_host_that_may_be_reached_is_accepted(host: str) -> None:
    assert WebhookTarget(url=f"https://{host}/").url == f"https://{host}/"
