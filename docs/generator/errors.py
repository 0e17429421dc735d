"""The page of exceptions, outcomes, states and reasons."""

import inspect
from collections.abc import Iterator
from enum import StrEnum

from bellwire import errors
from bellwire.deliveries import DeliveryState, OutcomeKind
from bellwire.errors import BellwireError
from bellwire.subscriptions import SubscriptionState
from bellwire.suppressions import SuppressionReason
from docs.generator import meanings, reasons
from docs.generator.comments import members
from docs.generator.markdown import code, document, prose, sentence, table

#: Enumerations whose values people meet, with the heading and the table of meanings for members without a comment.
VALUES: tuple[tuple[str, type[StrEnum]], ...] = (
    ("Outcomes of an attempt", OutcomeKind),
    ("States of a delivery", DeliveryState),
    ("States of a subscription", SubscriptionState),
    ("Reasons of a suppressed address", SuppressionReason),
)


def page() -> str:
    """The text of docs/reference/errors.md."""
    return document(
        "Errors and reasons",
        "## Exceptions",
        "All exceptions are in `bellwire.errors`; the most used ones can also be imported from `bellwire`.",
        f"```text\n{_tree()}\n```",
        table(("exception", "meaning and remedy"), map(_exception, _all(BellwireError))),
        "`Event` raises `EventInvalid`, and `Subscription`, the targets and the filters `SubscriptionInvalid`. Both name each"
        " bad field.",
        *(part for heading, kind in VALUES for part in (f"## {heading}", _values(kind))),
        "## Reasons",
        "Every attempt has a reason: one line that holds no address and no body. `python -m starter events show` and the"
        " Temporal UI display it. `<…>` stands for a value that varies. A subscription that Bellwire disabled has a reason, too.",
        *_reasons(),
    )


def _tree() -> str:
    """The tree that the docstring of `bellwire.errors` draws."""
    lines = (inspect.getdoc(errors) or "").splitlines()
    start = lines.index(BellwireError.__name__)
    end = next((at for at in range(start, len(lines)) if not lines[at].strip()), len(lines))
    return "\n".join(lines[start:end])


def _all(kind: type[BellwireError]) -> Iterator[type[BellwireError]]:
    """The exception and all below it that `bellwire.errors` defines, in the order of their definition."""
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from _all(below)


def _exception(kind: type[BellwireError]) -> tuple[str, str]:
    return code(kind.__name__), prose(inspect.getdoc(kind) or "")


def _values(kind: type[StrEnum]) -> str:
    found = members(kind)
    described = meanings.of(kind.__name__, [value for value, comment in found.items() if not comment])
    return table(("value", "meaning"), ((code(value), sentence(found[value] or described[value])) for value in found))


def _reasons() -> Iterator[str]:
    """A section for each group of reasons. Texts that the collector cannot follow are described in a table of their own."""
    found = reasons.collect()
    followed = meanings.grouped("reasons", {text.pattern for text in found if not text.opaque})
    opaque = meanings.of("other_reasons", {text.pattern for text in found if text.opaque})
    for title, group in followed.items():
        yield f"### {title}"
        yield table(("reason", "meaning"), ((code(pattern), meaning) for pattern, meaning in group.items()))
    yield from opaque.values()
