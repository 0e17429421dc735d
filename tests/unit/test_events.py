"""Events: invalid fields, the JSON form, and which events are the same event."""

import json
from datetime import UTC, date, datetime, timedelta, timezone
from datetime import time as clock_time
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import JsonValue

from bellwire.errors import EventInvalid
from bellwire.events import MAX_EVENT_BYTES, Event, uuid7
from bellwire.formats.json_values import MAX_DEPTH, MAX_INTEGER_DIGITS
from tests.factories import event

#: Text without lone surrogates, which UTF-8 can encode.
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
#: CloudEvents strings: also without control characters and noncharacters.
ATTRIBUTE = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Cn"]), min_size=1, max_size=20)
JSON: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TIMES = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=OFFSETS | st.just(UTC))  # noqa: DTZ001
FIELDS = {*Event.model_fields, "data_base64"}
EXTENSIONS = st.dictionaries(
    st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True).filter(lambda name: name not in FIELDS),
    st.text(st.characters(codec="ascii", exclude_categories=["Cc"])) | st.integers(-(2**31), 2**31 - 1) | st.booleans(),
    max_size=4,
)
SOURCES = st.from_regex(r"(https://shop\.example)?/[a-zA-Z0-9._~!$&'()*+,;=:@/%-]{0,20}", fullmatch=True).filter(
    lambda source: "%" not in source
)


@st.composite
def events(draw: st.DrawFn) -> Event:
    optional: dict[str, Any] = {
        "subject": draw(st.none() | ATTRIBUTE),
        "datacontenttype": draw(st.none() | st.just("application/json")),
        "dataschema": draw(st.none() | st.just("https://schemas.example/order")),
        "tenant": draw(st.none() | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", fullmatch=True)),
    }
    return Event(
        id=draw(ATTRIBUTE),
        source=draw(SOURCES),
        type=draw(ATTRIBUTE),
        time=draw(TIMES),
        data=draw(JSON),
        **optional,
        extensions=draw(EXTENSIONS),
    )


def nested(depth: int, *, of: type = list) -> JsonValue:
    value: JsonValue = 1
    for _ in range(depth):
        value = [value] if of is list else {"inner": value}
    return value


@given(events())
def test_an_event_is_restored_from_its_json(one: Event) -> None:
    text = json.dumps(one.structured())
    assert Event.parse(one.structured()) == one
    assert Event.parse(text) == one
    assert Event.parse(text.encode()) == one
    assert Event.model_validate_json(one.model_dump_json()) == one


@given(events())
def test_json_is_restored_from_its_event(one: Event) -> None:
    assert Event.parse(one.structured()).structured() == one.structured()


@given(JSON)
@example(10**MAX_INTEGER_DIGITS - 1)
@example({"a": None, "": [None, [{}], {"\u0000": "\U0001f600"}], "float": 5e-324, "int": 2**64})
@example(nested(MAX_DEPTH))
def test_data_is_preserved_exactly(data: JsonValue) -> None:
    assert json.dumps(Event.parse(event(data=data).model_dump_json()).data) == json.dumps(data)


@pytest.mark.parametrize("of", [list, dict])
@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 240, 10_000])
def test_data_that_is_nested_too_deep_is_refused(depth: int, of: type) -> None:
    with pytest.raises(EventInvalid, match=r"^data: is nested deeper than 100 levels"):
        Event.parse({"id": "1", "source": "/shop", "type": "order.paid", "data": nested(depth, of=of)})
    with pytest.raises(EventInvalid, match="is nested deeper"):
        event(data=nested(depth, of=of))


def test_json_that_is_nested_too_deep_is_refused() -> None:
    text = '{"id":"1","source":"/shop","type":"order.paid","data":' + "[" * 10_000 + "]" * 10_000 + "}"
    with pytest.raises(EventInvalid, match="recursion limit exceeded at line 1"):
        Event.parse(text)


