# ruff: noqa: E501 - one line for each
"""In a JSON template every expression writes one JSON value: no filter, method or block turns data into structure."""

import json
from pathlib import Path
from typing import Any

import pytest

from activities.rendering.renderer import Renderer
from activities.rendering.sandbox.compiled import CompiledTemplates
from activities.rendering.sandbox.faults import Fault
from tests.factories import event, send_request, subscription

#: Would add a field to the object around it, if it were written as it is.
EVIL = '1, "admin": true, "b": 2'
HOOK = {"channel": "webhook", "url": "https://app.example/hooks"}
#: Ways to write text without the quotes of JSON.
EXPRESSIONS = [
    "data.evil",
    *(f"data.evil | {name}" for name in ("e", "escape", "forceescape", "safe", "urlize", "striptags", "string", "trim", "title")),
    *(f"data.evil | {name} | safe" for name in ("tojson", "e", "urlencode", "upper", "indent", "wordwrap", "center", "list | join")),
    "data.evil | safe | replace('x', 'y')",
    "'EVIL' | safe | replace('EVIL', data.evil | safe)",
    "('%s' | safe) % (data.evil | safe)",
    "('%s' | safe) | format(data.evil | safe)",
    "('{}' | safe).format(data.evil | safe)",
    "('' | safe).join([data.evil | safe])",
    "('' | safe) ~ (data.evil | safe)",
    "('' | safe) + (data.evil | safe)",
    "(data.evil | safe) * 1",
    "[data.evil | safe] | join",
    "[data.evil | safe] | first",
    "data.evil | tojson | replace('\"', '')",
    "(data.evil | tojson) ~ ''",
    "data.evil | tojson | string",
    "data.evil | tojson | trim('\"')",
    "data.evil | tojson | e | replace('&#34;', '')",
    "[data.evil] | map('safe') | first",
    "[data.evil] | map('tojson') | first | trim('\"')",
    "cycler(data.evil | safe).next()",
    "dict(a=data.evil | safe).a",
    "namespace(a=data.evil | safe).a",
    "(data.evil | safe)[0:]",
    "(data.evil | safe).strip()",
    "data.evil | safe if true else 1",
]  # fmt: skip
#: Templates that would write data without an expression.
BLOCKS = [
    "{% filter replace('EVIL', data.evil | safe) %}EVIL{% endfilter %}",
    "{% filter e %}{{ data.evil }}{% endfilter %}",
    "{% call '{}'.format(data.evil) %}{% endcall %}",
    "{% call ('{}' | safe).format(data.evil | safe) %}{% endcall %}",
    "{% set x | replace('EVIL', data.evil | safe) %}EVIL{% endset %}{{ x }}",
    "{% set x %}EVIL{% endset %}{{ x | replace('EVIL', data.evil | safe) }}",
    "{% set x = data.evil | safe %}{{ x }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(data.evil | safe) }}",
    "{% macro m() %}EVIL{% endmacro %}{{ m() | replace('EVIL', data.evil | safe) }}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}{{ data.evil | e }}{% endcall %}",
    "{% autoescape false %}{{ data.evil }}{% endautoescape %}",
    "{% autoescape false %}{{ data.evil | e }}{% endautoescape %}",
    "{% autoescape false %}{% macro m(a) %}{{ a }}{% endmacro %}{{ m(data.evil) }}{% endautoescape %}",
    "{% for x in [data.evil | safe] recursive %}{{ x }}{% endfor %}",
    "{% block b %}{{ data.evil | safe }}{% endblock %}",
]
#: Templates whose own text is structure, with what they write.
STRUCTURE: list[tuple[str, Any]] = [
    ('{% macro m(a) %}{"x": {{ a }}}{% endmacro %}[{{ m(data.evil) }}, {{ m(1) }}]', [{"x": EVIL}, {"x": 1}]),
    ('{% set x %}{"y": {{ data.evil }}}{% endset %}{{ x }}', {"y": EVIL}),
    ('{% set ns = namespace() %}{% set ns.x %}[1]{% endset %}{{ ns.x }}', [1]),
    ('{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}{{ data.evil }}{% endcall %}', [EVIL]),
    ("{% for a in [[[], []]] recursive %}[{% if a %}{{ loop(a) }}{% endif %}]{% if not loop.last %},{% endif %}{% endfor %}", [[], []]),
    ("{% block b %}[{{ data.evil }}]{% endblock %}", [EVIL]),
    ('[{{ data | tojson }}, {{ data.evil | tojson }}, {{ "a" ~ data.evil }}]', [{"evil": EVIL}, EVIL, f"a{EVIL}"]),
    ("[{{ data.evil | upper }}, {{ [1, data] }}]", [EVIL.upper(), [1, {"evil": EVIL}]]),
]  # fmt: skip


def rendered(source: str) -> Any:
    templates = CompiledTemplates()
    if (fault := templates.compile("1", {"webhook.json": source})) is not None:
        return fault
    found = templates.render("1", ["webhook.json"], {"data": {"evil": EVIL}})
    return found if isinstance(found, Fault) else json.loads(found["webhook.json"])


@pytest.mark.parametrize(
    "source", [f'{{"a": {{{{ {expression} }}}}}}' for expression in EXPRESSIONS] + [f'{{"a": {block}}}' for block in BLOCKS]
)  # fmt: skip
def test_data_never_becomes_structure(source: str) -> None:
    found = rendered(source)
    assert isinstance(found, Fault) or found.keys() == {"a"}


@pytest.mark.parametrize(("source", "expected"), STRUCTURE)
def test_the_text_of_macros_and_blocks_is_structure(source: str, expected: Any) -> None:
    assert rendered(source) == expected


def test_a_filter_block_is_refused_with_a_remedy() -> None:
    found = rendered('{"a": {% filter upper %}"b"{% endfilter %}}')
    assert isinstance(found, Fault)
    assert "filter blocks are not available in JSON templates; use the filter in an expression" in found.problem


async def test_a_part_that_is_included_writes_json_values_too(tmp_path: Path) -> None:
    (tmp_path / "order.paid").mkdir()
    (tmp_path / "_part.txt").write_text("{{ data.evil }}{% macro m(a) %}[{{ a }}]{% endmacro %}")
    (tmp_path / "order.paid" / "webhook.json").write_text(
        '{% from "_part.txt" import m with context %}[{% include "_part.txt" %}, {{ m(data.evil) }}]'
    )
    request = send_request(subscription(HOOK), event(data={"evil": EVIL}))
    assert json.loads(await Renderer(tmp_path).text(request, "webhook.json")) == [EVIL, [EVIL]]


async def test_a_mail_after_a_json_template_is_escaped_as_html(tmp_path: Path) -> None:
    (tmp_path / "order.paid").mkdir()
    (tmp_path / "order.paid" / "webhook.json").write_text("{{ data.evil | tojson }}")
    (tmp_path / "order.paid" / "email.html").write_text(
        "<p>{% call '{}'.format(data.evil) %}{% endcall %}{{ data.evil }}</p>"
    )
    renderer = Renderer(tmp_path)
    published = event(data={"evil": "<b>"})
    assert await renderer.text(send_request(subscription(HOOK), published), "webhook.json") == '"\\u003cb\\u003e"'
    to = subscription({"channel": "email", "to": "ann@example.com"})
    assert (await renderer.email(send_request(to, published))).html == "<p>&lt;b&gt;&lt;b&gt;</p>"
