"""Signing and verifying: the test vector that libraries of seven languages share, and an independent library both ways."""

import asyncio
import base64
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from bellwire.errors import SignatureInvalid, SignatureMismatch, SignatureMissing, TimestampOutsideTolerance
from bellwire.webhooks import generate_secret, sign, verify

ROOT = Path(__file__).parents[2]

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
STAMP = 1614265330
BODY = '{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
THEN = datetime.fromtimestamp(STAMP, UTC)


def headers(**changes: str | None) -> dict[str, str]:
    whole = {"id": ID, "timestamp": str(STAMP), "signature": SIGNATURE, **changes}
    return {f"webhook-{name}": value for name, value in whole.items() if value is not None}


def secret_of(size: int) -> str:
    return "whsec_" + base64.b64encode(bytes(range(size))).decode()


@pytest.mark.parametrize("body", [BODY, BODY.encode()])
@pytest.mark.parametrize(
    "stamp",
    [
        STAMP,
        THEN,
        THEN.astimezone(timezone(timedelta(hours=8))),
        THEN + timedelta(microseconds=999_999),
    ],
)
def test_the_shared_vector_is_signed(stamp: int | datetime, body: str | bytes) -> None:
    assert sign(SECRET, ID, stamp, body) == SIGNATURE


@pytest.mark.parametrize("body", [BODY, BODY.encode()])
def test_the_shared_vector_is_verified(body: str | bytes) -> None:
    assert verify(SECRET, headers(), body, now=THEN) == {"test": 2432232314}


@given(secret=st.binary(min_size=24, max_size=64), data=st.dictionaries(st.text(), st.text()))
def test_bellwire_and_the_independent_library_accept_each_other(secret: bytes, data: dict[str, str]) -> None:
    encoded = "whsec_" + base64.b64encode(secret).decode()
    body = json.dumps(data)
    now = datetime.now(UTC)
    sent = {"webhook-id": ID, "webhook-timestamp": str(int(now.timestamp()))}
    independent = dict(sent)
    sent["webhook-signature"] = sign(encoded, ID, now, body)
    independent["webhook-signature"] = Webhook(encoded).sign(ID, now, body)
    assert Webhook(encoded).verify(body, sent) == data
    assert verify(encoded, independent, body) == data


def test_the_independent_library_refuses_a_changed_body() -> None:
    secret, now = generate_secret(), datetime.now(UTC)
    signed = {
        "webhook-id": ID,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": sign(secret, ID, now, BODY),
    }
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY + " ", signed)


def test_during_a_rotation_both_secrets_sign_and_either_verifies() -> None:
    old, new = generate_secret(), generate_secret()
    both = sign([old, new], ID, STAMP, BODY)
    assert re.fullmatch(r"v1,\S+ v1,\S+", both)
    for secret in (old, new, [generate_secret(), new], (old, new)):
        assert verify(secret, headers(signature=both), BODY, now=THEN) == {"test": 2432232314}


@pytest.mark.parametrize(
    "signature",
    [
        f"v1a,Zm9v {SIGNATURE}",
        f"v1,Ym9ndXM= {SIGNATURE}",
        f"garbage {SIGNATURE} ,, v1",
        f"v1,{'é' * 9} {SIGNATURE}",
        f"v2,\udcff  {SIGNATURE}",
        f"{SIGNATURE} {SIGNATURE}",
    ],
)
def test_one_valid_signature_among_others_suffices(signature: str) -> None:
    assert verify(SECRET, headers(signature=signature), BODY, now=THEN)


@pytest.mark.parametrize(
    "signature",
    [
        SIGNATURE.replace("v1,", "v1a,"),
        SIGNATURE.replace("v1,", "v2,"),
        SIGNATURE.removeprefix("v1,"),
        SIGNATURE[:-1],
        SIGNATURE + "=",
        "v1,",
        "v1,é",
        "v1,\udcff",
        "v1",
    ],
)
def test_without_a_valid_signature_it_is_a_mismatch(signature: str) -> None:
    with pytest.raises(SignatureMismatch):
        verify(SECRET, headers(signature=signature), BODY, now=THEN)


@pytest.mark.parametrize(
    ("changed", "body"),
    [
        (headers(id="msg_other"), BODY),
        (headers(timestamp=str(STAMP + 1)), BODY),
        (headers(timestamp="0" + str(STAMP)), BODY),
        (headers(), BODY + "\n"),
        (headers(), b"\xff"),
        (headers(), "\udcff"),
        (headers(), ""),
    ],
)
def test_id_timestamp_and_body_are_all_signed(changed: dict[str, str], body: str | bytes) -> None:
    with pytest.raises(SignatureMismatch):
        verify(SECRET, changed, body, now=THEN)


