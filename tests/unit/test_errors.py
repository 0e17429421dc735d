"""Errors: the tree in the docstring, messages with a remedy, and translation of pydantic's errors."""

import inspect
import pickle
import re
from typing import Any, cast, get_args

import pytest
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticKnownError
from pydantic_core.core_schema import ErrorType

from bellwire import contract, errors
from bellwire.errors import BellwireError, EventInvalid, SignatureInvalid, WaitTimeout, fields_in_error, problem_text

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, BellwireError)]


def drawn(kind: type[BellwireError]) -> list[str]:
    """The tree below an exception as the docstring draws it: names, indented by depth."""
    lines = []
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            lines += [below.__name__, *(f"  {line}" for line in drawn(below))]
    return lines


def test_the_docstring_draws_the_tree_of_errors() -> None:
    assert errors.__doc__ is not None
    rows = re.findall(r"^([│ ]*[├└]── )(\w+)", errors.__doc__, re.MULTILINE)
    assert [" " * (len(stem) // 4 * 2 - 2) + name for stem, name in rows] == drawn(BellwireError)


@pytest.mark.parametrize("builtin", [ValueError, TimeoutError])
def test_the_docstring_names_builtin_base_classes(builtin: type[Exception]) -> None:
    assert errors.__doc__ is not None
    noted = set(re.findall(rf"(\w+) +also a {builtin.__name__}", errors.__doc__))
    assert noted == {kind.__name__ for kind in ALL if builtin in kind.__bases__}


@pytest.mark.parametrize("kind", ALL)
def test_an_error_without_a_message_uses_its_docstring(kind: type[BellwireError]) -> None:
    assert str(kind()) == inspect.getdoc(kind)
    assert str(kind("order 42")) == "order 42"


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind is not BellwireError])
def test_the_default_message_is_one_line(kind: type[BellwireError]) -> None:
    message = str(kind())
    assert "\n" not in message
    assert message.endswith((".", ")"))
    assert len(message) <= 150


@pytest.mark.parametrize("kind", ALL)
def test_errors_can_be_pickled(kind: type[BellwireError]) -> None:
    copy = pickle.loads(pickle.dumps(kind("order 42")))
    assert type(copy) is kind
    assert str(copy) == "order 42"


def test_errors_are_also_builtin_errors() -> None:
    with pytest.raises(ValueError, match="bad"):
        raise EventInvalid("bad")
    with pytest.raises(TimeoutError):
        raise WaitTimeout
    assert all(issubclass(kind, ValueError) for kind in SignatureInvalid.__subclasses__())


def test_the_error_types_that_temporal_matches_are_names_of_errors() -> None:
    assert {contract.EVENT_NOT_FOUND, contract.DELIVERY_NOT_FOUND} <= {kind.__name__ for kind in ALL}


class Inner(BaseModel):
    sizes: tuple[int, ...] = Field(default=(), max_length=2)


class Outer(BaseModel):
    name: str = ""
    inner: Inner = Inner()


@pytest.mark.parametrize(
    ("given", "prefix", "text"),
    [
        ({"name": 5}, (), "name: must be a string; write the number in quotes"),
        ({"name": True}, ("line 3",), "line 3.name: must be a string"),
        ({"inner": 5}, (), "inner: must be an object, with names and values"),
        (
            {"inner": {"sizes": ["x", 1]}},
            (),
            "inner.sizes.0: must be a whole number",
        ),
        ({"inner": {"sizes": [1, 2, 3]}}, (), "inner.sizes: must have at most 2 items"),
        (
            {"name": None, "inner": {"sizes": None}},
            (),
            "name: must be a string; inner.sizes: must be a list",
        ),
        ([], (), "must be an object, with names and values"),
    ],
)
def test_every_invalid_field_is_named_and_no_input_shown(given: object, prefix: tuple[str, ...], text: str) -> None:
    with pytest.raises(ValidationError) as error:
        Outer.model_validate(given)
    assert fields_in_error(error.value, prefix=prefix) == text


def test_private_input_is_not_in_the_text() -> None:
    with pytest.raises(ValidationError) as error:
        Outer.model_validate({"name": ["ann@example.com"], "inner": {"sizes": ["hunter2"]}})
    assert "ann" not in fields_in_error(error.value)
    assert "hunter2" not in fields_in_error(error.value)


#: Types of errors that need a context of their own; no field of Bellwire's models has them.
OTHERS = {"no_such_attribute", "needs_python_object", "bytes_invalid_encoding", "timezone_offset", "value_error"}


@pytest.mark.parametrize("kind", [kind for kind in get_args(ErrorType) if kind not in OTHERS])
def test_no_problem_is_in_words_of_pydantic(kind: Any) -> None:
    numbers = dict.fromkeys(("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "actual_length"), 2)
    context: dict[str, Any] = numbers | {"expected": "'a' or 'b'", "pattern": "^a$", "error": "x", "field_type": "List"}
    context |= {"discriminator": "'channel'", "tag": "fax", "expected_tags": "'email'", "class": "A", "class_name": "A"}
    context |= {"max_digits": 2, "decimal_places": 2, "whole_digits": 2, "expected_version": 4, "expected_schemes": "x"}
    made = PydanticKnownError(kind, context)
    problem = {"type": kind, "loc": ("field",), "msg": made.message(), "input": None, "ctx": made.context or {}}
    text = problem_text(cast(ErrorDetails, problem))
    assert text[0].islower()
    assert not re.search(r"Input should|Field required|Extra inputs|pydantic|\{", text)
