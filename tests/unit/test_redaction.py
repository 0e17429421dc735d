"""Redaction of texts: what looks like a secret goes, whatever surrounds it; what does not stays."""

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.sending.redaction import Reply, http_exchange, without_secrets
from bellwire.exchanges import MAX_BODY, MAX_HEAD, Exchange, pack, unpack


@pytest.mark.parametrize(
    "text",
    [
        '{"token": "SECRET"}',
        '{"access_token":"SECRET","expires_in":60}',
        '{"clientSecret" : "SECRET \\"SECRET\\" SECRET"}',
        json.dumps({"body": json.dumps({"apiKey": "SECRET"})}),
        "password=SECRET&user=ann",
        "Authorization: Bearer SECRET",
        "Authorization: Basic SECRETSECRET==",
        "x-api-key: SECRET",
        "X-Signature=SECRET;",
        "<Session>sessionid=SECRET</Session>",
        "whsec_SECRET+/=",
        "webhook-signature: v1,SECRETSECRETSECRET= v1a,SECRETSECRETSECRET",
        "eyJSECRETSECRET.SECRETSECRET.SECRET",
        "https://bell.example/unsubscribe/SECRETSECRET-_",
        "postgres://bellwire:SECRET@db.example/x",
    ],
)
def test_what_looks_like_a_secret_goes(text: str) -> None:
    assert "SECRET" not in without_secrets(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"author": "Ann", "order": "42"}',
        "no such user <ann@example.com>",
        "HTTP/1.1 401 Unauthorized",
        "the key of the order is 42",
        "https://app.example/orders/42",
    ],
)
def test_what_does_not_stays(text: str) -> None:
    assert without_secrets(text) == text


@given(st.text(max_size=200), st.text(max_size=200), st.dictionaries(st.text(max_size=20), st.text(max_size=50)))
def test_any_text_becomes_an_exchange_that_can_be_stored_and_read(
    body: str, response: str, headers: dict[str, str]
) -> None:
    reply = Reply(500, response, headers, response)
    made = http_exchange("POST", "https://a.example/x", headers, body, reply)
    assert unpack(pack([made])) == (made,)


def test_heads_and_bodies_have_a_maximum() -> None:
    headers = {f"x-{number}": "y" * 1000 for number in range(1000)}
    made = http_exchange("POST", "https://a.example/x", headers, "z" * 10**6, Reply(200, None, headers, "z" * 10**6))
    assert max(len(made.request), len(made.response)) <= MAX_HEAD + 2
    assert (len(made.request_body), len(made.response_body)) == (MAX_BODY, MAX_BODY)


def test_parts_of_a_path_that_look_like_tokens_go() -> None:
    url = "https://hooks.example/services/T0001/a1b2c3d4e5f6a7b8c9d0e1f2/orders"
    made = http_exchange("POST", url, {}, b"", None)
    assert made.request.split("\n")[0] == "POST /services/T0001/[redacted]/orders HTTP/1.1"


@given(st.text(alphabet=string.printable, max_size=100))
def test_a_text_that_is_no_exchange_reads_as_none(text: str) -> None:
    assert unpack(text) == ()


def test_an_exchange_is_kept_in_less_space_than_it_takes() -> None:
    made = Exchange(request="POST / HTTP/1.1\n" + "x-header: value\n" * 40, request_body='{"order": "42"}' * 100)
    assert len(pack([made]) or "") < 500
