"""What a run says about itself in the Temporal UI: the label of each activity and timer, and the table of what waits."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from bellwire.deliveries import Unsettled
from workflows.agenda import Entry

#: Bytes of a label. The server takes 400, and encrypted it grows by up to 170.
SUMMARY_BYTES = 200
#: Rows of the table of what waits.
ROWS = 20


def span(seconds: float) -> str:
    """Seconds as people say them: 45 s, 30 min, 2 h, 3 d."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size or seconds == size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def count(number: int, noun: str) -> str:
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{number:,} {noun if number == 1 else plural}"


def sending(entries: Sequence[Entry]) -> str:
    """`webhook: 3 deliveries, attempt 4`."""
    attempts = sorted({entry.attempts + 1 for entry in entries})
    which = f"attempt {attempts[0]}" if len(attempts) == 1 else f"attempts {attempts[0]} to {attempts[-1]}"
    return f"{entries[0].channel}: {count(len(entries), 'delivery')}, {which}"


def waiting(entries: Sequence[Entry], seconds: float) -> str:
    """`next attempt in 30 min: HTTP 503 from 2 receivers`."""
    reasons = Counter(entry.reason for entry in entries if entry.reason).most_common(3)
    why = ", ".join(f"{reason} from {count(number, 'receiver')}" for reason, number in reasons)
    text = f"next attempt in {span(seconds)}" + (f": {why}" if why else "")
    return text.encode()[:SUMMARY_BYTES].decode(errors="ignore")


def table(unsettled: Sequence[Unsettled], total: int) -> str:
    """The first rows of what waits, why, and until when, as Markdown."""
    if not total:
        return ""
    rows = [
        f"| {item.subscription_id} | {item.channel} | {item.attempts} | {_cell(item.reason)} | {_until(item)} |"
        for item in unsettled[:ROWS]
    ]
    more = f"\n\n… and {total - ROWS:,} more" if total > ROWS else ""
    head = "| subscription | channel | attempts | last answer | next attempt |\n|---|---|---|---|---|\n"
    return f"{count(total, 'delivery')} unsettled\n\n{head}" + "\n".join(rows) + more


def _cell(text: str) -> str:
    """On one line and without bars, which would end the cell."""
    return " ".join(text.split()).replace("|", "\\|")


def _until(item: Unsettled) -> str:
    if item.paused:
        return "paused"
    return f"{datetime.fromtimestamp(int(item.due.timestamp()), UTC):%Y-%m-%d %H:%M:%S} UTC" if item.due else "now"
