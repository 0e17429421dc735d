"""`types` against a real SQLite registry."""

import json
from pathlib import Path
from typing import Any

import pytest

from bellwire import Event
from bellwire.catalog import Catalog
from bellwire.errors import EventInvalid
from starter.cli.main import main
from tests.unit.test_cli import registry_url

__all__ = ["registry_url"]

SCHEMA = json.dumps({"type": "object", "required": ["order"], "properties": {"order": {"type": "string"}}})
OTHER = json.dumps({"type": "object", "required": ["order"], "properties": {"order": {"type": "integer"}}})

pytestmark = pytest.mark.usefixtures("registry_url")


class Commands:
    """Runs commands and returns what they print."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def out(self, *arguments: str, status: int = 0) -> str:
        """The output of `types` with these arguments."""
        assert main(["types", *arguments]) == status
        return self._capsys.readouterr().out

    def refused(self, *arguments: str, status: int = 2) -> str:
        """The errors of `types` with these arguments."""
        assert main(["types", *arguments]) == status
        out, err = self._capsys.readouterr()
        assert out == ""
        return err

    def shown(self, name: str) -> Any:
        return json.loads(self.out("show", name, "--json"))


@pytest.fixture
def types(capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(capsys)


def test_a_type_is_added_shown_listed_and_changed(types: Commands) -> None:
    types.out("add", "order.paid", "--schema", SCHEMA, "--example", '{"order": "42"}', "--retry", "5s,5m")
    types.out("add", "order.paid", "--description", "An order was paid.", "--owner", "shop")
    found = types.shown("order.paid")
    assert (found["description"], found["owner"], found["retry_schedule"]) == ("An order was paid.", "shop", [5, 300])
    assert [(one["version"], one["schema"], one["examples"]) for one in found["versions"]] == [
        (1, json.loads(SCHEMA), [{"order": "42"}])
    ]
    assert "order.paid" in types.out("list")
    text = types.out("show", "order.paid")
    assert "An order was paid." in text
    assert "5s, 5m" in text


def test_an_incompatible_schema_needs_force(types: Commands) -> None:
    types.out("add", "order.paid", "--schema", SCHEMA)
    errors = types.refused("add", "order.paid", "--schema", OTHER)
    assert "order.paid: schema.properties.order.type: is integer, and was string" in errors
    types.out("add", "order.paid", "--schema", OTHER, "--force")
    assert [one["version"] for one in types.shown("order.paid")["versions"]] == [1, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["order paid"], "type: must be dotted words"),
        ([], "TYPE: is missing"),
        (["order.paid", "--schema", "{"], "--schema: is not valid JSON"),
        (["order.paid", "--schema", '"text"'], "schema: must be an object"),
        (
            ["order.paid", "--schema", '{"$ref": "https://example.com/"}'],
            "schema.$ref: refers to 'https://example.com/'",
        ),
        (["order.paid", "--schema", SCHEMA, "--example", "{}"], "examples[0].order: is missing"),
        (["order.paid", "--file", "types.json"], "--file: cannot be combined"),
    ],
)
def test_bad_types_are_refused_by_field(types: Commands, options: list[str], message: str) -> None:
    assert message in types.refused("add", *options)
    assert types.out("list").strip() == "none"


def test_the_printed_catalog_is_what_the_client_takes(types: Commands, tmp_path: Path) -> None:
    types.out("add", "order.paid", "--schema", SCHEMA)
    file = tmp_path / "types.json"
    file.write_text(types.out("list", "--json"))
    with pytest.raises(EventInvalid, match=r"data\.order: is missing"):
        Catalog.read(file).check(Event(source="/shop", type="order.paid", data={}))
    types.out("docs", "--file", str(file), "--out", str(tmp_path / "page.html"), "--title", "Shop")
    types.out("docs", "--out", str(tmp_path / "same.html"), "--title", "Shop")
    text = (tmp_path / "page.html").read_text()
    assert text == (tmp_path / "same.html").read_text()
    assert 'id="order.paid"' in text


def test_a_file_of_types_is_linted_and_added(types: Commands, tmp_path: Path) -> None:
    file = tmp_path / "types.json"
    documents = [{"type": "order.paid", "schema": json.loads(SCHEMA)}, {"type": "order.lost", "schema": {"type": "x"}}]
    file.write_text(json.dumps(documents))
    found = json.loads(types.out("lint", str(file), "--json", status=2))
    assert [(one["type"], one["field"]) for one in found if one["level"] == "error"] == [("order.lost", "schema.type")]
    assert "item 2: schema.type" in types.refused("add", "--file", str(file))
    file.write_text(json.dumps(documents[:1]))
    types.out("add", "--file", str(file))
    findings = json.loads(types.out("lint", "--json"))
    assert ("order.paid", "advice", "owner") in [(one["type"], one["level"], one["field"]) for one in findings]


def test_webhooks_are_imported(types: Commands, tmp_path: Path) -> None:
    file = tmp_path / "openapi.yaml"
    file.write_text("openapi: 3.1.0\nwebhooks:\n  order.paid:\n    post: {summary: An order was paid.}\n")
    planned = json.loads(types.out("import", str(file), "--dry-run"))
    assert planned == [{"type": "order.paid", "description": "An order was paid."}]
    assert types.out("list").strip() == "none"
    types.out("import", str(file), "--owner", "shop")
    assert types.shown("order.paid")["owner"] == "shop"


def test_a_deleted_type_is_gone(types: Commands) -> None:
    types.out("add", "order.paid")
    types.out("delete", "order.paid")
    for arguments in (["show", "order.paid"], ["delete", "order.paid"]):
        assert "no event type order.paid" in types.refused(*arguments, status=1)
