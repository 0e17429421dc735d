"""The filters, tests and methods that templates may use, each charged to a Budget before it runs."""

from collections.abc import Callable, Iterator, Mapping
from functools import update_wrapper
from types import GeneratorType, MappingProxyType
from typing import Any

from jinja2.exceptions import TemplateRuntimeError

from activities.rendering.sandbox.budget import (
    MAX_BITS,
    MAX_WIDTH,
    Budget,
    LimitExceeded,
    bounded_width,
    size,
    size_formatted,
    size_of_power,
    size_repeated,
    size_replaced,
)
from activities.rendering.sandbox.filters import format_time, rows

#: Steps of one call.
CALL = 4
#: Filters that Bellwire adds to those of Jinja2.
ADDED: Mapping[str, Callable[..., Any]] = MappingProxyType({"format_time": format_time, "rows": rows})
#: Filters of Jinja2 that are removed: they access attributes, differ between attempts, or write HTML attributes.
_REMOVED = frozenset({"attr", "pprint", "random", "xmlattr"})
#: Filters that are charged by the length of a list and not by the size of its elements.
_SHALLOW = frozenset(
    {
        "batch",
        "count",
        "d",
        "default",
        "first",
        "items",
        "last",
        "length",
        "list",
        "map",
        "reject",
        "rejectattr",
        "reverse",
        "select",
        "selectattr",
        "slice",
    }
)

Sizing = Callable[..., int]


# The parameters of the functions below have the names of Jinja2's, since templates may pass arguments by name.


def _centered(value: Any, width: Any = 80) -> int:
    return size(value) + bounded_width(width)


def _indented(value: Any, width: Any = 4, *_: Any, **__: Any) -> int:
    step = len(width) if isinstance(width, str) else bounded_width(width)
    return size(value) + step * (str(value).count("\n") + 2)


def _formatted(value: Any, *args: Any, **fields: Any) -> int:
    return size_formatted(str(value), fields or args)


def _replaced(value: Any, old: Any, new: Any, *_: Any, **__: Any) -> int:
    return size_replaced(str(value), str(old), str(new)) * 5  # each character may be escaped


def _joined(value: Any, d: Any = "", *_: Any, **__: Any) -> int:
    return size(value) + size(d) * (len(value) if hasattr(value, "__len__") else 1)


