"""Arguments of the client that are none of those it takes: a TypeError says what is wrong and what to write."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from unittest.mock import Mock

import pytest

from bellwire import Client, Event
from tests.factories import event

#: A client that is never used: every call fails before.
CLIENT: Any = Client(Mock())
CLOUDEVENT = {"source": "/shop", "type": "order.paid"}


async def later() -> AsyncIterator[Event]:
    yield event()


@pytest.mark.parametrize(
    ("argument", "problem"),
    [
        (
            CLOUDEVENT,
            "publish takes an Event, not a value of type dict; write Event(source=…, type=…, data=…), or Event.parse",
        ),
        ('{"source": "/shop"}', "not a value of type str; write Event("),
        (None, "not None; write Event("),
        ([event()], "not a value of type list; write publish_many(events) for several"),
        (42, "not a value of type int; write Event("),
    ],
)
async def test_publish_takes_an_event(argument: object, problem: str) -> None:
    with pytest.raises(TypeError) as refused:
        await CLIENT.publish(argument)
    assert problem in str(refused.value)


@pytest.mark.parametrize(
    ("argument", "problem"),
    [
        (event(), "publish_many takes a list of events, not one event; write publish(event)"),
        (CLOUDEVENT, "not a value of type dict; write Event("),
        ("order", "not a value of type str; write Event("),
        (None, "not None"),
        (later(), "not a value of type async_generator; collect them in a list first"),
        ([event(), CLOUDEVENT], "events[1] is a value of type dict, not an Event; write Event("),
        (["order"], "events[0] is a value of type str, not an Event"),
        ([[event()]], "events[0] is a value of type list, not an Event"),
        ([None], "events[0] is None, not an Event"),
    ],
)
async def test_publish_many_takes_events(argument: object, problem: str) -> None:
    with pytest.raises(TypeError) as refused:
        await CLIENT.publish_many(argument)
    assert problem in str(refused.value)


@pytest.mark.parametrize("call", ["status", "wait", "cancel", "retry"])
@pytest.mark.parametrize(
    ("argument", "kind"),
    [
        ("order-42", "str"),
        (None, "NoneType"),
        (("/shop",), "tuple of str"),
        (("/shop", 42), "tuple of str, int"),
        (("/shop", "42", "x"), "tuple of str, str, str"),
        ((), "tuple of nothing"),
        (CLOUDEVENT, "dict"),
    ],
)
async def test_an_event_is_named_by_its_receipt_or_source_and_id(call: str, argument: object, kind: str) -> None:
    more = ("my-orders",) if call == "retry" else ()
    with pytest.raises(TypeError) as refused:
        await getattr(CLIENT, call)(argument, *more)
    assert str(refused.value) == (
        f"name the event by its receipt, as (source, id), or by the event itself, not by a value of type {kind}"
    )


async def test_other_arguments_are_named() -> None:
    with pytest.raises(TypeError, match="timeout: must be seconds as a number, not a value of type timedelta"):
        await CLIENT.wait(event(), timeout=timedelta(seconds=5))
    with pytest.raises(TypeError, match="subscription_id: must be a string, not a value of type int"):
        await CLIENT.retry(event(), 42)


async def test_a_timeout_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="timeout: must be seconds as a number, not NaN"):
        await CLIENT.wait(event(), timeout=float("nan"))


async def test_one_event_is_not_many_to_wait_for() -> None:
    with pytest.raises(TypeError, match=r"wait_many takes a list of events, not one event; write wait\(event\)"):
        await CLIENT.wait_many(event())


@pytest.mark.parametrize("name", [("/shop", "\ud800"), ("/\udfff", "1")])
async def test_an_event_whose_name_no_event_can_have_is_refused(name: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="valid Unicode, without lone surrogates"):
        await CLIENT.status(name)
