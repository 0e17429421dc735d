"""Operations: which libraries they may use, and the problems that they raise."""

import ast
from pathlib import Path

import pytest
from pydantic import ValidationError

from bellwire.errors import BellwireError, EventNotFound, RegistryUnavailable, SubscriptionInvalid, TemplateInvalid
from bellwire.subscriptions import Subscription
from starter.operations.documents import MAX_LISTED, Item, collect, items_of
from starter.operations.problems import (
    InputInvalid,
    Kind,
    OperationError,
    Problem,
    kind_of,
    problems_of,
    text_of,
)
from tests.tracked import CHECKOUT, tracked_files

OPERATIONS = tracked_files("starter/operations/**/*.py")
#: Libraries of the command line and of HTTP: operations serve both, so they use neither.
INTERFACES = {"typer", "click", "rich", "starlette", "fastapi", "uvicorn"}


@pytest.mark.parametrize(
    "file", OPERATIONS, ids=lambda file: str(file.relative_to(CHECKOUT / "starter" / "operations"))
)
def test_operations_import_no_interface_and_print_nothing(file: Path) -> None:
    tree = ast.parse(file.read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name for name in imported if name.partition(".")[0] in INTERFACES} == set()
    assert {name for name in imported if name.startswith(("starter.cli", "starter.gateway", "starter.local"))} == set()
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert "print" not in called


def test_operations_do_not_read_settings() -> None:
    """Callers pass settings in, so that one process can serve requests with the settings that it started with."""
    assert [file.name for file in OPERATIONS if "Settings.read" in file.read_text()] == []


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InputInvalid("is not valid"), Kind.INVALID),
        (SubscriptionInvalid(), Kind.INVALID),
        (TemplateInvalid(), Kind.INVALID),
        (EventNotFound(), Kind.NOT_FOUND),
        (RegistryUnavailable(), Kind.UNAVAILABLE),
        (OperationError("did not work"), Kind.FAILED),
        (BellwireError(), Kind.FAILED),
    ],
)
def test_every_error_has_a_kind(error: BellwireError, kind: Kind) -> None:
    assert kind_of(error) is kind


def test_a_problem_names_field_message_and_remedy() -> None:
    error = InputInvalid("port 22 is not allowed", field="target.url", remedy="use 443")
    assert str(error) == "target.url: port 22 is not allowed; use 443"
    assert list(error.problems) == [Problem(message="port 22 is not allowed", field="target.url", remedy="use 443")]


def test_an_error_without_a_message_has_that_of_its_class() -> None:
    assert str(OperationError()) == OperationError.__doc__


def test_problems_of_one_place_are_one_line_and_fields_outside_any_place_have_the_readers_names() -> None:
    problems = [
        Problem(message="is bad", field="types", place="line 2"),
        Problem(message="is missing", field="tenant", place="line 2"),
        Problem(message="is too long", field="older_than"),
        Problem(message="is unknown", field="other"),
    ]
    names = {"older_than": "--older-than", "types": "--type"}
    assert text_of(problems, lambda field: names.get(field, field)).splitlines() == [
        "line 2: types: is bad; tenant: is missing",
        "--older-than: is too long",
        "other: is unknown",
    ]


def test_an_invalid_model_has_a_problem_per_field() -> None:
    with pytest.raises(ValidationError) as raised:
        Subscription.model_validate({"tenant": "a b", "target": {"channel": "email", "to": "ann@example.com"}})
    problems = problems_of(raised.value, place="item 3")
    assert [(problem.field, problem.place) for problem in problems] == [("tenant", "item 3"), ("types", "item 3")]


def test_every_bad_item_of_a_document_is_named_and_long_lists_are_cut() -> None:
    def read(item: Item) -> object:
        raise ValueError("is bad")

    with pytest.raises(InputInvalid) as raised:
        collect([Item(f"line {number}", {}) for number in range(MAX_LISTED + 2)], read)
    lines = str(raised.value).splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("line 0: is bad", "and 2 more", MAX_LISTED + 1)


@pytest.mark.parametrize("text", ['[\n{"a": 1},\n{"a": 2}\n]', '{"a": 1}\n{"a": 2}'])
def test_objects_of_one_line_are_items_of_an_array_or_of_json_lines(text: str) -> None:
    assert [item.value for item in items_of(text, "input.json")] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1, "a": 2}', '{"a": NaN}', '{"a": 1}\n{"a": '])
def test_a_document_that_is_not_valid_is_refused(text: str) -> None:
    with pytest.raises(InputInvalid):
        items_of(text, "input.json")
