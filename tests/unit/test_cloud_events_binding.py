"""Events in HTTP requests, by the CloudEvents HTTP binding 1.0.2 and the JSON format 1.0.2."""

import base64
import json
from typing import Any

import pytest
from starlette.datastructures import Headers

from bellwire import Event
from starter.gateway.api.cloud_events import BATCH, STRUCTURED, Mode, event_of, mode_of, read_batch, read_event
from starter.gateway.api.problems import STATUSES, ApiProblem

REQUIRED = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}


def headers(**given: str | bytes) -> Headers:
    """Header fields; `ce_id` is ce-id."""
    named = {**REQUIRED, **{name.replace("_", "-"): value for name, value in given.items()}}
    return Headers(
        raw=[
            (name.encode(), value if isinstance(value, bytes) else value.encode("latin-1"))
            for name, value in named.items()
        ]
    )


def binary(body: bytes = b"", **given: str | bytes) -> Event:
    given_headers = headers(**given)
    assert mode_of(given_headers) is Mode.BINARY
    return read_event(given_headers, Mode.BINARY, body)


def structured(body: bytes | dict[str, Any], content_type: str = STRUCTURED) -> Event:
    raw = Headers({"content-type": content_type})
    assert mode_of(raw) is Mode.STRUCTURED
    return read_event(raw, Mode.STRUCTURED, body if isinstance(body, bytes) else json.dumps(body).encode())