def test_data_that_contains_itself_is_refused() -> None:
    cycle: list[Any] = []
    cycle += [cycle, cycle]
    with pytest.raises(EventInvalid, match="is nested deeper"):
        event(data=cycle)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("id", "", "at least 1 character"),
        ("id", "a" * 257, "at most 256 characters"),
        ("id", "a\nb", "control character"),
        ("id", "a\ud800", "lone surrogate"),
        ("id", 7, "must be a string"),
        ("source", "", "at least 1 character"),
        ("source", "a b", "URI-reference"),
        ("source", "/shop\n", "URI-reference"),
        ("source", "/caf\u00e9", "percent-encode"),
        ("source", "/%zz", "URI-reference"),
        ("source", "1a:b", "URI-reference"),
        ("source", "/" * 513, "at most 512 characters"),
        ("type", "", "at least 1 character"),
        ("type", "order\x7fpaid", "control character"),
        ("type", "a" * 257, "at most 256 characters"),
        ("subject", "", "at least 1 character"),
        ("subject", "\ufffe", "noncharacter"),
        ("dataschema", "", "at least 1 character"),
        ("datacontenttype", "a\tb", "control character"),
        ("specversion", "0.3", "'1.0'"),
        ("time", "yesterday", "RFC 3339"),
        ("time", "2026-11-23T08:00:00", "with a time zone"),
        ("time", "2026-11-23", "RFC 3339"),
        ("time", "2026-13-23T08:00:00Z", "is not a valid time: a month"),
        ("time", "2026-11-23T08:00:00+99:99", "out of range"),
        ("time", 1_700_000_000, "RFC 3339"),
        ("time", datetime(2026, 11, 23), "no time zone"),  # noqa: DTZ001
        ("time", datetime(1890, 1, 1, tzinfo=timezone(timedelta(seconds=3208))), "offset with seconds"),
        ("time", "0001-01-01T00:00:00+14:00", "is outside the years 1 to 9999 in UTC"),
        ("time", "9999-12-31T23:59:59-00:01", "is outside the years 1 to 9999 in UTC"),
        ("time", "0000-01-01T00:00:00Z", "is not a valid time"),
        ("time", "2026-11-30T23:59:61Z", "is not a valid time"),
        ("time", "2026-11-29T23:59:60Z", "leap seconds are at 23:59:60 UTC on the last day"),
        ("time", "2016-12-31T23:59:60+01:00", "leap seconds"),
        ("time", "\u0662026-11-23T08:00:00Z", "RFC 3339"),
        ("time", "2026-11-23T08:00:0\u0660Z", "RFC 3339"),
        ("time", datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))), "is outside the years 1 to 9999"),
        ("tenant", "", "1 to 63"),
        ("tenant", "a/b", "1 to 63"),
        ("tenant", "acme\n", "1 to 63"),
        ("tenant", "a" * 64, "1 to 63"),
        ("data", float("nan"), "NaN"),
        ("data", {"a": [float("-inf")]}, "Infinity"),
        ("data", [10**MAX_INTEGER_DIGITS], "more than 1,000 digits"),
        ("data", -(10**5000), "more than 1,000 digits"),
        ("data", {"\ud800": 1}, "lone surrogate"),
        ("data", "\udfff", "lone surrogate"),
        ("data", b"bytes", "not a valid JSON value; decode them"),
        ("data", {"a": [1, {2}]}, "contains a set, which is not a valid JSON value, at a[1]; use a sorted list"),
        ("data", {"a": {7: 1}}, "contains a key that is a int, at a; JSON has strings"),
        ("data", Decimal("NaN"), "NaN"),
        ("data", object(), "contains a object"),
        ("data_base64", "AAAA", "binary data is not supported"),
        ("priority", 1.5, "put other values into data"),
        ("priority", ["high"], "put other values into data"),
        ("priority", 2**31, "32-bit"),
        ("priority", "a\nb", "control character"),
        ("Priority", "high", "lower-case letters and digits"),
        ("trace_parent", "00", "lower-case letters and digits"),
        ("a" * 65, "long", "1 to 64"),
    ],
    ids=lambda value: ascii(value)[:20] if isinstance(value, str) else "",
)
def test_an_invalid_field_is_named(field: str, value: object, problem: str) -> None:
    with pytest.raises(EventInvalid) as refused:
        Event.parse({"id": "1", "source": "/shop", "type": "order.paid", field: value})
    assert str(refused.value).startswith(f"{field}: ")
    assert problem in str(refused.value)
    if field in Event.model_fields:
        with pytest.raises(EventInvalid) as invalid:
            Event(**{"source": "/shop", "type": "order.paid", field: value})  # type: ignore[arg-type]
        assert str(invalid.value) == str(refused.value)


@pytest.mark.parametrize("missing", ["source", "type"])
def test_a_missing_field_is_named(missing: str) -> None:
    attributes = {"id": "1", "source": "/shop", "type": "order.paid"}
    del attributes[missing]
    with pytest.raises(EventInvalid, match=f"^{missing}: is missing$"):
        Event.parse(attributes)


@pytest.mark.parametrize("text", ["", "null", "[]", '"event"', "{", b"\xff", '{"source": "/a"} x'])
def test_what_is_not_a_json_object_is_refused(text: str | bytes) -> None:
    with pytest.raises(EventInvalid, match=r"JSON|object"):
        Event.parse(text)