def test_another_secret_does_not_verify() -> None:
    with pytest.raises(SignatureMismatch):
        verify(generate_secret(), headers(), BODY, now=THEN)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        headers(id=None),
        headers(timestamp=None),
        headers(signature=None),
        headers(id=""),
        headers(id="a.b"),
        headers(id="é"),
        headers(id="a b"),
        headers(signature=" "),
        *(
            headers(timestamp=stamp)
            for stamp in ("", "now", "1.6e9", "1614265330.0", "-5", "+5", "\uff11\uff16", "9" * 13)
        ),
    ],
)
def test_a_missing_or_malformed_header_is_refused(changed: dict[str, str]) -> None:
    with pytest.raises(SignatureMissing):
        verify(SECRET, changed, BODY, now=THEN)


@pytest.mark.parametrize(
    ("seconds", "accepted"),
    [(-301, False), (-300, True), (-1, True), (0, True), (300, True), (301, False), (86_400, False)],
)
def test_the_clocks_may_differ_by_five_minutes(seconds: int, accepted: bool) -> None:
    now = THEN + timedelta(seconds=seconds)
    if accepted:
        assert verify(SECRET, headers(), BODY, now=now)
        return
    with pytest.raises(TimestampOutsideTolerance):
        verify(SECRET, headers(), BODY, now=now)


def test_the_tolerance_can_be_chosen() -> None:
    later = THEN + timedelta(hours=1)
    assert verify(SECRET, headers(), BODY, now=later, tolerance=timedelta(hours=1))


def test_an_old_request_is_refused_by_the_current_time() -> None:
    with pytest.raises(TimestampOutsideTolerance):
        verify(SECRET, headers(), BODY)


def test_a_forged_request_is_a_mismatch_whatever_its_timestamp() -> None:
    with pytest.raises(SignatureMismatch):
        verify(SECRET, headers(timestamp="1"), BODY)


def test_headers_may_have_any_case_and_mapping() -> None:
    message = Message()
    for name, value in headers().items():
        message[name.title()] = value
    assert verify(SECRET, message, BODY, now=THEN)
    assert verify(SECRET, {name.upper(): value for name, value in headers().items()}, BODY, now=THEN)


def test_headers_may_be_asgi_byte_pairs() -> None:
    pairs = [(name.encode(), value.encode()) for name, value in headers().items()]
    assert verify(SECRET, [*pairs, (b"x-odd", b"\xff")], BODY, now=THEN) == {"test": 2432232314}
    twice = [(b"webhook-signature", b"v1,Zm9v"), *pairs]
    assert verify(SECRET, iter(twice), BODY, now=THEN)
    with pytest.raises(SignatureMissing):
        verify(SECRET, [(b"webhook-id", b"\xff"), *pairs[1:]], BODY, now=THEN)
    with pytest.raises(SignatureMissing):
        verify(SECRET, [], BODY, now=THEN)


def test_the_number_of_checked_signatures_is_limited() -> None:
    bogus = " ".join(f"v1,{number}" for number in range(49))
    assert verify(SECRET, headers(signature=f"{bogus} {SIGNATURE}"), BODY, now=THEN)
    with pytest.raises(SignatureMismatch):
        verify(SECRET, headers(signature=f"{bogus} v1,49 {SIGNATURE}"), BODY, now=THEN)


def test_signature_headers_may_be_repeated_and_ids_may_not() -> None:
    message = Message()
    for name, value in (*headers(signature="v1,Zm9v").items(), ("Webhook-Signature", SIGNATURE)):
        message[name] = value
    assert verify(SECRET, message, BODY, now=THEN)
    message["webhook-id"] = ID
    with pytest.raises(SignatureMissing):
        verify(SECRET, message, BODY, now=THEN)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b"[1, 2]", [1, 2]),
        (b'"text"', "text"),
        (b"17", 17),
        (b" null ", None),
        ('{"a": "ö"}', {"a": "ö"}),
        *(
            (raw, raw)
            for raw in (b"", b"not json", b"\xff\xfe", b"\x00\x01", b"NaN", b'{"a": Infinity}', b"[" * 100_000)
        ),
        ("größer", "größer".encode()),
    ],
)
def test_a_verified_body_is_its_json_value_or_bytes(body: bytes | str, value: object) -> None:
    assert verify(SECRET, headers(signature=sign(SECRET, ID, STAMP, body)), body, now=THEN) == value


