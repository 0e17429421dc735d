"""What a workflow shows in the Temporal UI: search attributes, labels of activities and timers, and Current Details."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeUpdate

with workflow.unsafe.imports_passed_through():
    from bellwire.contract import FAILED, NO_PROCESS, OUTCOME, UNKNOWN_HANDLER, UNSETTLED, WAITING
    from bellwire.deliveries import DeliveryState, Failed, Unsettled
    from bellwire.formats.counts import counted
    from bellwire.formats.durations import format_duration
    from bellwire.formats.json_sizes import cut_to_json, json_bytes
    from workflows.agenda import Agenda, Entry

#: Maximum bytes of a label as JSON. The server takes 400, and encryption adds up to 170.
MAX_SUMMARY_BYTES = 200
#: Maximum rows of one of the two tables in Current Details, and its bytes as JSON. The server takes 20,000 bytes for all.
MAX_ROWS, MAX_TABLE_BYTES = 20, 9_000
#: Maximum subscription ids in the search attribute BellwireWaiting.
MAX_WAITING_IDS = 20

#: Deliveries that wait for a service are shown before their first attempt too.
_CALL_WAITS = {NO_PROCESS, UNKNOWN_HANDLER}

DELIVERED = str(DeliveryState.DELIVERED)


class SearchAttributes:
    """Keeps BellwireUnsettled, BellwireWaiting, BellwireFailed and BellwireOutcome up to date.

    The first two are set once a delivery is deferred, the others once something else than a delivery has come of the
    publication. A workflow whose deliveries all succeed at once sets none, since each upsert costs an event of history and a
    write to the visibility store, a third of what a lone event costs the server.
    """

    def __init__(self) -> None:
        self._waiting: list[str] | None = []
        self._failed: tuple[int, str] | None = (0, "")

    def restore(self) -> None:
        """The run before this one may have set them all."""
        self._waiting = self._failed = None

    def update(self, agenda: Agenda, failed: int, outcomes: Sequence[str]) -> None:
        waiting = sorted({entry.subscription_id for entry in agenda if entry.attempts or entry.reason in _CALL_WAITS})
        new = [str(len(waiting)), *waiting[:MAX_WAITING_IDS]] if waiting else []
        updates = list[SearchAttributeUpdate[Any]]()
        if new != self._waiting:
            self._waiting = new
            updates += [UNSETTLED.value_set(len(agenda)), WAITING.value_set(waiting[:MAX_WAITING_IDS])]
        text = "" if list(outcomes) == [DELIVERED] else " ".join(outcomes)
        if (failed, text) != self._failed:
            self._failed = (failed, text)
            updates += [FAILED.value_set(failed)] if failed else []
            updates += [OUTCOME.value_set(text)] if text else []
        if updates:
            workflow.upsert_search_attributes(updates)


def send_summary(entries: Sequence[Entry]) -> str:
    """The label of a send activity: `webhook: 3 deliveries, attempt 4`."""
    numbers = sorted({entry.attempts + 1 for entry in entries})
    attempts = f"attempt {numbers[0]}" if len(numbers) == 1 else f"attempts {numbers[0]} to {numbers[-1]}"
    return f"{entries[0].channel}: {counted(len(entries), 'delivery')}, {attempts}"


def timer_summary(entries: Sequence[Entry], seconds: float) -> str:
    """The label of a timer: `next attempt in 30m: HTTP 503 from 2 receivers`."""
    reasons = Counter(entry.reason for entry in entries if entry.reason).most_common(3)
    why = ", ".join(f"{reason} from {counted(number, 'receiver')}" for reason, number in reasons)
    text = f"next attempt in {format_duration(_rounded(seconds))}" + (f": {why}" if why else "")
    return cut_to_json(text, MAX_SUMMARY_BYTES)


def unsettled_details(unsettled: Sequence[Unsettled], total: int) -> str:
    """The unsettled deliveries as a Markdown table for Current Details, with reason and time of the next attempt."""
    rows = [
        (item.subscription_id, item.channel, str(item.attempts), item.reason, _next_attempt(item)) for item in unsettled
    ]
    return _table("unsettled", ("subscription", "channel", "attempts", "reason", "next attempt"), rows, total)


def failed_details(failed: Sequence[Failed], total: int) -> str:
    """The rejected and exhausted deliveries as a Markdown table for Current Details, with the last reason."""
    rows = [(item.subscription_id, item.channel, str(item.attempts), item.state, item.reason) for item in failed]
    return _table("failed", ("subscription", "channel", "attempts", "state", "reason"), rows, total)


def _table(state: str, columns: Sequence[str], rows: Sequence[Sequence[str]], total: int) -> str:
    """The first rows, up to MAX_ROWS and MAX_TABLE_BYTES; empty if there are no such deliveries."""
    if not total:
        return ""
    text = f"{counted(total, 'delivery')} {state}\n\n{_row(columns)}|{'---|' * len(columns)}\n"
    shown = 0
    for row in rows[:MAX_ROWS]:
        line = _row([_cell(cell) for cell in row])
        if json_bytes(text + line) > MAX_TABLE_BYTES:
            break
        text += line
        shown += 1
    return text.rstrip("\n") + (f"\n\n… and {total - shown:,} more" if total > shown else "")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _rounded(seconds: float) -> float:
    """Jitter makes uneven delays: a label has three digits of seconds, whole minutes of hours, whole hours of days."""
    if seconds < 60:
        return float(f"{seconds:.3g}")
    unit = 1 if seconds < 600 else 60 if seconds < 86_400 else 3600
    return round(seconds / unit) * unit


def _cell(text: str) -> str:
    """On one line, with bars escaped, since a bar ends the cell."""
    return " ".join(text.split()).replace("|", "\\|")


def _next_attempt(item: Unsettled) -> str:
    if item.paused:
        return "paused"
    return f"{datetime.fromtimestamp(int(item.due.timestamp()), UTC):%Y-%m-%d %H:%M:%S} UTC" if item.due else "now"
