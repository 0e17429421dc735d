"""The pages of search attributes and of retry schedules."""

from bellwire.contract import SEARCH_ATTRIBUTES
from bellwire.formats.durations import format_duration
from docs.generator import meanings
from docs.generator.markdown import code, document, table
from workflows.policies import HOUR, JITTER, MINUTE, SCHEDULES


def search_attributes_page() -> str:
    """The text of docs/reference/search-attributes.md."""
    described = meanings.of("search_attributes", [key.name for key in SEARCH_ATTRIBUTES])
    rows = [
        (code(key.name), key.indexed_value_type.name.title().replace("_", ""), described[key.name])
        for key in SEARCH_ATTRIBUTES
    ]
    return document(
        "Search attributes",
        "Bellwire's workflows carry these search attributes. Filter by them in the Temporal UI, or with `temporal workflow list"
        " --query`. `python -m starter setup` registers them in the namespace; a worker does not start without them.",
        table(("attribute", "type", "meaning"), rows),
        "## Queries",
        table(("to find", "query"), ((what, code(query)) for query, what in meanings.table("queries").items())),
    )


def schedules_page() -> str:
    """The text of docs/reference/schedules.md."""
    return document(
        "Retry schedules",
        "A subscription without `--retry` uses the schedule of its channel. The first attempt is immediate.",
        schedules_table(),
        f"Each delay is lengthened by up to {JITTER:.0%} at random, so that attempts to one endpoint spread out; it is"
        " never shortened."
        " A `Retry-After` that is longer than the next delay replaces it. A delivery whose schedule has ended"
        " without success is `exhausted`.",
    )


def schedules_table() -> str:
    """A row per channel: how many attempts, over how long, and the delays between them."""
    rows = [
        (str(channel), str(len(delays) + 1), _total(sum(delays)), ", ".join(map(format_duration, delays)))
        for channel, delays in SCHEDULES.items()
    ]
    return table(("channel", "attempts", "over", "delays between attempts"), rows)


def _total(seconds: float) -> str:
    hours, minutes = divmod(int(seconds / MINUTE + 0.5), int(HOUR / MINUTE))
    return f"{hours}h{minutes}m" if hours else format_duration(seconds)
