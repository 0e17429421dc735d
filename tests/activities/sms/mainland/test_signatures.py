"""Signatures, against the examples that the vendors publish, and against the vendors' own libraries."""

import json
from datetime import UTC, datetime
from types import SimpleNamespace

from alibabacloud_openapi_util.client import Client as AliyunUtil
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tencentcloud.common.abstract_client import AbstractClient
from tencentcloud.common.credential import Credential
from tencentcloud.common.http.request import RequestInternal
from tencentcloud.common.profile.client_profile import ClientProfile

from activities.sms.mainland.signatures import (
    TENCENT_CONTENT_TYPE,
    AccessKey,
    aliyun_headers,
    canonical_query,
    tencent_authorization,
)

HARD = "贝尔 é+~*/%=&?#'\"\n😀"
NAMES = st.text("ABCDEFGHIJabcdefghij", min_size=1, max_size=12)
#: What keys are made of, and what users and templates make of values.
KEYS, VALUES = st.text("abcXYZ019+/=._-", min_size=1, max_size=64), st.text(max_size=40) | st.just("") | st.just(HARD)
TIMES = st.integers(0, 4_102_444_800)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | VALUES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(VALUES, inner, max_size=4),
    max_leaves=10,
)


def test_aliyun_signature_is_that_of_the_published_example() -> None:
    parameters = {
        "RegionId": "cn-shanghai",
        "ImageId": "win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd",
    }
    headers = aliyun_headers(
        AccessKey(id="YourAccessKeyId", secret="YourAccessKeySecret"),
        host="ecs.cn-shanghai.aliyuncs.com",
        action="RunInstances",
        version="2014-05-26",
        query=canonical_query(parameters),
        nonce="3156853299f313e23d1673dc12e1703d",
        now=datetime(2023, 10, 26, 10, 22, 32, tzinfo=UTC),
    )
    assert headers["Authorization"] == (
        "ACS3-HMAC-SHA256 Credential=YourAccessKeyId,"
        "SignedHeaders=host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version,"
        "Signature=06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0"
    )


def test_tencent_signature_is_that_of_the_published_example() -> None:
    body = rb'{"Limit": 1, "Filters": [{"Values": ["\u672a\u547d\u540d"], "Name": "instance-name"}]}'
    key = AccessKey(id="AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE", secret="Gu5t9xGARNpq86cd98joQYCN3EXAMPLE")
    assert tencent_authorization(
        key, service="cvm", host="cvm.tencentcloudapi.com", body=body, timestamp=1551113065
    ) == (
        "TC3-HMAC-SHA256 Credential=AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE/2019-02-25/cvm/tc3_request, "
        "SignedHeaders=content-type;host, Signature=72e494ea809ad7a8c8f7a4507b9bddcbaa8e581f516e8da2f66e2c5a96525168"
    )


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(NAMES, VALUES, max_size=8), KEYS, KEYS, TIMES)
@example({"TemplateParam": json.dumps({"name": HARD, "more": {"a": []}}, ensure_ascii=False), "OutId": ""}, "A", "s", 0)
def test_aliyun_signature_is_that_of_alibabas_library(
    parameters: dict[str, str], key_id: str, secret: str, at: int
) -> None:
    headers = aliyun_headers(
        AccessKey(id=key_id, secret=secret),
        host="dysmsapi.aliyuncs.com",
        action="SendSms",
        version="2017-05-25",
        query=canonical_query(parameters),
        nonce="n",
        now=datetime.fromtimestamp(at, UTC),
    )
    given = headers.pop("Authorization")
    request = SimpleNamespace(method="POST", pathname="/", query=parameters, headers=headers)
    payload = headers["x-acs-content-sha256"]
    assert given == AliyunUtil.get_authorization(request, "ACS3-HMAC-SHA256", payload, key_id, secret)
    assert payload == AliyunUtil.hex_encode(AliyunUtil.hash(b"", "ACS3-HMAC-SHA256"))


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(NAMES, JSON, max_size=6), KEYS, KEYS, TIMES)
@example({"TemplateParamSet": [HARD, ""], "SignName": "贝尔"}, "A", "s", 0)
def test_tencent_signature_is_that_of_tencents_library(
    parameters: dict[str, object], key_id: str, secret: str, at: int
) -> None:
    host, body = "sms.tencentcloudapi.com", json.dumps(parameters, ensure_ascii=False).encode()
    client = AbstractClient(Credential(key_id, secret), "ap-guangzhou", ClientProfile())
    request = RequestInternal(host, "POST", "/", data=body)
    request.header = {"Content-Type": TENCENT_CONTENT_TYPE, "Host": host, "X-TC-Timestamp": str(at)}
    date = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
    signature = client._get_tc3_signature(parameters, request, date, "sms", secret)
    given = tencent_authorization(
        AccessKey(id=key_id, secret=secret), service="sms", host=host, body=body, timestamp=at
    )
    assert given == (
        f"TC3-HMAC-SHA256 Credential={key_id}/{date}/sms/tc3_request, SignedHeaders=content-type;host, "
        f"Signature={signature}"
    )


def test_query_is_sorted_and_encoded_by_rfc_3986() -> None:
    assert canonical_query({"b": "贝 *~/", "a": "x"}) == "a=x&b=%E8%B4%9D%20%2A~%2F"


def test_key_is_not_shown() -> None:
    assert "s3cr3t" not in repr(AccessKey(id="a", secret="s3cr3t"))