def test_all_invalid_fields_are_named_at_once() -> None:
    with pytest.raises(EventInvalid, match=r"^id: .*; source: .*; time: .*"):
        Event.parse({"id": "", "source": " ", "type": "order.paid", "time": "now"})


def test_the_limit_counts_bytes() -> None:
    room = MAX_EVENT_BYTES - len(event(data="").model_dump_json())
    assert len(event(data="a" * (room - 50)).model_dump_json().encode()) <= MAX_EVENT_BYTES
    for character in ("a", "\u00e9", "\u6c34", "\U0001f600"):
        with pytest.raises(EventInvalid, match="the limit is 262,144"):
            event(data=character * (room // len(character.encode()) + 50))


def test_a_null_attribute_is_not_set() -> None:
    one = Event.parse('{"id":null,"source":"/shop","type":"a","time":null,"tenant":null,"priority":null,"data":null}')
    assert one.id
    assert one.time <= datetime.now(UTC)
    assert "priority" not in one.extensions
    assert set(one.structured()) == {"specversion", "id", "source", "type", "time", "tenant"}
    assert one.tenant == "default"


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("id", "1"),
        ("specversion", "1.0"),
        ("time", "2026-11-23T08:00:00Z"),
        ("tenant", "acme"),
        ("flag", "true"),
        ("off", "false"),
        ("sequence", "-7"),
        ("empty", ""),
        ("subject", None),
        ("data", None),
        ("other", None),
        ("key", None),
        ("digest", None),
    ],
)
def test_attributes_have_a_canonical_string_form(name: str, canonical: str | None) -> None:
    extensions: dict[str, Any] = {"flag": True, "off": False, "sequence": -7, "empty": ""}
    one = event(id="1", time=datetime(2026, 11, 23, 8, tzinfo=UTC), tenant="acme", **extensions)
    assert one.attribute(name) == canonical


def test_an_extension_may_have_the_name_of_a_property() -> None:
    one = event(id="1", key="x", digest="y", extensions="z")
    assert one.key == event(id="1").key
    assert one.attribute("key") == "x"
    assert Event.parse(one.structured()) == one


@given(events(), TIMES, ATTRIBUTE)
def test_time_and_trace_are_not_content(one: Event, time: datetime, trace: str) -> None:
    again = Event.parse({**one.structured(), "time": time, "traceparent": trace, "tracestate": trace})
    assert again.digest == one.digest


@given(events(), st.data())
def test_all_other_attributes_are_content(one: Event, data: st.DataObject) -> None:
    field, values = data.draw(
        st.sampled_from(
            [
                ("id", ATTRIBUTE),
                ("source", SOURCES),
                ("type", ATTRIBUTE),
                ("subject", st.none() | ATTRIBUTE),
                ("datacontenttype", st.none() | ATTRIBUTE),
                ("dataschema", st.none() | ATTRIBUTE),
                ("tenant", st.none() | st.sampled_from(["acme", "other"])),
                ("correlation", st.none() | ATTRIBUTE | st.integers(0, 9) | st.booleans()),
                ("data", JSON),
            ]
        )
    )
    changed = Event.parse({**one.structured(), field: data.draw(values)})
    same = json.dumps(changed.structured().get(field)) == json.dumps(one.structured().get(field))
    if not isinstance(one.data, dict):  # whose keys may come in another order
        assert (changed.digest == one.digest) is same


def test_the_order_of_keys_is_not_content() -> None:
    one, other = (
        event(id="1", data={"a": 1, "b": [{"c": 2, "d": 3}]}),
        event(id="1", data={"b": [{"d": 3, "c": 2}], "a": 1}),
    )
    assert one.digest == other.digest
    assert one.digest != event(id="1", data={"a": 1, "b": [{"c": 3, "d": 2}]}).digest


def test_the_digest_is_stable_across_releases() -> None:
    """`{"data":{"order":"42",…},"id":"42",…}` through sha256sum."""
    assert event(id="42").digest == "3656da35de12276a19c24d9f785e19e147d69c95df2ba9a077a85bb3ec31ccc4"


def test_ids_sort_by_creation_and_are_uuids_of_version_7() -> None:
    made = [uuid7() for _ in range(200)]
    assert {(one.version, one.variant) for one in made} == {(7, "specified in RFC 4122")}
    assert [one.int >> 80 for one in made] == sorted(one.int >> 80 for one in made)
    assert len(set(made)) == 200


