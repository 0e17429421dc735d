"""`explain`: why an event matched a subscription or did not, step by step."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.text import Text

from bellwire.formats.counts import counted
from bellwire.service.settings import Settings
from starter.cli.delivery.events import EventArgument, SourceOption
from starter.cli.tables import cell, print_facts, print_table
from starter.cli.terminal import AsJson, command, console, note, opened_registry, print_json, printable
from starter.operations.delivery import explaining
from starter.operations.delivery.events import get_event
from starter.operations.delivery.explaining import ExplainedPage, Explanation
from starter.operations.delivery.explanation_steps import Part, Step

_MARKS = {True: ("✓", "green"), False: ("✗", "red"), None: ("?", "yellow")}


@command
async def explain(
    event_id: EventArgument,
    source: SourceOption = None,
    subscription_id: Annotated[
        str | None, typer.Option("--subscription", help="Explain this subscription, with all steps.")
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=explaining.MAX_LIMIT, help="Maximum number of subscriptions.")
    ] = explaining.DEFAULT_LIMIT,
    after: Annotated[str, typer.Option(help="Only subscriptions after this id: the next page.")] = "",
    as_json: AsJson = False,
) -> None:
    """Explain why an event matched a subscription or did not, step by step. Without --subscription: those of its tenant.

    Also of past events, and of events that nobody matched.
    """
    async with opened_registry(Settings.read()) as registry:
        stored = await get_event(registry, event_id, source)
        if subscription_id is not None:
            explanation = await explaining.explain(registry, stored, subscription_id)
            print_json(_as_json(explanation)) if as_json else _print_one(explanation)
            return
        page = await explaining.explain_all(registry, stored, after=after, limit=limit)
    if as_json:
        print_json(
            {
                **_event_as_json(page),
                "looked_at": page.looked_at,
                "subscriptions": [_as_json(each) for each in page.explanations],
                "next": page.next,
            }
        )
        return
    _print_page(page)


def _print_one(explanation: Explanation) -> None:
    event, subscription = explanation.stored.event, explanation.subscription
    print_facts(
        [
            ("event", event.id),
            ("source", event.source),
            ("type", event.type),
            ("accepted", explanation.stored.accepted_at),
            ("subscription", subscription.id),
            ("created", explanation.created_at),
            ("changed", subscription.updated_at),
            ("version", subscription.version),
            ("result", explanation.summary),
        ]
    )
    print_steps(explanation.steps)
    for change in explanation.changes:
        note(f"since then: {change.action.removeprefix('subscription.')} at {cell(change.at)}")


def print_steps(steps: Sequence[Step]) -> None:
    """Print a line for each step, and one for each of its parts."""
    width = max((len(step.name) for step in steps), default=0)
    for step in steps:
        _print_line(step.passed, f"{step.name:<{width}}  {printable(step.text)}")
        for depth, part in _flattened(step.parts):
            _print_line(part.passed, f"{printable(part.text)}: {printable(part.reason)}", indent=width + 4 + 2 * depth)


def _flattened(parts: Iterable[Part], depth: int = 0) -> Iterable[tuple[int, Part]]:
    for part in parts:
        yield depth, part
        yield from _flattened(part.parts, depth + 1)


def _print_line(passed: bool | None, text: str, *, indent: int = 0) -> None:
    mark, style = _MARKS[passed]
    console().print(Text(" " * indent).append(mark, style=style).append(f" {text}"), soft_wrap=True)


def _print_page(page: ExplainedPage) -> None:
    rows = [
        (
            each.subscription.id,
            each.subscription.tenant,
            each.subscription.channel,
            _MARKS[each.matched][0],
            each.delivery and each.delivery.state,
            each.first_failing and f"{each.first_failing.name}: {each.first_failing.text}",
        )
        for each in page.explanations
    ]
    print_table(("subscription", "tenant", "channel", "matched", "delivery", "first step that fails"), rows)
    looked = f"looked at {counted(page.looked_at, 'subscription')} of {page.of}"
    if page.nobody_matched:
        note(f"nobody matched; {looked}, the closest first")
    else:
        note(f"{page.stored.counts.matched:,} matched; {looked}")
    if page.next is not None:
        note(f"there may be more: --after {page.next}")


def _event_as_json(page: ExplainedPage) -> dict[str, Any]:
    stored = page.stored
    return {
        "event": {"source": stored.event.source, "id": stored.event.id, "type": stored.event.type},
        "key": stored.event.key,
        "tenant": stored.event.tenant,
        "accepted_at": stored.accepted_at.isoformat(),
        "matched": stored.counts.matched,
    }


def _as_json(explanation: Explanation) -> dict[str, Any]:
    subscription, delivery, updated = (
        explanation.subscription,
        explanation.delivery,
        explanation.subscription.updated_at,
    )
    return {
        "subscription": subscription.id,
        "tenant": subscription.tenant,
        "channel": subscription.channel,
        "matched": explanation.matched,
        "matches_now": explanation.matches_now,
        "summary": explanation.summary,
        "first_failing": explanation.first_failing and asdict(explanation.first_failing),
        "created_at": explanation.created_at.isoformat(),
        "updated_at": updated and updated.isoformat(),
        "version": subscription.version,
        "changed_since": explanation.changed_since,
        "delivery": delivery and {"id": delivery.id, **delivery.model_dump(mode="json")},
        "steps": [asdict(step) for step in explanation.steps],
        "changes": [{"at": each.at.isoformat(), "action": each.action} for each in explanation.changes],
    }
