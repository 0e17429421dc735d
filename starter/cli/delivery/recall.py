"""`deliveries recall`: take back what was delivered of an event."""

from typing import Annotated

import typer

from bellwire.deliveries import delivery_id
from bellwire.service.settings import Settings
from starter.cli.delivery.events import EventArgument, SourceOption
from starter.cli.tables import print_table
from starter.cli.terminal import AsJson, command, connected, note, opened_registry, print_json
from starter.operations.delivery.events import get_event
from starter.operations.delivery.following import EventOfTenant, recall_event
from starter.operations.problems import OperationError


@command
async def recall(
    event_id: EventArgument,
    source: SourceOption = None,
    subscription_id: Annotated[str | None, typer.Option("--subscription", help="Only from this subscription.")] = None,
    as_json: AsJson = False,
) -> None:
    """Take back what was delivered of an event, where the provider can: WeCom, DingTalk, Feishu, Slack and Telegram.

    What is not sent is cancelled. The command may be repeated. What is taken back stays delivered, with the reason "recalled".
    """
    async with opened_registry(Settings.read()) as registry:
        event = (await get_event(registry, event_id, source)).event
        recalled = await recall_event(
            await connected(), registry, EventOfTenant(event.source, event.id, event.tenant), subscription_id
        )
    assert recalled  # it waits without limit
    if as_json:
        print_json(
            [
                {
                    "id": delivery_id(event.key, each.subscription_id),
                    "subscription": each.subscription_id,
                    "channel": each.channel,
                    "result": each.result,
                    "detail": each.detail,
                }
                for each in recalled.deliveries
            ]
        )
    else:
        rows = [(each.subscription_id, each.channel, each.result, each.detail) for each in recalled.deliveries]
        print_table(("subscription", "channel", "result", "detail"), rows)
    total = sum(recalled.results.values())
    if len(recalled.deliveries) < total:
        note(f"the first {len(recalled.deliveries):,} of {total:,} deliveries, those first that were not taken back")
    if recalled.unfinished:
        raise OperationError(
            f"{recalled.unfinished} of {total} messages were not taken back", remedy="run the command again"
        )
