"""The generated reference pages: up to date, complete, and read from the code rather than from lists."""

import re
from pathlib import Path

import pytest

from docs.generator import log_events, meanings, metrics, pages, reasons, temporal
from docs.generator.flow import Flow
from docs.generator.markdown import prose
from docs.generator.meanings import MeaningsDiffer
from docs.generator.sources import PRODUCT, Module

CHECKOUT = Path(__file__).parents[2]
TEXTS = pages.texts()


@pytest.mark.parametrize("name", TEXTS)
def test_a_generated_page_is_up_to_date(name: str) -> None:
    assert (CHECKOUT / "docs" / name).read_text() == TEXTS[name], "run make reference"


def test_every_page_of_the_reference_is_generated_but_its_first() -> None:
    found = {file.relative_to(CHECKOUT / "docs").as_posix() for file in (CHECKOUT / "docs/reference").rglob("*.md")}
    assert found - {"reference/index.md"} == TEXTS.keys()


def test_the_promised_schedule_is_the_one_in_force() -> None:
    assert "| webhook | 10 | 75h35m |" in temporal.schedules_table()
    assert "10 attempts over 75 h 35 min" in (CHECKOUT / "README.md").read_text()


def test_no_event_is_logged_that_the_collector_does_not_see() -> None:
    written = set(re.findall(rf'\blog\.(?:{"|".join(log_events.LEVELS)})\(\s*"([\w.]+)"', _source()))
    assert "delivery.attempted" in written
    assert written <= {line.event for line in log_events.collect()}


def test_no_metric_is_created_that_the_collector_does_not_see() -> None:
    written = set(re.findall(r'create_\w+\(\s*"(bellwire_\w+)"', _source()))
    assert "bellwire_attempts" in written
    assert written == {metric.name.removesuffix("_total") for metric in metrics.collect()}


def _source() -> str:
    files = [file for part in PRODUCT for file in sorted((CHECKOUT / part).rglob("*.py")) or [CHECKOUT / part]]
    return "\n".join(file.read_text() for file in files)


# Meanings.


def test_a_row_without_a_meaning_is_an_error() -> None:
    with pytest.raises(MeaningsDiffer, match=r"\[rows\]: missing: 'new'\. Add a line"):
        meanings.compare("rows", ["old"], ["old", "new"])


def test_a_meaning_without_a_row_is_an_error() -> None:
    with pytest.raises(MeaningsDiffer, match=r"\[rows\]: no longer in the code: 'gone'\. "):
        meanings.compare("rows", ["old", "gone"], ["old"])


def test_placeholders_are_named_for_readers() -> None:
    meanings.compare("rows", ["HTTP <status>"], ["HTTP <response.status>"])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("stay up with --keep", "Stay up with `--keep`."),
        ("BELLWIRE_* variables, as `make` says.", "`BELLWIRE_*` variables, as `make` says."),
        ("types: order.* or *", "Types: `order.*` or `*`."),
        ("a <b> [c]", "A \\<b> \\[c\\]."),
    ],
)
def test_plain_text_becomes_markdown(text: str, shown: str) -> None:
    assert prose(text) == shown


# Following texts through code.


def texts(*sources: str) -> set[str]:
    """The reasons of modules with this text; what cannot be followed begins with a question mark."""
    modules = [Module.parse(f"m{number}.py", source) for number, source in enumerate(sources)]
    return {f"?{text.pattern}" if text.opaque else text.pattern for text in reasons.collect(modules)}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("Outcome(reason='timeout')", {"timeout"}),
        ("LATE = 'late'\nOutcome(reason=LATE)", {"late"}),
        ("def f(x): return Outcome(reason='a' if x else None)", {"a"}),
        ("def f(status): return Outcome(reason=f'HTTP {status}')", {"HTTP <status>"}),
        ("class Kind(StrEnum):\n    A = 'a'\nOutcome(reason=Kind.A)", {"a"}),
        ("MAX = 3_000\ndef f(): return Outcome(reason=f'over {MAX // 1_000} kB')", {"over 3 kB"}),
    ],
    ids=["literal", "constant", "choice", "template", "enumeration", "number"],
)
def test_a_text_is_found_where_it_is_written(source: str, found: set[str]) -> None:
    assert texts(source) == found


def test_a_parameter_is_followed_to_all_callers() -> None:
    helper = "def later(reason, *, wait=None):\n    return Outcome(reason=reason[:9])"
    assert texts(helper, "from m0 import later\nlater('a')\nlater(reason='b')") == {"a", "b"}


def test_a_private_function_has_callers_in_its_module_only() -> None:
    assert texts("def _f(reason): return Outcome(reason=reason)\n_f('mine')", "def _f(x): ...\n_f('theirs')") == {
        "mine"
    }


