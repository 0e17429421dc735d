"""CESQL against the conformance suite of CloudEvents."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bellwire.events import Event
from bellwire.filters.cesql import CesqlError, evaluate, parse

SUITE = Path(__file__).parent / "cesql_suite"
REQUIRED = {"specversion": "1.0", "id": "a", "source": "/suite", "type": "test"}


class _Loader(yaml.SafeLoader):
    """Times are text, as in the JSON format of CloudEvents."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def cases() -> Iterator[Any]:
    for file in sorted(SUITE.glob("*.yaml")):
        values = yaml.load(file.read_text(), _Loader)
        # An expression such as TRUE or 1 is a text.
        texts = yaml.load(file.read_text(), yaml.BaseLoader)
        for case, text in zip(values["tests"], texts["tests"], strict=True):
            yield pytest.param({**case, "expression": text["expression"]}, id=f"{file.stem}: {case['name']}")


def outcome(expression: str, event: Event | dict[str, Any]) -> tuple[object, str | None]:
    try:
        value, error = evaluate(parse(expression), event)
    except CesqlError as refused:
        return False, refused.kind
    return value, error.kind if error else None


@pytest.mark.parametrize("case", list(cases()))
def test_the_suite_passes(case: dict[str, Any]) -> None:
    attributes = case.get("event") or REQUIRED | case.get("eventOverrides", {})
    for event in (Event.parse(attributes), attributes):
        value, error = outcome(case["expression"], event)
        assert error == case.get("error")
        if "result" in case:
            assert value == case["result"]
            assert type(value) is type(case["result"])


def test_the_suite_is_complete() -> None:
    assert len(list(cases())) >= 150