@pytest.mark.parametrize("size", [24, 32, 64])
def test_secrets_have_24_to_64_bytes(size: int) -> None:
    assert sign(secret_of(size), ID, STAMP, BODY).startswith("v1,")


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "whsec_!",
        "whsec_é",
        "whsec_!" + SECRET.removeprefix("whsec_"),
        SECRET.removeprefix("whsec_"),
        SECRET[:-1],
        secret_of(23),
        secret_of(65),
    ],
)
def test_a_malformed_secret_is_refused_without_showing_it(secret: str) -> None:
    for attempt in (lambda: sign(secret, ID, STAMP, BODY), lambda: verify([SECRET, secret], headers(), BODY, now=THEN)):
        with pytest.raises(ValueError, match="24 to 64 bytes") as caught:
            attempt()
        assert not isinstance(caught.value, SignatureInvalid)
        assert len(secret) < 10 or secret not in str(caught.value)


@pytest.mark.parametrize("secret", [None, 5, [None], [SECRET, None], [[SECRET]], SECRET.encode(), {"whsec": 1, 2: 3}])
def test_a_secret_that_is_no_text_is_refused_by_its_name(secret: Any) -> None:
    for attempt in (lambda: sign(secret, ID, STAMP, BODY), lambda: verify(secret, headers(), BODY, now=THEN)):
        with pytest.raises(ValueError, match=r"^secret: must be text, or a list of texts"):
            attempt()


@pytest.mark.parametrize(
    "given",
    [
        None,
        5,
        "webhook-id",
        [ID],
        [("webhook-id", ID, "more")],
        {**headers(), "webhook-id": [ID]},
        {**headers(), "webhook-id": None},
        {**headers(), "webhook-timestamp": STAMP},
        {**headers(), "webhook-signature": [headers()["webhook-signature"]]},
        {**headers(), "Webhook-Signature": {"v1": "x"}},
        [(b"webhook-id", 5)],
    ],
)
def test_headers_that_are_no_text_are_refused(given: Any) -> None:
    with pytest.raises(SignatureMissing, match=r"^headers: must be "):
        verify(SECRET, given, BODY, now=THEN)


def test_what_frameworks_put_beside_the_headers_of_a_webhook_does_not_matter() -> None:
    others: dict[Any, Any] = {"x-list": ["a", "b"], "x-none": None, 5: "number", "content-length": 17}
    assert verify(SECRET, {**headers(), **others}, BODY, now=THEN)


@pytest.mark.parametrize("body", [None, 5, {"a": 1}, [1], ["text"]])
def test_a_body_that_was_parsed_is_a_mismatch_that_says_so(body: Any) -> None:
    with pytest.raises(SignatureMismatch, match="give the raw body, before any parsing"):
        verify(SECRET, headers(), body, now=THEN)


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_a_body_may_be_any_bytes(kind: Any) -> None:
    raw = BODY.encode() if isinstance(BODY, str) else BODY
    assert verify(SECRET, headers(), kind(raw), now=THEN) == verify(SECRET, headers(), raw, now=THEN)


def test_an_empty_list_of_secrets_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        sign([], ID, STAMP, BODY)


@pytest.mark.parametrize("bad", ["", "a.b", "a b", "a\nb", "é"])
def test_an_ambiguous_id_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="id:"):
        sign(SECRET, bad, STAMP, BODY)


def test_a_datetime_without_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        sign(SECRET, ID, datetime(2026, 1, 1), BODY)  # noqa: DTZ001


def test_generated_secrets_are_unique_and_valid() -> None:
    generated = {generate_secret() for _ in range(100)}
    assert len(generated) == 100
    assert all(sign(secret, ID, STAMP, BODY) for secret in generated)


def test_receivers_import_nothing_of_the_application() -> None:
    listed = subprocess.run(
        [sys.executable, "-c", "import sys, bellwire.webhooks; print(*sys.modules)"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert "bellwire.webhooks" in listed
    assert not {"cryptography", "aiohttp", "sqlalchemy", "pydantic_settings", "structlog"} & {
        name.partition(".")[0] for name in listed
    }


async def test_the_example_responds_204_to_a_signed_request_and_401_to_another() -> None:
    secret = generate_secret()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "examples/receivers/python/receive_webhook.py",
        "0",
        cwd=ROOT,
        env={**os.environ, "BELLWIRE_SECRET": secret, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        address = (await process.stdout.readline()).decode().split()[-1]
        now = datetime.now(UTC)
        body = b'{"type": "order.paid", "id": "7", "data": {"order": "42"}}'
        signed = {
            "webhook-id": ID,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": sign(secret, ID, now, body),
        }

        def post(data: bytes) -> int:
            try:
                with urlopen(Request(address, data=data, headers=signed), timeout=60) as response:
                    return int(response.status)
            except HTTPError as error:
                error.close()
                return error.code

        assert await asyncio.to_thread(post, body) == 204
        assert await asyncio.to_thread(post, body + b" ") == 401
        assert await process.stdout.readline() == b"order.paid 7 {'order': '42'}\n"
    finally:
        process.terminate()
        await process.wait()
