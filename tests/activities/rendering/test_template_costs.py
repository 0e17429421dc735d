# ruff: noqa: E501 - one line for each
"""What each filter, test, function and method costs: at least a step for 64 characters that it reads, more where it does more."""

import pytest

from activities.rendering.sandbox.attributes import _BY_CLASS, _STRING
from activities.rendering.sandbox.budget import LimitExceeded
from activities.rendering.sandbox.environment import TemplateEnvironment

#: Characters of the variable `text`, and elements of `many`: strings of 100 characters.
LENGTH, MANY = 64_000, 1_000
CONTEXT = {
    "text": "a" * LENGTH,
    "words": "ab " * (LENGTH // 3),
    "many": [f"{number:0100}" for number in range(MANY)],
    "numbers": list(range(MANY)),
    "objects": [{"a": {"b": number}} for number in range(MANY)],
    "object": {f"{number:0100}": number for number in range(MANY)},
    "deep": "0" + ".0" * 5_000,
    "colliding": [number * (2**61 - 1) for number in range(2, 2_000)],
    "brackets": "(" * 30_000 + ")" * 30_000,
    "tags": "<>" * 30_000,
}
READ = LENGTH // 64

#: The least steps of each filter, with an expression. `None`: more than the whole budget.
FILTERS = {
    "abs": ("numbers | map('abs') | list | length", MANY * 4),
    "batch": ("numbers | batch(10) | list | length", MANY // 10),
    "capitalize": ("text | capitalize | length", READ),
    "center": ("text | center(1000) | length", READ),
    "count": ("text | count", READ),
    "d": ("missing | d(text) | length", READ),
    "default": ("missing | default(text) | length", READ),
    "dictsort": ("object | dictsort | length", MANY * 100 * 10 // 256),
    "e": ("text | e | length", 5 * READ),
    "escape": ("text | escape | length", 5 * READ),
    "filesizeformat": ("numbers | map('filesizeformat') | list | length", MANY * 4),
    "first": ("text | first", READ),
    "float": ("text | float", READ),
    "forceescape": ("text | forceescape | length", 5 * READ),
    "format": ("'%s' | format(text) | length", READ),
    "format_time": ("text | format_time | length", READ),
    "groupby": ("objects | groupby('a.b') | length", MANY * 2),
    "indent": ("text | indent | length", READ),
    "int": ("text | int", READ),
    "items": ("object | items | list | length", MANY),
    "join": ("many | join | length", MANY * 100 // 64),
    "last": ("text | last", READ),
    "length": ("text | length", READ),
    "list": ("text | list | length", READ),
    "lower": ("text | lower | length", READ),
    "map": ("objects | map(attribute='a.b') | list | length", MANY * 2),
    "max": ("many | max", MANY * 100 // 64),
    "min": ("many | min", MANY * 100 // 64),
    "reject": ("many | reject | list | length", MANY // 4),
    "rejectattr": ("objects | rejectattr('a.b') | list | length", MANY * 2),
    "replace": ("text[:9000] | replace('a', 'bb') | length", 10 * 9_000 // 64),
    "reverse": ("text | reverse | length", READ),
    "round": ("numbers | map('round') | list | length", MANY * 4),
    "rows": ("object | rows | length", MANY * 100 // 64),
    "safe": ("text | safe | length", READ),
    "select": ("many | select | list | length", MANY // 4),
    "selectattr": ("objects | selectattr('a.b') | list | length", MANY * 2),
    "slice": ("many | slice(10) | list | length", MANY // 64),
    "sort": ("many | sort | length", MANY * 100 * 10 // 256),
    "string": ("many | string | length", MANY * 100 // 64),
    "striptags": ("tags | striptags | length", None),
    "sum": ("objects | sum('a.b')", MANY * 2),
    "title": ("text | title | length", 4 * READ),
    "tojson": ("text | tojson | length", 6 * READ),
    "trim": ("text | trim('a' * 9) | length", LENGTH * 9 // 1024),
    "truncate": ("text | truncate(9) | length", READ),
    "unique": ("colliding | unique | list | length", 2_000**2 // 300),
    "upper": ("text | upper | length", READ),
    "urlencode": ("text[:9000] | urlencode | length", 9 * 9_000 // 64),
    "urlize": ("brackets | urlize | length", None),
    "wordcount": ("words | wordcount", READ),
    "wordwrap": ("text | wordwrap(1) | length", None),
}
#: Tests that look at the whole value, and those that look at its kind only.
READING = {
    "in": "text is in([text])", "eq": "text is eq(text)", "equalto": "text is equalto(text)", "ne": "text is ne(text)",
    "==": "[text] | select('==', text) | list", "!=": "[text] | select('!=', text) | list", ">": "[text] | select('>', text) | list",
    "<": "[text] | select('<', text) | list", ">=": "[text] | select('>=', text) | list", "<=": "[text] | select('<=', text) | list",
    "gt": "text is gt(text)", "ge": "text is ge(text)", "lt": "text is lt(text)", "le": "text is le(text)",
    "greaterthan": "text is greaterthan(text)", "lessthan": "text is lessthan(text)",
    "lower": "text is lower", "upper": "text is upper",
}  # fmt: skip
KIND = {"boolean", "callable", "defined", "divisibleby", "escaped", "even", "false", "filter", "float", "integer", "iterable",
        "mapping", "none", "number", "odd", "sameas", "sequence", "string", "test", "true", "undefined"}  # fmt: skip
FUNCTIONS = {
    "range": ("range(9999) | list | length", 7_000),
    "dict": ("dict(object) | length", MANY * 100 // 64),
    "namespace": ("namespace(**object)", MANY // 4),
    "cycler": ("cycler(*range(40000)).next()", 10_000),
    "joiner": ("joiner(text)()", 2 * 4),
}
#: Expressions whose cost is not that of a single filter.
OTHERS = {
    "a long path of map": ("many | map(attribute=deep, default=1) | list | length", None),
    "a long path of numbers": ("(['aa'] * 500) | map(attribute=deep) | list | length", None),
    "a long path of sort": ("(['aa'] * 500) | sort(attribute=deep) | length", None),
    "a long path of groupby": ("(['aa'] * 500) | groupby(attribute=deep) | length", None),
    "a long path of max": ("(['aa'] * 500) | max(attribute=deep)", None),
    "a long path of min": ("(['aa'] * 500) | min(attribute=deep)", None),
    "a long path of unique": ("(['aa'] * 500) | unique(attribute=deep) | list", None),
    "a long path of join": ("(['aa'] * 500) | join(attribute=deep) | length", None),
    "a long path of selectattr": ("(['aa'] * 500) | selectattr(deep) | list", None),
    "a long path of rejectattr": ("(['aa'] * 500) | rejectattr(deep) | list", None),
    "a long path of str.format": ("('{0' ~ '[0]' * 5000 ~ '}').format('aa')", 5_000),
    "closing brackets before text": ("(')' * 30000 ~ 'x)') | urlize | length", None),
    "schemes of urlize": ("words | urlize(extra_schemes=many) | length", None),
    "comments of striptags": ("('<!---->' * 9000) | striptags | length", 60_000),
    "characters to trim": ("text | trim('b' * 9000 ~ 'a') | length", None),
    "characters to strip": ("text.strip('b' * 9000 ~ 'a')", None),
    "a search from the end": ("text.rfind('b' ~ 'a' * 9000)", None),
    "a partition from the end": ("text.rpartition('b' ~ 'a' * 9000)", None),
    "the elements of a list": ("many.count('a')", MANY * 100 // 64),
    "many operands": ("1 " + "+ 1 " * 60 + "== 1 " * 3_000, 3_000 // 8),
    "many arguments": ("namespace(**dict(object))", MANY * 100 // 64),
}


def spent(source: str, **changed: object) -> int:
    """The steps of rendering the source."""
    environment = TemplateEnvironment()
    template = environment.from_string(source)
    environment.budget.reset()
    template.render(CONTEXT | changed)
    return environment.budget.spent


def test_the_tables_name_every_filter_test_and_function() -> None:
    environment = TemplateEnvironment()
    assert set(FILTERS) == set(environment.filters)
    assert READING.keys() | KIND == set(environment.tests)
    assert set(FUNCTIONS) == set(environment.globals)


@pytest.mark.parametrize(("expression", "least"), [*FILTERS.values(), *FUNCTIONS.values(), *OTHERS.values()])
def test_every_filter_and_function_pays_for_its_work(expression: str, least: int | None) -> None:
    source = f"{{% if {expression} %}}{{% endif %}}"
    if least is None:
        with pytest.raises(LimitExceeded):
            spent(source)
    else:
        assert spent(source) >= least


@pytest.mark.parametrize("expression", READING.values())
def test_every_test_that_reads_a_value_pays_for_it(expression: str) -> None:
    assert spent(f"{{% if {expression} %}}{{% endif %}}") >= READ


@pytest.mark.parametrize("method", sorted(_STRING - {"format", "join", "replace"}))
def test_every_method_of_text_pays_for_its_text(method: str) -> None:
    takes_argument = {"center", "count", "endswith", "find", "index", "ljust", "partition", "removeprefix", "removesuffix",
                      "rfind", "rindex", "rjust", "rpartition", "startswith", "zfill"}  # fmt: skip
    width = {"center", "ljust", "rjust", "zfill"}
    argument = ("9" if method in width else "'a'") if method in takes_argument else ""
    assert spent(f"{{% if text.{method}({argument}) %}}{{% endif %}}") >= READ


def test_the_lists_of_methods_are_known() -> None:
    assert {kind.__name__ for kind in _BY_CLASS} == {"str", "list", "tuple", "LoopContext", "Macro", "Cycler"}


def test_a_block_pays_for_its_statements() -> None:
    assert spent("{% set x = 1 %}" * 1_600) >= 100


def test_comparing_in_a_loop_pays_for_what_is_compared() -> None:
    source = "{% for i in range(10) %}{% if loop.changed(many) %}{% endif %}{% endfor %}"
    assert spent(source) >= 10 * MANY * 100 // 64
