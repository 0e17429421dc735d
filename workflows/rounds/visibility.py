"""What a workflow shows in the Temporal UI: search attributes, labels of activities and timers, and Current Details."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from bellwire.contract import UNSETTLED, WAITING
    from bellwire.deliveries import Unsettled
    from bellwire.formats.durations import format_duration
    from workflows.agenda import Agenda, Entry

#: Maximum bytes of a label. The server takes 400, and encryption adds up to 170.
MAX_SUMMARY_BYTES = 200
#: Maximum rows of the table in Current Details.
MAX_ROWS = 20
#: Maximum subscription ids in the search attribute BellwireWaiting.
MAX_WAITING_IDS = 20


class SearchAttributes:
    """Keeps BellwireUnsettled and BellwireWaiting up to date.

    They are set once a delivery is deferred. A workflow whose deliveries all succeed never sets them, since each upsert costs
    an event of history.
    """

    def __init__(self) -> None:
        self._current: list[str] = []

    def update(self, agenda: Agenda) -> None:
        waiting = sorted({entry.subscription_id for entry in agenda if entry.attempts})
        new = [str(len(waiting)), *waiting[:MAX_WAITING_IDS]] if waiting else []
        if new != self._current:
            self._current = new
            workflow.upsert_search_attributes(
                [UNSETTLED.value_set(len(agenda)), WAITING.value_set(waiting[:MAX_WAITING_IDS])]
            )


def count(number: int, noun: str) -> str:
    """`1 delivery`, `2,000 deliveries`."""
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{number:,} {noun if number == 1 else plural}"


def send_summary(entries: Sequence[Entry]) -> str:
    """The label of a send activity: `webhook: 3 deliveries, attempt 4`."""
    numbers = sorted({entry.attempts + 1 for entry in entries})
    attempts = f"attempt {numbers[0]}" if len(numbers) == 1 else f"attempts {numbers[0]} to {numbers[-1]}"
    return f"{entries[0].channel}: {count(len(entries), 'delivery')}, {attempts}"


def timer_summary(entries: Sequence[Entry], seconds: float) -> str:
    """The label of a timer: `next attempt in 30m: HTTP 503 from 2 receivers`."""
    reasons = Counter(entry.reason for entry in entries if entry.reason).most_common(3)
    why = ", ".join(f"{reason} from {count(number, 'receiver')}" for reason, number in reasons)
    text = f"next attempt in {format_duration(_rounded(seconds))}" + (f": {why}" if why else "")
    return text.encode()[:MAX_SUMMARY_BYTES].decode(errors="ignore")


def details(unsettled: Sequence[Unsettled], total: int) -> str:
    """Current Details: the unsettled deliveries as a Markdown table, with reason and time of the next attempt."""
    if not total:
        return ""
    rows = [
        f"| {item.subscription_id} | {item.channel} | {item.attempts} | {_cell(item.reason)} | {_next_attempt(item)} |"
        for item in unsettled[:MAX_ROWS]
    ]
    more = f"\n\n… and {total - MAX_ROWS:,} more" if total > MAX_ROWS else ""
    head = "| subscription | channel | attempts | reason | next attempt |\n|---|---|---|---|---|\n"
    return f"{count(total, 'delivery')} unsettled\n\n{head}" + "\n".join(rows) + more


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
