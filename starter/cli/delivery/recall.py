"""`deliveries recall`: take back what was delivered of an event."""

from typing import Annotated

import typer

from bellwire.contract import RecallResult
from bellwire.formats.counts import counted
from bellwire.service.settings import Settings
from starter.cli.delivery.events import EventArgument, SourceOption
from starter.cli.tables import print_table
from starter.cli.terminal import AsJson, command, connected, note, opened_registry, print_json
from starter.operations.delivery.events import get_event
from starter.operations.problems import OperationError
from starter.operations.recalling import Recalled, recall_event


@command
async def recall(
    event_id: EventArgument,
    source: SourceOption = None,
    subscription_id: Annotated[str | None, typer.Option("--subscription", help="Only from this subscription.")] = None,
    as_json: AsJson = False,
) -> None:
    """Take back what was delivered of an event, where the provider can: WeCom, DingTalk, Feishu, Slack and Telegram.

    The command may be repeated. What is taken back stays delivered, with the reason "recalled".
    """
    done: list[Recalled] = []
    async with opened_registry(Settings.read()) as registry:
        stored = await get_event(registry, event_id, source)
        temporal = (await connected()).temporal
        async for page in recall_event(temporal, registry, stored, subscription_id=subscription_id):
            done += page
            if len(done) < stored.counts.matched and subscription_id is None:
                note(f"{len(done):,} of {counted(stored.counts.matched, 'delivery')}")
    if as_json:
        print_json(
            [
                {
                    "id": each.delivery.id,
                    "subscription": each.delivery.subscription_id,
                    "channel": each.delivery.channel,
                    "result": each.result,
                    "detail": each.detail,
                }
                for each in done
            ]
        )
    else:
        rows = [(each.delivery.subscription_id, each.delivery.channel, each.result, each.detail) for each in done]
        print_table(("subscription", "channel", "result", "detail"), rows)
    failed = sum(each.result in {RecallResult.BUSY, RecallResult.REFUSED} for each in done)
    if failed:
        raise OperationError(
            f"{failed:,} of {counted(len(done), 'message')} not taken back", remedy="run the command again"
        )