def _wrapped(
    value: Any, width: Any = 79, break_long_words: Any = True, wrapstring: Any = None, *_: Any, **__: Any
) -> int:
    if not isinstance(width, int) or width < 1:
        raise TemplateRuntimeError("wordwrap: the width must be 1 or more")
    text = str(value)
    breaks = text.count("\n") + len(text.split()) + (len(text) // width if break_long_words else 0)
    return 8 * len(text) + breaks * len(str(wrapstring or "\n"))


def _linked(value: Any, *args: Any, **fields: Any) -> int:
    each = 60 + sum(map(size, args)) + size(fields)
    return 6 * size(value) + str(value).count(".") * each + str(value).count("@") * each + str(value).count(":") * each


def _batched(value: Any, linecount: Any, fill_with: Any = None) -> int:  # noqa: ARG001
    return bounded_width(linecount) * 2 + size(fill_with)


def _sliced(value: Any, slices: Any, fill_with: Any = None) -> int:  # noqa: ARG001
    return bounded_width(slices) * (4 + size(fill_with))


def _as_json(value: Any, indent: Any = None) -> int:
    return size(value) * (2 + (bounded_width(indent) if isinstance(indent, int) else 4))


def _rounded(value: Any, precision: Any = 0, *_: Any, **__: Any) -> int:  # noqa: ARG001
    if not isinstance(precision, int) or abs(precision) > 20:
        raise TemplateRuntimeError("round: the precision must be an integer of at most 20")
    return 0


def _summed(value: Any, attribute: Any = None, start: Any = 0) -> int:  # noqa: ARG001
    if not isinstance(start, int | float):
        raise TemplateRuntimeError("sum: works with numbers only; use join for text")
    return 0


#: The largest result of a filter in characters, for filters whose result may be larger than their arguments.
_SIZES: Mapping[str, Sizing] = MappingProxyType(
    {
        "center": _centered,
        "indent": _indented,
        "format": _formatted,
        "replace": _replaced,
        "join": _joined,
        "wordwrap": _wrapped,
        "urlize": _linked,
        "batch": _batched,
        "slice": _sliced,
        "tojson": _as_json,
        "round": _rounded,
        "sum": _summed,
        "title": lambda s: 4 * size(s),
        "escape": lambda value: 5 * size(value),
        "e": lambda value: 5 * size(value),
        "forceescape": lambda value: 5 * size(value),
        "urlencode": lambda value: 9 * size(value),
    }
)


# The steps of filters whose work is more than linear in the size of their arguments.


def _sorting(value: Any, *_: Any, **__: Any) -> int:
    """Comparing costs up to the size of the elements, for each doubling of their number."""
    return size(value) * len(value).bit_length() >> 8 if hasattr(value, "__len__") else 0


def _hashing(value: Any, *_: Any, **__: Any) -> int:
    """Large integers can be chosen so that all of them have the same hash."""
    large = sum(isinstance(item, int) and item.bit_length() > 60 for item in value) if isinstance(value, list) else 0
    return large * large >> 8


def _matching(value: Any, *args: Any, extra_schemes: Any = (), **__: Any) -> int:
    """Matching a word backtracks, and each scheme is compared with each word."""
    words = str(value).split()
    schemes = args[3] if len(args) > 3 else extra_schemes
    compared = len(words) * len(schemes) >> 4 if isinstance(schemes, list | tuple | str) else 0
    return compared + (sum(len(word) ** 2 for word in words) * 4 >> 10)


def _removing(value: Any, *_: Any) -> int:
    """Removing a tag copies the text after it."""
    text = str(value)
    return len(text) * text.count("<") >> 13


def _breaking(value: Any, width: Any = 79, *_: Any, **__: Any) -> int:
    """Breaking a long word copies its rest."""
    return sum(len(word) ** 2 // max(int(width), 1) for word in str(value).split()) >> 12


def _trimming(value: Any, chars: Any = None) -> int:
    """Each character is searched among `chars`."""
    return len(str(value)) * size(chars) >> 10 if chars is not None else 0


_WORK: Mapping[str, Callable[..., int]] = MappingProxyType(
    {
        "dictsort": _sorting,
        "groupby": _sorting,
        "sort": _sorting,
        "unique": _hashing,
        "urlize": _matching,
        "striptags": _removing,
        "wordwrap": _breaking,
        "trim": _trimming,
    }
)
#: Methods of strings that search from the end, or for each character, in time proportional to the product of the lengths.
_PRODUCT = frozenset({"rfind", "rindex", "rpartition", "rsplit", "strip", "lstrip", "rstrip"})


def bounded_filters(filters: Mapping[str, Callable[..., Any]], budget: Budget) -> dict[str, Callable[..., Any]]:
    """The filters that templates may use, each charged to the budget."""
    return {name: _bounded(name, function, budget) for name, function in filters.items() if name not in _REMOVED}


def bounded_tests(tests: Mapping[str, Callable[..., Any]], budget: Budget) -> dict[str, Callable[..., Any]]:
    """The tests (`is …`), each charged to the budget."""
    return {name: _bounded(f"is {name}", function, budget) for name, function in tests.items()}


def _bounded(name: str, function: Callable[..., Any], budget: Budget) -> Callable[..., Any]:
    sizing, work = _SIZES.get(name), _WORK.get(name)
    shallow = name in _SHALLOW
    # Jinja2 passes the environment or the context to some filters as the first argument.
    skipped = 1 if hasattr(function, "jinja_pass_arg") else 0

    def charged(*args: Any, **fields: Any) -> Any:
        budget.spend(CALL)
        given = [_to_list(value, budget) if isinstance(value, Iterator) else value for value in args[skipped:]]
        for value in (*given, *fields.values()):
            if shallow and isinstance(value, list | tuple | dict | range):
                budget.spend(len(value) >> 2)
            else:
                budget.charge(value)
        if sizing is not None:
            budget.charge_size(sizing(*given, **fields))
        if work is not None:
            budget.spend(work(*given, **fields))
        result = function(*args[:skipped], *given, **fields)
        if isinstance(result, GeneratorType) or (isinstance(result, Iterator) and not isinstance(result, str)):
            return _to_list(result, budget)
        return result if shallow and any(result is value for value in given) else budget.charge(result)

    return update_wrapper(charged, function)


def _to_list(values: Iterator[Any], budget: Budget) -> list[Any]:
    """The values of an iterator as a list, since an iterator has no size that could be charged."""
    found = []
    for value in values:
        budget.spend()
        found.append(value)
    budget.charge(found)
    return found


def charge_method(budget: Budget, method: Any, args: tuple[Any, ...], fields: Mapping[str, Any]) -> None:
    """Charge the call of a method of a string."""
    text, name = method.__self__, method.__name__
    for value in args:
        budget.charge(value)
    if name in _PRODUCT and args and isinstance(args[0], str):
        budget.spend(len(text) * len(args[0]) >> 10)
    match name, args:
        case ("center" | "ljust" | "rjust" | "zfill", (to, *_)):
            result_size = len(text) + bounded_width(to)
        case "replace", (old, new, *_):
            result_size = size_replaced(text, str(old), str(new)) * 5
        case "join", (values,):
            result_size = size(values) + len(text) * (len(values) if hasattr(values, "__len__") else MAX_WIDTH)
        case (("replace" | "join" | "center" | "ljust" | "rjust" | "zfill"), _):
            raise TemplateRuntimeError(f"{name}: pass its arguments by position")
        case _:
            result_size = len(text)
    if any(not field.startswith("_") for field in fields) and name not in {"split", "rsplit", "splitlines"}:
        raise TemplateRuntimeError(f"{name}: pass its arguments by position")
    budget.charge_size(result_size)


def operator_size(operator: str, left: Any, right: Any) -> int:
    """The largest possible size of `left operator right`. Raises LimitExceeded for a power that is too large."""
    match operator:
        case "+":
            return size(left) + size(right) if isinstance(left, str | list | tuple) else 0
        case "*":
            return size_repeated(left, right)
        case "%" if isinstance(left, str):
            return size_formatted(left, right)
        case "**" if size_of_power(left, right) > MAX_BITS:
            raise LimitExceeded("too large: a number with more digits than an event can hold")
    return 0
