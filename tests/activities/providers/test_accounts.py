"""The file of accounts: each problem names the file, the account and the field, and shows no secret."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pydantic import SecretStr

from activities.providers.accounts import Accounts
from activities.providers.private_keys import p256_key, rsa_key

NAMED = "BELLWIRE_ACCOUNT_SECRETS__S"
#: Stands for a secret that is not valid.
PRIVATE = "pr1vate"
P256, RSA = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)
SUBJECT = "mailto:push@example.com"


def pem(key: Any, password: bytes | None = None) -> str:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pem: bytes = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    return pem.decode()


def vapid(**fields: object) -> dict[str, object]:
    return {"vapid": {"default": {"private_key": NAMED, "subject": SUBJECT, **fields}}}


def fcm(**fields: object) -> dict[str, object]:
    account = {"project_id": "shop-1", "client_email": "push@shop-1.example", "private_key": NAMED}
    return {"fcm": {"default": {**account, **fields}}}


def apns(**fields: object) -> dict[str, object]:
    account = {"team_id": "ABCDE12345", "key_id": "ABCDE12345", "topic": "com.example.shop", "private_key": NAMED}
    return {"apns": {"ios": {**account, **fields}}}


def of(provider: str, **fields: object) -> dict[str, object]:
    return {provider: {"default": {"secret": NAMED, "app_id": "wx1", **fields}}}


def error_of(file: Path, secret: str) -> str:
    with pytest.raises(ValueError, match="BELLWIRE_ACCOUNTS: ") as refused:
        Accounts.read(file, {"s": SecretStr(secret)})
    assert PRIVATE not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("document", "secret", "problem"),
    [
        ({"slak": {}}, "x", "slak: is not a known field; did you mean slack?"),
        ({"slack": {"default": {"tokn": NAMED}}}, "x", "slack.default.tokn: is not a known field; did you mean token?"),
        ({"slack": {"default": {"token": PRIVATE}}}, "x", "slack.default.token: must name an environment variable"),
        ({"slack": {"default": {"token": NAMED}}}, "", f"slack.default.token: {NAMED} is not set"),
        ({"slack": {"default": {"token": NAMED}}}, f"{PRIVATE}\n", "slack.default.token: its variable has white space"),
        ({"slack": {"default": {"token": NAMED}}}, f"https://hooks.slack.com/{PRIVATE}", "has a URL; give the secret"),
        ({"slack": {"De fault": {"token": NAMED}}}, "x", "slack.De fault: must be up to 32 lower-case letters"),
        ({"telegram": {"ops": {"token": NAMED}}}, PRIVATE, "telegram.ops.token: its variable has no token of a bot"),
        (of("wechat", app_id=""), "x", "wechat.default.app_id: must be the id that the provider shows"),
        (
            of("wechat", aes_key=NAMED),
            PRIVATE,
            "wechat.default.aes_key: its variable must have the EncodingAESKey of 43",
        ),
        (vapid(), PRIVATE, "vapid.default.private_key: is neither 32 bytes in base64url nor a PEM; copy all of it"),
        (vapid(), "A" * 43, "vapid.default.private_key: is not a key of the curve P-256"),
        (vapid(), pem(RSA), "vapid.default.private_key: is not a key of the curve P-256"),
        (vapid(), pem(P256, b"x"), "vapid.default.private_key: is encrypted; remove its passphrase"),
        (vapid(), pem(P256)[:90], "vapid.default.private_key: is not a private key in PEM; copy all of it"),
        (vapid(subject="https://[x"), pem(P256), "vapid.default.subject: must be a real address, such as mailto:"),
        (apns(), pem(ec.generate_private_key(ec.SECP384R1())), "apns.ios.private_key: is not a key of the curve P-256"),
        (apns(team_id="abc"), pem(P256), "apns.ios.team_id: must be the id of 10 capital letters and digits"),
        (fcm(), pem(P256), "fcm.default.private_key: is not the PEM of an RSA key"),
        (
            fcm(),
            json.dumps({"private_key": PRIVATE}),
            "fcm.default.private_key: is the whole file of the service account",
        ),
        (fcm(client_email=""), pem(RSA), "fcm.default.client_email: must be the client_email of the service account"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) and ": " in value else "",
)
def test_a_problem_names_file_account_and_field(document: object, secret: str, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "accounts.json"
    file.write_text(json.dumps(document))
    said = error_of(file, secret)
    assert said.startswith(f"BELLWIRE_ACCOUNTS: {file}: ")
    assert problem in said


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.toml", b"[slack\n", "line 1"),
        ("a.json", b"{,}", "line 1"),
        ("a.json", b"[]", "must be an object"),
        ("a.toml", b"\xff\xfe", "is not text in UTF-8; save it as UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(name: str, content: bytes, problem: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    said = error_of(file, "x")
    assert str(file) in said
    assert problem in said


def test_a_pem_may_be_on_one_line() -> None:
    assert p256_key(pem(P256).replace("\n", "\\n")).private_numbers() == P256.private_numbers()
    assert rsa_key(pem(RSA).replace("\n", "\\n")).private_numbers() == RSA.private_numbers()
