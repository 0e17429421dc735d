"""Traces: why each filter matched an event or did not, with the values that it read."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping

from bellwire.events import Event
from bellwire.filters.cesql import evaluate
from bellwire.filters.data import explain
from bellwire.filters.dialects import All, Any, Data, Exact, Filter, Not, Prefix, Sql, Suffix, alternatives_of, exceed
from bellwire.filters.event_view import EventView
from bellwire.formats.counts import counted
from bellwire.models import Payload

#: Characters of a value, or of a filter, that a trace quotes.
MAX_QUOTED = 200


class Trace(Payload):
    """What one filter found in an event."""

    #: exact, prefix, suffix, all, any, not, …
    dialect: str
    #: The filter as JSON.
    text: str
    matched: bool
    #: One sentence that names the values seen, without a full stop: subject is "a/1", which does not start with "b/".
    reason: str
    #: The filters within `all`, `any` and `not`, in order. All of them are tried, also where the first decides.
    inner: tuple["Trace", ...] = ()


def trace(filters: Iterable[Filter], event: Event | EventView) -> tuple[Trace, ...]:
    """Return what each filter found, in order. `matches` is true exactly if all of them matched."""
    return tuple(traced(filters, EventView.of(event)))


def traced(filters: Iterable[Filter], view: EventView) -> Iterator[Trace]:
    """The same, one filter at a time: each may be costly."""
    items = tuple(filters)
    too_long = exceed(items, view)
    for item in items:
        alternatives = alternatives_of(item) if too_long else 0
        yield _too_long(item, view) if alternatives else _trace(item, view)


def _too_long(item: Filter, view: EventView) -> Trace:
    which = "this pattern" if isinstance(item, Data) and item.exceeds(view) else "the patterns of all filters together"
    size = f"{counted(view.data_size.values, 'value')} and {counted(view.data_size.characters, 'character')} of text"
    return _traced(item, matched=False, reason=f"the data has {size}, which are too many for {which}")


def _trace(item: Filter, view: EventView) -> Trace:
    inner: tuple[Trace, ...] = ()
    match item:
        case All(all=filters):
            inner = tuple(_trace(each, view) for each in filters)
            matched = all(each.matched for each in inner)
        case Any(any=filters):
            inner = tuple(_trace(each, view) for each in filters)
            matched = any(each.matched for each in inner)
        case Not(not_=one):
            inner = (_trace(one, view),)
            matched = not inner[0].matched
        case _:
            matched = item.matches(view)
    return _traced(item, matched=matched, reason=_reason(item, view, [each.matched for each in inner]), inner=inner)


def _traced(item: Filter, *, matched: bool, reason: str, inner: tuple[Trace, ...] = ()) -> Trace:
    text = item.model_dump_json(by_alias=True)
    return Trace(dialect=type(item).__name__.lower(), text=text, matched=matched, reason=reason, inner=inner)


def _reason(item: Filter, view: EventView, inner: list[bool]) -> str:
    match item:
        case Exact(exact=wanted):
            return _compared(view, wanted, str.__eq__, "", "not")
        case Prefix(prefix=wanted):
            return _compared(view, wanted, str.startswith, "which starts with", "which does not start with")
        case Suffix(suffix=wanted):
            return _compared(view, wanted, str.endswith, "which ends with", "which does not end with")
        case All():
            if False in inner:
                return _position(inner, "does not match")
            return "the filter within matches" if len(inner) == 1 else f"all {len(inner)} filters within match"
        case Any():
            if True in inner:
                return _position(inner, "matches")
            return (
                "the filter within does not match"
                if len(inner) == 1
                else f"none of {len(inner)} filters within matches"
            )
        case Not():
            return f"the filter within {'matches' if inner[0] else 'does not match'}"
        case Sql():
            return _evaluated(item, view)
        case Data():
            return explain(item.data, view.data, quoted)


def _evaluated(item: Sql, view: EventView) -> str:
    """What the expression gave, and the attributes that it reads."""
    expression, values = item.expression, view.given_values
    value, error = evaluate(expression, view)
    result = f"the expression is {quoted(value)}"
    if error is not None:
        result = f"the expression fails with {error.kind}: {error.message}"
    elif not isinstance(value, bool):
        result += ", which is neither true nor false"
    seen = [
        f"{name} is {quoted(values[name]) if name in values else 'not set'}"
        for name in expression.attributes
        if error is None or error.message != f"{name} is not set"
    ]
    return f"{result}; {', '.join(seen)}" if seen else result


def _compared(
    view: EventView, wanted: Mapping[str, str], fits: Callable[[str, str], bool], match: str, mismatch: str
) -> str:
    """The first attribute that does not fit, or all of them."""
    found = []
    for name, text in wanted.items():
        seen = view.texts.get(name)
        if seen is None:
            return f"{name} is not set"
        if not fits(seen, text):
            return f"{name} is {quoted(seen)}, {mismatch} {quoted(text)}"
        found.append(f"{name} is {quoted(seen)}" + (f", {match} {quoted(text)}" if match else ""))
    return " and ".join(found)


def _position(inner: list[bool], does: str) -> str:
    """Which filter within decides: the first one."""
    number = inner.index(does == "matches") + 1
    return f"filter {number} of {len(inner)} within {does}"


def quoted(value: object) -> str:
    """The value as JSON, shortened to MAX_QUOTED characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}…"
