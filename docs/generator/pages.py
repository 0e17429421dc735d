"""All generated pages, by their path in docs/."""

from collections.abc import Callable
from pathlib import Path

from docs.generator import cli, errors, http_api, python_api, settings, telemetry, temporal

FOLDER = Path(__file__).parents[1]

PAGES: dict[str, Callable[[], str]] = {
    "reference/settings.md": settings.page,
    "reference/cli.md": cli.page,
    "reference/bellwire-command.md": cli.bellwire_page,
    "reference/http-api.md": http_api.page,
    "reference/errors.md": errors.page,
    "reference/log-events.md": telemetry.log_events_page,
    "reference/metrics.md": telemetry.metrics_page,
    "reference/search-attributes.md": temporal.search_attributes_page,
    "reference/schedules.md": temporal.schedules_page,
}


def texts() -> dict[str, str]:
    """The text of each generated page."""
    return {name: page() for name, page in PAGES.items()} | python_api.pages()


def write() -> None:
    """Write all pages, and remove pages of the Python API that no longer exist."""
    pages = texts()
    for name, text in pages.items():
        file = FOLDER / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for file in (FOLDER / python_api.FOLDER).glob("*.md"):
        if file.relative_to(FOLDER).as_posix() not in pages:
            file.unlink()
