"""`subscriptions update`: change fields of a subscription, from options or from a file, or of many from a file."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from bellwire.service.settings import Settings
from bellwire.subscriptions import SubscriptionState
from bellwire.targets import Channel
from starter.cli.input.documents import read_items
from starter.cli.subscribers import options
from starter.cli.terminal import AsJson, command, console, note, opened_registry, print_json
from starter.operations.documents import collect, object_of
from starter.operations.problems import InputInvalid
from starter.operations.subscribers.updating import SubscriptionChange, Updated, read_change, update_subscriptions


class Clearable(StrEnum):
    """A field that can be given back its default."""

    FILTERS = "filters"
    TEMPLATE = "template"
    OWN_TEMPLATES = "own-templates"
    LOCALE = "locale"
    RETRY = "retry"
    RATE_LIMIT = "rate-limit"
    SMS_SENDER = "sms-sender"
    MAX_SEGMENTS = "max-segments"
    FORMAT = "format"
    HEADERS = "headers"
    TIMEOUT = "timeout"
    CLIENT_CERTIFICATE = "client-certificate"


#: The field of each, by its name in the subscription or, with a dot, in its target.
_CLEARED = {
    Clearable.OWN_TEMPLATES: "templates",
    Clearable.RETRY: "retry_schedule",
    Clearable.RATE_LIMIT: "rate_limit",
    Clearable.SMS_SENDER: "target.sender",
    Clearable.MAX_SEGMENTS: "target.max_segments",
    Clearable.FORMAT: "target.format",
    Clearable.HEADERS: "target.headers",
    Clearable.TIMEOUT: "target.timeout",
    Clearable.CLIENT_CERTIFICATE: "target.client_certificate",
}


@command
async def update(
    subscription_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Id of the subscription; not needed if --file names it.")
    ] = None,
    types: options.Types = None,
    email: options.Email = None,
    attachments: Annotated[
        bool | None, typer.Option("--attachments/--no-attachments", help="Of email: attach the event's files, or not.")
    ] = None,
    sms: options.Sms = None,
    sms_sender: options.SmsSender = None,
    max_segments: options.MaxSegments = None,
    webhook: options.Webhook = None,
    handshake: Annotated[
        bool | None, typer.Option("--handshake/--no-handshake", help="Of a webhook: ask its URL for consent, or not.")
    ] = None,
    filters: options.Filters = None,
    template: options.Template = None,
    own_templates: options.OwnTemplates = None,
    locale: options.Locale = None,
    retry: options.Retry = None,
    rate_limit: options.RateLimit = None,
    form: options.Format = None,
    headers: options.Headers = None,
    timeout: options.Timeout = None,
    client_certificate: options.ClientCertificate = None,
    clear: Annotated[list[Clearable] | None, typer.Option(help="Give a field its default again. Repeatable.")] = None,
    if_version: Annotated[
        int | None, typer.Option(help="Only if the subscription is at this version, which `subscriptions show` shows.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            help="The fields to change as JSON; null clears one. An array or JSON Lines for many, each with id.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change a subscription. What is not given stays, as do its deliveries and its signing secret.

    --type, --filter and --email replace those before; --header and --own-template replace the one of the same name, or add it.
    Deliveries that wait use the new fields at their next attempt. A subscription keeps its channel, tenant and state.
    """
    settings = Settings.read()
    fields = options.read_fields(
        types=types,
        filters=filters,
        template=template,
        own_templates=own_templates,
        locale=locale,
        retry=retry,
        rate_limit=rate_limit,
    )
    targets = options.read_target(
        email=email,
        attachments=attachments,
        sms=sms,
        sms_sender=sms_sender,
        max_segments=max_segments,
        webhook=webhook,
        handshake=handshake,
        form=form,
        headers=headers,
        timeout=timeout,
        client_certificate=client_certificate,
    )
    if file is not None:
        if fields or targets or clear:
            raise InputInvalid("cannot be combined with other options", field="--file", remedy="omit them")
        changes = _read_file(str(file), subscription_id, if_version)
    elif subscription_id is None:
        raise InputInvalid("give the subscription's id, or --file", field="ID")
    elif not (fields or targets or clear):
        raise InputInvalid("give what to change, or --file", field="update", remedy="see --help")
    else:
        changes = [
            SubscriptionChange(
                id=subscription_id,
                patches=[_cleared(clear or ()), {**fields, **({"target": _target(targets)} if targets else {})}],
                if_version=if_version,
            )
        ]
    async with opened_registry(settings) as registry:
        updated = await update_subscriptions(registry, changes, settings)
    if as_json:
        results = [each.after.model_dump(mode="json", by_alias=True) for each in updated]
        print_json(results if subscription_id is None else results[0])
        return
    for each in updated:
        _print(each)


def _read_file(name: str, subscription_id: str | None, if_version: int | None) -> list[SubscriptionChange]:
    items = read_items(name)
    if len(items) > 1 and (subscription_id is not None or if_version is not None):
        raise InputInvalid(
            f"holds {len(items)} subscriptions", field=name, remedy="name them by `id` and `version` in the file only"
        )
    return collect(
        items,
        lambda item: read_change(
            object_of(item), subscription_id=subscription_id, if_version=if_version, place=item.place
        ),
    )


def _cleared(fields: Sequence[Clearable]) -> dict[str, Any]:
    """The merge patch that clears these fields."""
    patch: dict[str, Any] = {}
    for field in fields:
        name, _, inner = _CLEARED.get(field, str(field)).partition(".")
        if inner:
            patch.setdefault(name, {})[inner] = None
        else:
            patch[name] = None
    return patch


def _target(by_channel: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The merge patch of the target. Raises InputInvalid if the options are those of several channels."""
    if len(by_channel) > 1:
        raise InputInvalid(
            f"gives options of {' and '.join(by_channel)}", field="target", remedy="a target has one channel"
        )
    ((channel, fields),) = by_channel.items()
    return {"channel": str(Channel(channel)), **fields}


def _print(updated: Updated) -> None:
    before, after = updated.before, updated.after
    if after.version == before.version:
        console().print(f"{after.id} has these fields already; it stays at version {after.version}")
        return
    console().print(f"{after.id} is updated, and is now at version {after.version}")
    if after.state is not SubscriptionState.ACTIVE:
        note(f"{after.id} is {after.state} still: `subscriptions resume {after.id}` when it is ready")
