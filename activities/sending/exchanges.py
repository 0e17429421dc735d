"""Keeping of exchanges: what an attempt sent and received, noted where it happens and written out only if it is kept.

A note is a function that makes the Exchange. Most attempts deliver, and by default their exchanges are not kept, so a note has
to cost next to nothing.
"""

from collections.abc import Callable
from contextvars import ContextVar

from activities.sending.attempt import ChannelAttempt
from bellwire.deliveries import Outcome, OutcomeKind
from bellwire.exchanges import MAX_EXCHANGES, Exchange, KeepExchanges
from bellwire.sends import SendRequest

#: The notes of the attempt that this task, or the task that started it, makes; None: nothing is kept.
_notes: ContextVar[list[Callable[[], Exchange]] | None] = ContextVar("exchange_notes", default=None)


def note_exchange(make: Callable[[], Exchange]) -> None:
    """Note an exchange of the current attempt. `make` is called after the attempt, if its exchanges are kept."""
    if (notes := _notes.get()) is not None:
        notes.append(make)


def keeping_exchanges(attempt: ChannelAttempt, keep: KeepExchanges) -> ChannelAttempt:
    """`attempt`, with the exchanges of each attempt in its outcome if they are kept. A test send always keeps them."""

    async def run(request: SendRequest) -> Outcome:
        if keep is KeepExchanges.NONE and request.recorded:
            _notes.set(None)
            return await attempt(request)
        notes: list[Callable[[], Exchange]] = []
        _notes.set(notes)
        outcome = await attempt(request)
        is_kept = keep is KeepExchanges.ALL or outcome.kind is not OutcomeKind.DELIVERED or not request.recorded
        if not notes or not is_kept:
            return outcome
        return outcome.model_copy(update={"exchanges": tuple(make() for make in notes[-MAX_EXCHANGES:])})

    return run
