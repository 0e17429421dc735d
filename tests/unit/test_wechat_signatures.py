"""Signatures and encryption of WeChat's callbacks, against what wechatpy signs and encrypts."""

import base64
from collections.abc import Mapping

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wechatpy.crypto import WeChatCrypto
from wechatpy.utils import WeChatSigner

from starter.gateway.wechat.messages import parse
from starter.gateway.wechat.signatures import SignatureInvalid, aes_key, decrypt, verify

AES_KEYS = st.binary(min_size=32, max_size=32).map(lambda key: base64.b64encode(key).decode().rstrip("="))
#: WeChat's tokens have letters and digits; others are sorted the same way, too.
TOKENS = st.text("abcXYZ019", min_size=3, max_size=32) | st.text(min_size=1, max_size=10)
TIMES = st.integers(0, 10**12 - 1)
HARD = "<xml><Content><![CDATA[贝尔 é+~*&amp;😀]]></Content></xml>"


@given(st.text(max_size=300), AES_KEYS, TOKENS, TIMES, st.text("abc019", max_size=16), st.text("wx019af", max_size=18))
@example(HARD, base64.b64encode(bytes(range(32))).decode().rstrip("="), "t", 1_764_442_800, "n", "wx0123456789abcdef")
@example("", base64.b64encode(bytes(32)).decode().rstrip("="), "t", 0, "", "")
def test_what_wechatpy_encrypts_is_verified_and_decrypted(
    text: str, encoded: str, token: str, at: int, nonce: str, app_id: str
) -> None:
    made = parse(WeChatCrypto(token, encoded, app_id).encrypt_message(text, nonce, str(at)).encode())
    query = {"timestamp": str(at), "nonce": nonce, "msg_signature": made["MsgSignature"]}
    verify(token, query, encrypted=made["Encrypt"], now=at)
    key = aes_key(encoded)
    assert decrypt(key, made["Encrypt"], app_id=app_id).decode() == text
    for changed in ({"nonce": f"{nonce}x"}, {"timestamp": str(at + 1)}, {"msg_signature": "0" * 40}):
        _refuse(token, {**query, **changed}, made["Encrypt"], at)
    _refuse(f"{token}x", query, made["Encrypt"], at)
    with pytest.raises(SignatureInvalid):
        decrypt(key, made["Encrypt"], app_id=f"{app_id}x")


@given(TOKENS, TIMES, st.text("abc019", max_size=16))
def test_what_wechatpy_signs_is_verified(token: str, at: int, nonce: str) -> None:
    signer = WeChatSigner()
    signer.add_data(token, str(at), nonce)
    verify(token, {"timestamp": str(at), "nonce": nonce, "signature": signer.signature}, now=at)


def _refuse(token: str, query: Mapping[str, str], encrypted: str, at: int) -> None:
    with pytest.raises(SignatureInvalid):
        verify(token, query, encrypted=encrypted, now=at)