def test_a_method_is_followed_without_its_first_parameter() -> None:
    source = "class C:\n    def f(self, reason): return Outcome(reason=reason)\n    def g(self): self.f('a')"
    assert texts(source) == {"a"}


def test_a_table_is_followed_by_column() -> None:
    source = "TABLE = ((OSError, 'lost'), (TimeoutError, 'late'))\n"
    source += (
        "def f(e):\n    kind, reason = next((k, r) for k, r in TABLE if isinstance(e, k))\n    Outcome(reason=reason)"
    )
    assert texts(source) == {"lost", "late"}


def test_a_mapping_of_tuples_is_followed_through_a_function() -> None:
    source = "TABLE = {OSError: (1, 'lost')}\ndef meaning(e):\n    return TABLE[type(e)]\n"
    source += "def f(e):\n    code, reason = meaning(e)\n    Outcome(reason=reason)"
    assert texts(source) == {"lost"}


def test_pieces_that_are_joined_are_found() -> None:
    source = "def f(n):\n    notes = [f'{n} bad']\n    notes.append('more')\n    Outcome(reason='; '.join(notes))"
    assert texts(source) == {"<n> bad", "more"}


def test_a_mapping_that_a_function_fills_is_followed() -> None:
    source = "async def why():\n    found = {}\n    found[1] = 'gone'\n    return found\n"
    source += (
        "async def f():\n    disabled = await why()\n    for _, reason in disabled.items(): Outcome(reason=reason)"
    )
    assert texts(source) == {"gone"}


def test_the_reason_of_an_exception_is_found_where_it_is_raised() -> None:
    source = "class Refused(Exception):\n    def __init__(self, reason): self.reason = reason\n"
    source += "def f():\n    raise Refused('refused')\ndef g(e): return Outcome(reason=e.reason)"
    assert texts(source) == {"refused"}


def test_functions_that_call_each_other_end() -> None:
    source = "def f(reason): g(reason)\ndef g(reason):\n    f(reason)\n    Outcome(reason=reason)\nf('a')"
    assert texts(source) == {"a"}


def test_what_cannot_be_followed_is_shown_as_such() -> None:
    assert texts("def f(error): Outcome(reason=str(error))") == {"?str(error)"}


def test_lines_of_the_log_and_suppressions_are_no_reasons() -> None:
    assert texts("log.info('a.b', reason='x')\nSuppression(reason='y')") == set()


def test_a_text_that_cannot_be_followed_has_a_place() -> None:
    module = Module.parse("a/b.py", "\nf(reason=unknown())")
    (text,) = reasons.collect([module])
    assert (text.opaque, text.where) == (True, "a/b.py:2")
    assert Flow([module])


# Log events and metrics.

LOGGER = "import structlog\nlog = structlog.get_logger()\n"


def lines(source: str) -> list[tuple[str, str, tuple[str, ...]]]:
    return [
        (line.event, line.level, line.fields) for line in log_events.collect([Module.parse("m.py", LOGGER + source)])
    ]


def test_a_log_call_is_read() -> None:
    assert lines("log.info('a.b', one=1, exc_info=True)") == [("a.b", "info", ("one", "exception"))]


def test_the_level_may_be_chosen_before() -> None:
    source = "def f(x):\n    tell = log.error if x else log.info\n    tell('a.b')"
    assert lines(source) == [("a.b", "info", ()), ("a.b", "error", ())]


def test_fields_may_come_from_a_mapping() -> None:
    assert lines("def f():\n    ids = {'x': 1}\n    log.info('a.b', **ids)") == [("a.b", "info", ("x",))]


@pytest.mark.parametrize("call", ["log.info(name())", "log.info('a.b', **fields)", "log.bind(x=1)", "log.info()"])
def test_a_log_call_that_cannot_be_read_is_an_error(call: str) -> None:
    with pytest.raises(log_events.NotFollowed, match=r"m\.py:3"):
        lines(call)


def test_a_metric_is_read() -> None:
    source = "def f(m):\n    labels = {'channel': 1}\n    m.create_counter('x', 'Things').add(1, labels)"
    (metric,) = metrics.collect([Module.parse("m.py", source)])
    assert (metric.name, metric.kind, metric.labels, metric.meaning) == ("x_total", "counter", ("channel",), "Things.")


@pytest.mark.parametrize("call", ["m.create_gauge(NAME, 'Things')", "m.create_gauge('x', 'Things').set(1, labels())"])
def test_a_metric_that_cannot_be_read_is_an_error(call: str) -> None:
    with pytest.raises(metrics.NotFollowed):
        metrics.collect([Module.parse("m.py", f"def f(m):\n    {call}")])