@pytest.mark.parametrize(
    ("keyword", "suggestion"),
    [
        ("tennant", "did you mean tenant?"),
        ("tenant_id", "did you mean tenant?"),
        ("Source", "did you mean source?"),
        ("severity", "extension attributes go into extensions={'severity': …}"),
        ("data_base64", "extension attributes"),
        ("extension", "did you mean extensions?"),
    ],
)
def test_an_unknown_keyword_is_refused_with_a_suggestion(keyword: str, suggestion: str) -> None:
    with pytest.raises(EventInvalid) as refused:
        Event(**{"source": "/shop", "type": "order.paid", keyword: "acme"})  # type: ignore[arg-type]
    assert str(refused.value).startswith(f"{keyword}: is not an attribute of an event; ")
    assert suggestion in str(refused.value)


@pytest.mark.parametrize(
    ("extensions", "problem"),
    [
        ({"tenant": "acme"}, "extensions: tenant is an attribute of its own; give it as tenant=…"),
        ({"data": 1}, "extensions: data is an attribute of its own"),
        ({1: "a"}, "extensions: has a int as a name"),
        ("severity", "extensions: must be a dict"),
        ({"Severity": "high"}, "Severity: extension attribute names"),
    ],
)
def test_invalid_extensions_are_refused(extensions: Any, problem: str) -> None:
    with pytest.raises(EventInvalid) as refused:
        Event(source="/shop", type="order.paid", extensions=extensions)
    assert str(refused.value).startswith(problem)


def test_extensions_are_attributes_of_the_event() -> None:
    one = Event(source="/shop", type="order.paid", extensions={"severity": "high", "tennant": "acme"})
    assert one.extensions == {"severity": "high", "tennant": "acme"}
    assert one.structured()["severity"] == "high"
    assert Event.parse(one.to_json()) == one
    assert one.tenant == "default"


def test_an_event_names_one_tenant_or_all() -> None:
    assert Event(source="/shop", type="order.paid").structured()["tenant"] == "default"
    assert Event(source="/shop", type="order.paid", tenant="acme").tenant == "acme"
    assert Event(source="/shop", type="order.paid", tenant="*").tenant == "*"
    assert Event.parse({"source": "/shop", "type": "order.paid", "tennant": "acme"}).tenant == "default"


@pytest.mark.parametrize(
    "text",
    [
        "2016-12-31T23:59:60Z",
        "2016-12-31T18:59:60-05:00",
        "1990-06-30T23:59:60.5Z",
        "9999-12-31T23:59:60Z",
        "2026-01-01T00:00:00.123456789Z",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999999Z",
    ],
)
def test_a_time_is_kept_as_it_was_given(text: str) -> None:
    one = Event(source="/shop", type="order.paid", time=text)
    for same in (one, Event.parse(one.to_json()), Event.restored(one.to_json())):
        assert same.structured()["time"] == text
        assert same.attribute("time") == text
    assert abs(one.time.timestamp() - Event.parse(one.to_json()).time.timestamp()) < 1


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


def test_values_of_python_become_what_json_has_for_them() -> None:
    given = {
        "at": datetime(2026, 11, 23, 8, tzinfo=UTC),
        "local": datetime(2026, 11, 23, 8, 30, tzinfo=timezone(timedelta(hours=1))),
        "day": date(2026, 11, 23),
        "hour": clock_time(8, 30),
        "price": Decimal("19.90"),
        "key": UUID(int=7),
        "colour": Colour.RED,
        "level": Level.HIGH,
        "pair": (1, (2,)),
        Colour.RED: [Decimal("1E+3")],
    }
    one = Event(source="/shop", type="order.paid", data=given)
    assert one.structured()["data"] == one.data
    assert json.loads(one.to_json())["data"] == {
        "at": "2026-11-23T08:00:00Z",
        "local": "2026-11-23T08:30:00+01:00",
        "day": "2026-11-23",
        "hour": "08:30:00",
        "price": "19.90",
        "key": "00000000-0000-0000-0000-000000000007",
        "colour": "red",
        "level": 3,
        "pair": [1, [2]],
        "red": ["1E+3"],
    }
    assert Event(source="/shop", type="order.paid", id=one.id, data=given).digest == one.digest


def test_data_that_repeats_one_list_without_end_is_refused_in_time() -> None:
    repeated: list[Any] = []
    for _ in range(60):
        repeated = [repeated, repeated]
    with pytest.raises(EventInvalid, match="more than 1,000,000 values"):
        event(data=repeated)


@pytest.mark.parametrize("source", ["a:[x", "/a[b]", "/a?b[c]", "https://h/[::1]"])
def test_brackets_are_for_an_address_in_the_authority_of_a_source(source: str) -> None:
    with pytest.raises(EventInvalid, match="source"):
        Event(source=source, type="a")
    assert Event(source="https://[::1]:80/a", type="a").source == "https://[::1]:80/a"