def event(**fields: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", **fields}


@pytest.mark.parametrize(
    ("value", "subject"),
    [
        (b"Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),  # the example of the binding
        (b"%45uro", "Euro"),  # unnecessarily encoded
        (b'"Euro %E2%82%AC"', "Euro €"),
        (b'"a \\"b\\" \\\\c"', 'a "b" \\c'),
        (b'"%22"', '"'),  # the quotes first, then one round of percent-decoding
        (b"%2541", "%41"),
        (b"  padded\t", "padded"),
        (b'"  padded "', "  padded "),
        (b"%20padded%20", " padded "),
        (b"50%", "50%"),
        (b"%zz", "%zz"),
        (b'half"quoted"', 'half"quoted"'),
        (b'"open', '"open'),
        ("größe 你好".encode(), "größe 你好"),
        ("größe%20%E4%BD%A0".encode(), "größe 你"),
        ('"größe \\" %E4%BD%A0"'.encode(), 'größe " 你'),
        (b"(no comment)", "(no comment)"),
    ],
)
def test_header_values_are_unquoted_then_decoded_once(value: bytes, subject: str) -> None:
    assert binary(ce_subject=value).subject == subject


@pytest.mark.parametrize(
    "value", [b"%C0%A0", b"%ED%A0%80", b"%FF", b"\xff", b"\xc3", b"%C3", b"%F4%90%80%80", b"\xe9t%C3%A9", b'"\xff"']
)
def test_a_header_value_that_is_not_utf8_is_refused(value: bytes) -> None:
    assert refused(binary, ce_subject=value) == (400, ["subject"])


@pytest.mark.parametrize("value", ["%00", "%0A", "%7F", "%C2%85", "%EF%BF%BF", ""])
def test_an_attribute_has_no_control_characters_and_is_not_empty(value: str) -> None:
    assert refused(binary, ce_subject=value)[0] == 400


def refused(read: Any, *arguments: Any, **given: Any) -> tuple[int, list[str]]:
    """The status and the fields of the problem."""
    with pytest.raises(ApiProblem) as error:
        read(*arguments, **given)
    return STATUSES[error.value.kind][0], [problem.field for problem in error.value.errors]


@pytest.mark.parametrize("name", ["ce_data", "ce_datacontenttype", "ce_data_base64", "ce_A_B", "ce_" + "a" * 65, "ce_"])
def test_headers_that_are_no_attributes_are_refused(name: str) -> None:
    raw = Headers(raw=[*headers().raw, (name.replace("_", "-", 1).encode(), b"1")])
    assert refused(read_event, raw, Mode.BINARY, b"")[0] == 400


def test_repeated_headers_are_refused() -> None:
    twice = Headers(raw=[*headers().raw, (b"ce-id", b"1")])
    assert refused(read_event, twice, Mode.BINARY, b"") == (400, ["id"])
    two = [(b"content-type", b"text/plain"), (b"content-type", b"application/json")]
    assert refused(mode_of, Headers(raw=[*headers().raw, *two])) == (400, ["Content-Type"])


@pytest.mark.parametrize(
    ("content_type", "body", "data"),
    [
        ("application/json", b'{"a": 1}', {"a": 1}),
        ("APPLICATION/JSON ; charset=UTF-8", b'"\xc3\xa9"', "é"),
        ('application/json;charset="iso-8859-1"', b'"\xe9"', "é"),
        ("application/vnd.shop+json", b"[1]", [1]),
        ("text/plain", b"1", "1"),
        ("text/plain; format=flowed; charset=iso-8859-1", b"\xe9", "é"),
        ("application/xml", b"<a/>", "<a/>"),
        ("image/svg+xml", b"<svg/>", "<svg/>"),
        ("application/json", b"", None),
        ("image/png", b"", None),
        ("application/json", b"null", None),
        ("application/json", b"123456789012345678901234567890", 123456789012345678901234567890),
    ],
)
def test_data_of_binary_mode_is_read_by_its_media_type(content_type: str, body: bytes, data: Any) -> None:
    read = binary(body, content_type=content_type)
    assert (read.data, read.datacontenttype) == (data, content_type)


@pytest.mark.parametrize(
    ("content_type", "body", "status", "fields"),
    [
        ("image/png", b"\x89", 415, ["Content-Type"]),
        ("application/octet-stream", b"1", 415, ["Content-Type"]),
        ("garbage", b"{}", 400, ["Content-Type"]),
        ("a b/c", b"{}", 400, ["Content-Type"]),
        ("application/json", b"\xff", 400, ["body"]),
        ("application/json", b"{", 400, ["data"]),
        ("application/json", b"NaN", 400, ["data"]),
        ("application/json", b"\xef\xbb\xbf{}", 400, ["data"]),
        ("application/json", b"9" * 5_000, 400, ["data"]),
        ("application/json", b"[" * 100_000, 400, ["data"]),
        ("application/json", b"1e999", 400, ["data"]),
        ("text/plain; charset=klingon", b"a", 415, ["Content-Type"]),
        *(
            (f"text/plain; charset={name}", b"a", 415, ["Content-Type"])
            for name in ("base64", "zlib", "idna", "punycode", "unicode-escape", "raw_unicode_escape", "undefined")
        ),
        ("text/plain; charset=us-ascii", b"\xe9", 400, ["body"]),
    ],
)
def test_data_that_cannot_be_read_is_refused(content_type: str, body: bytes, status: int, fields: list[str]) -> None:
    assert refused(binary, body, content_type=content_type) == (status, fields)


def test_data_without_a_media_type_is_json_and_none_is_none() -> None:
    assert binary(b'{"a": 1}').data == {"a": 1}
    assert binary().data is None
    assert binary().datacontenttype is None


def test_compressed_requests_are_refused() -> None:
    assert refused(mode_of, headers(content_encoding="gzip")) == (415, ["Content-Encoding"])
    assert mode_of(headers(content_encoding="identity")) is Mode.BINARY


@pytest.mark.parametrize(
    ("content_type", "mode"),
    [
        (STRUCTURED, Mode.STRUCTURED),
        ("Application/CloudEvents+JSON; charset=utf-8", Mode.STRUCTURED),
        (BATCH, Mode.BATCH),
        ("application/CLOUDEVENTS-batch+json;charset=utf-8", Mode.BATCH),
        ("application/json", Mode.BINARY),
    ],
)
def test_the_content_type_decides_the_mode(content_type: str, mode: Mode) -> None:
    assert mode_of(headers(content_type=content_type)) is mode


@pytest.mark.parametrize(
    "content_type",
    ["application/cloudevents", "application/cloudevents+avro", "application/cloudevents-batch+xml; charset=utf-8"],
)
def test_other_event_formats_are_not_supported(content_type: str) -> None:
    assert refused(mode_of, headers(content_type=content_type)) == (415, ["Content-Type"])


@pytest.mark.parametrize(
    ("media_type", "raw", "data"),
    [
        ("application/json", b'{"a": "\xc3\xa9"}', {"a": "é"}),
        ("text/plain", "größer".encode(), "größer"),
        ("text/plain; charset=iso-8859-1", b"\xe9", "é"),
        ("application/xml", b"<a/>", "<a/>"),
        ("text/plain", b"", None),
    ],
)
def test_base64_of_json_and_text_is_data(media_type: str, raw: bytes, data: Any) -> None:
    read = structured(event(datacontenttype=media_type, data_base64=base64.b64encode(raw).decode()))
    assert (read.data, read.datacontenttype, read.extensions) == (data, media_type, {})


@pytest.mark.parametrize(
    "fields",
    [
        {"data_base64": "AA=="},
        {"data_base64": "AA==", "datacontenttype": "image/png"},
        {"data_base64": "AA==", "datacontenttype": "text/plain; x=€"},
        {"data_base64": "A", "datacontenttype": "text/plain"},
        {"data_base64": "é", "datacontenttype": "text/plain"},
        {"data_base64": 1, "datacontenttype": "text/plain"},
        {"data_base64": "YQ==", "data": "a", "datacontenttype": "text/plain"},
    ],
)
def test_other_base64_is_refused(fields: dict[str, Any]) -> None:
    assert refused(structured, event(**fields)) == (400, ["data_base64"])


def test_null_attributes_are_not_set() -> None:
    read = structured(event(subject=None, time=None, datacontenttype=None, data_base64=None, extension=None, data=None))
    assert (read.subject, read.data, read.extensions) == (None, None, {})
    assert refused(structured, event(id=None)) == (400, ["id"])


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"extension": 2**31}, "extension"),
        ({"extension": 1.5}, "extension"),
        ({"extension": []}, "extension"),
        ({"Extension": "a"}, "Extension"),
        ({"ex_tension": "a"}, "ex_tension"),
        ({"": "a"}, ""),
        ({"id": 1}, "id"),
        ({"id": ""}, "id"),
        ({"time": "yesterday"}, "time"),
        ({"specversion": "1.1"}, "specversion"),
        ({"type": "a\nb"}, "type"),
    ],
)
def test_attributes_have_the_types_of_the_specification(fields: dict[str, Any], field: str) -> None:
    status, found = refused(structured, event(**fields))
    assert status == 400
    assert field in found or not field


def test_extensions_keep_their_types_in_the_json_format_and_are_text_in_headers() -> None:
    assert structured(event(flag=True, number=-(2**31), text="")).extensions == {
        "flag": True,
        "number": -(2**31),
        "text": "",
    }
    assert binary(ce_flag="true", ce_number="7").extensions == {"flag": "true", "number": "7"}


def test_a_batch_is_an_array_whose_items_are_read_one_by_one() -> None:
    raw = Headers({"content-type": BATCH})
    items = read_batch(raw, json.dumps([event(id="1"), {"id": "2"}, event(id="3")]).encode())
    assert [event_of(each).id for each in (items[0], items[2])] == ["1", "3"]
    assert refused(event_of, items[1]) == (400, ["specversion", "source", "type"])
    assert refused(read_batch, raw, b"{}") == (400, ["body"])
    assert refused(read_batch, raw, b"[\xff]") == (400, ["body"])
