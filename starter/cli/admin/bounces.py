"""`bounces`: reads what mail systems send back, and puts addresses that are dead, or do not want mail, on the list.

A report counts if it holds a return path that we signed, or else if it names a delivery that exists and a recipient of it.
"""

import re
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from bellwire.deliveries import delivery_id
from bellwire.email.bounce_reports import (
    MAX_BYTES,
    NotABounce,
    Report,
    ReportedRecipient,
    parse_report,
)
from bellwire.email.return_path import ReturnPath, normalized
from bellwire.errors import NotSetUp, RegistryUnavailable, SubscriptionNotFound
from bellwire.registry import Registry
from bellwire.service.settings import Settings, SettingsInvalid
from bellwire.suppressions import Suppression, SuppressionReason
from bellwire.targets import Channel, EmailTarget
from starter.cli.input.mails import mails_of
from starter.cli.tables import print_table
from starter.cli.terminal import (
    AsJson,
    command,
    note,
    opened_registry,
    print_json,
)

#: Exit status by which a mail server knows that it is to try again (EX_TEMPFAIL of sysexits.h).
TRY_AGAIN = 75

_MESSAGE_ID = re.compile(r"dlv_([a-z2-7]{26})_([A-Za-z0-9][A-Za-z0-9_-]{0,62})@.+")


@dataclass(frozen=True)
class Found:
    """Which of our mails a report is about."""

    event_key: str
    subscription_id: str
    #: Whom it was for.
    recipient: str
    #: Whether our signature says so.
    signed: bool


@dataclass(frozen=True)
class Taken:
    """What became of one mail that was read."""

    mail: str
    #: suppressed, noted (a report that suppresses nobody) or ignored.
    result: str
    #: What the report says, or why it is ignored.
    said: str
    address: str | None = None
    #: Why the address is suppressed.
    reason: str | None = None
    delivery: str | None = None
    signed: bool = False


async def take(registry: Registry, path: ReturnPath | None, where: str, raw: bytes) -> Taken:
    """Read one mail and do what it calls for. Raises RegistryUnavailable or NotSetUp; doing it twice changes nothing."""
    try:
        report = parse_report(raw)
    except NotABounce as error:
        return Taken(where, "ignored", str(error))
    found = await find(registry, path, report)
    about = _about(report, found.recipient) if found else None
    if found is None or about is None:
        return Taken(where, "ignored", f"{_said(report, about)}, but of no mail of ours that it proves to know")
    taken = Taken(
        where,
        "noted",
        _said(report, about),
        address=found.recipient,
        delivery=delivery_id(found.event_key, found.subscription_id),
        signed=found.signed,
    )
    reason = _reason(report, about)
    if reason is None:
        return taken
    await registry.suppressions.add(Suppression(channel=Channel.EMAIL, address=found.recipient, reason=reason))
    return Taken(**{**asdict(taken), "result": "suppressed", "reason": str(reason)})


async def find(registry: Registry, path: ReturnPath | None, report: Report) -> Found | None:
    """The mail that a report is about: by a return path of ours, else by its Message-ID; None if neither proves anything."""
    told = list(dict.fromkeys(address for each in report.recipients for address in each.addresses))
    named = _MESSAGE_ID.fullmatch(report.message_id or "")
    tokens = [token for address in report.returned_to if path and (token := path.read(address))]
    for token in tokens:
        wish = token.subscription_id
        if wish is None and named and named[1] == token.event_key:
            wish = named[2]
        if path is None or wish is None:
            continue
        for address in [*await _recipients(registry, wish), *told]:
            if path.verifies(token, wish, address):
                return Found(token.event_key, wish, address, signed=True)
    if named and await registry.deliveries.list(event_key=named[1], subscription_id=named[2], limit=1):
        theirs = {normalized(address) for address in told}
        for address in await _recipients(registry, named[2]):
            if normalized(address) in theirs:
                return Found(named[1], named[2], address, signed=False)
    return None


async def _recipients(registry: Registry, subscription_id: str) -> tuple[str, ...]:
    try:
        target = (await registry.subscriptions.get(subscription_id)).target
    except SubscriptionNotFound:
        return ()
    return target.recipients if isinstance(target, EmailTarget) else ()


def _about(report: Report, recipient: str) -> ReportedRecipient | None:
    """The part of the report that is about the recipient, under this address or the only one that there is."""
    for each in report.recipients:
        if normalized(recipient) in map(normalized, each.addresses):
            return each
    return report.recipients[0] if len(report.recipients) == 1 else None


def _reason(report: Report, about: ReportedRecipient) -> SuppressionReason | None:
    if report.is_complaint:
        return SuppressionReason.COMPLAINED
    if report.is_opt_out:
        return SuppressionReason.UNSUBSCRIBED
    return SuppressionReason.BOUNCED if report.feedback is None and about.is_gone else None


def _said(report: Report, about: ReportedRecipient | None) -> str:
    if report.feedback is not None:
        return f"feedback: {report.feedback}"
    each = about or report.recipients[0]
    return f"{each.action} {each.status or ''}".strip()


@command
async def bounces(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help="A mail, an mbox file or a Maildir; - or nothing reads a mail from stdin."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read bounces and complaints, and suppress the addresses that they are about.

    For a mail server's pipe, too: it exits with 0 for whatever it has read, and with 75, try again later, if the registry
    is away. To read the same mail again does no harm.
    """
    try:
        settings = Settings.read()
        async with opened_registry(settings) as registry:
            taken = [
                await take(registry, settings.return_path, where, raw)
                for name in files or ["-"]
                for where, raw in mails_of(name, most=MAX_BYTES)
            ]
    except (RegistryUnavailable, NotSetUp, SettingsInvalid) as error:
        note(f"error: {error}")
        raise typer.Exit(TRY_AGAIN) from error
    if as_json:
        print_json([asdict(each) for each in taken])
        return
    rows = [(each.mail, each.result, each.said, each.address, each.reason, each.delivery) for each in taken]
    print_table(("mail", "result", "report", "address", "reason", "delivery"), rows)
