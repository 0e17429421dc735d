"""Signatures, against the examples that the vendors publish."""

from datetime import UTC, datetime

from activities.sms.mainland.signatures import AccessKey, aliyun_headers, canonical_query, tencent_authorization


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


def test_query_is_sorted_and_encoded_by_rfc_3986() -> None:
    assert canonical_query({"b": "贝 *~/", "a": "x"}) == "a=x&b=%E8%B4%9D%20%2A~%2F"


def test_key_is_not_shown() -> None:
    assert "s3cr3t" not in repr(AccessKey(id="a", secret="s3cr3t"))
