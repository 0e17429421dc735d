"""Errors of templates name what the template's author wrote, and never names or values that come from an event."""

import traceback
from pathlib import Path

import pytest

from activities.rendering.renderer import Renderer
from activities.rendering.sandbox.child import handle
from activities.rendering.sandbox.compiled import CompiledTemplates
from bellwire.errors import TemplateInvalid
from tests.factories import event, send_request, subscription

#: Personal data of an event: an identifier, an address, and a key.
NAME, ADDRESS = "ANN_SMITH", "ann.smith@example.com"
DATA = {"name": NAME, "to": ADDRESS, "field": "{x.ANN_SMITH}", "item": "{x[ANN_SMITH]}", "percent": "%(ANN_SMITH)s",
        "keys": {NAME: 1}, "path": "a.ANN_SMITH", "list": [NAME], "private": "__ANN_SMITH__", "nested": {"a": {}}}  # fmt: skip
SMS = {"channel": "sms", "to": "+14155550123"}
SOURCES = [
    *(f"{{{{ [1] | map(data.{field}) | list }}}}" for field in ("name", "to")),
    *(f"{{{{ [1] | {name}(data.{field}) | list }}}}" for name in ("select", "reject") for field in ("name", "to")),
    "{{ [data] | selectattr('name', data.name) | list }}",
    "{{ [data] | rejectattr('name', data.to) | list }}",
    "{{ [data] | map(attribute=data.name) | join }}",
    "{{ [data.nested] | map(attribute=data.path) | join }}",
    "{{ [data] | sort(attribute=data.path) | join }}",
    "{% for group in [data] | groupby(data.name) %}{{ group.grouper }}{% endfor %}",
    "{{ [data] | sum(attribute=data.name) }}",
    "{{ [data] | join(attribute=data.name) }}",
    "{{ data[data.name] }}",
    "{{ data[data.name].x }}",
    "{{ data.nested[data.name] ~ '' }}",
    "{{ ''[data.private] }}",
    "{{ ''[data.name] }}",
    "{{ data.list[data.name] }}",
    "{{ data.field.format(x=data) }}",
    "{{ data.field.format(x=1) }}",
    "{{ data.item.format(x=data) }}",
    "{{ '{x.ANN}'.replace('ANN', data.name).format(x='') }}",
    "{{ ('{0.' ~ data.private ~ '}').format(1) }}",
    "{{ data.field.format() }}",
    "{{ data.percent % {} }}",
    "{{ data.percent | format(a=1) }}",
    "{{ data.name() }}",
    "{{ data.list() }}",
    "{{ data.name + 1 }}",
    "{{ data.name | round }}",
    "{{ data.name | int + data.to }}",
    "{{ [1] | map('round', **data.keys) | list }}",
    "{{ [1] | map(**data.keys) | list }}",
    "{{ data.to | urlize(extra_schemes=[data.to]) }}",
    "{{ {} | dictsort(by=data.name) }}",
    "{{ 1.5 | round(1, data.name) }}",
    "{{ dict(data.to) }}",
    "{{ range(data.name) }}",
    "{{ self[data.name]() }}",
    "{% macro m() %}{% endmacro %}{{ m(**data.keys) }}",
    "{% set ns = namespace() %}{{ ns[data.name] }}",
    "{% for a, b in [data.name] %}{% endfor %}",
    "{{ data.name is divisibleby(data.to) }}",
    "{{ data.name | wordwrap(data.to) }}",
    "{{ data.name.split(data.to, data.name) }}",
    "{{ data.name.index(data.to) }}",
    "{{ data.list.index(data.to) }}",
]


def words_of(error: BaseException) -> str:
    """The error as the most careless logging would write it: with its causes and their texts."""
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize("source", SOURCES)
async def test_no_error_of_an_operators_template_contains_data(source: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "sms.txt").write_text(source)
    with pytest.raises(TemplateInvalid) as caught:
        await Renderer(tmp_path).text(send_request(subscription(SMS), event(type="a", data=DATA)), "sms.text")
    assert str(caught.value).startswith("template a/sms.txt")
    assert "ANN_SMITH" not in words_of(caught.value)
    assert "ann.smith" not in words_of(caught.value)


@pytest.mark.parametrize("source", [*SOURCES, "{% include data.name %}"])
async def test_no_error_of_a_tenants_template_contains_data(source: str) -> None:
    templates = CompiledTemplates()
    if "fault" in handle(templates, {"digest": "1", "sources": {"sms.text": source}}):
        return
    response = handle(templates, {"digest": "1", "names": ["sms.text"], "context": {"data": DATA}})
    assert "fault" in response
    assert "ANN_SMITH" not in str(response)
    assert "ann.smith" not in str(response)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ data.total }}", "total is missing"),
        ("{{ total }}", "total is missing"),
        ("{{ data.total.amount }}", "total is missing"),
        ("{{ 1 | nofilter }}", "No filter named 'nofilter'."),
        ("{{ [].append(1) }}", "append"),
        ("{{ [1] | map(data.name) | list }}", "no filter or test has this name"),
    ],
)
async def test_errors_name_what_the_author_wrote(source: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "sms.txt").write_text(source)
    with pytest.raises(TemplateInvalid) as caught:
        await Renderer(tmp_path).text(send_request(subscription(SMS), event(type="a", data=DATA)), "sms.text")
    assert message in str(caught.value)
