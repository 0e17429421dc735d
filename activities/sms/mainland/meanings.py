"""What the codes of Aliyun and Tencent Cloud mean for an SMS, and the results that they come to."""

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Self

from activities.sms.providers import SendResult, unknown_result
from bellwire.deliveries import MAX_RESPONSE, Fault, Outcome, OutcomeKind
from bellwire.sms.mainland import CHINA
from bellwire.suppressions import SuppressionReason

#: The hour from which marketing may be sent.
_MARKETING_FROM = 8

#: Codes are words. Anything else, such as a number, is not shown in reasons.
_CODE = re.compile(r"[A-Za-z]{2,60}([._][A-Za-z]{1,60}){0,8}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeMeaning:
    """What one code means."""

    kind: OutcomeKind
    fault: Fault = Fault.PROVIDER
    #: Least seconds until the next attempt.
    wait: float | None = None
    #: Wait until this hour of the day in China.
    until_hour: int | None = None
    suppress: SuppressionReason | None = None
    #: The operator has to fix it, so it is logged as an error.
    operator: bool = False
    #: The account can send no other SMS now either: the next provider is tried.
    outage: bool = False

    def for_seconds(self, seconds: float) -> Self:
        return replace(self, wait=seconds)


CONTENT = CodeMeaning(kind=OutcomeKind.REJECTED, fault=Fault.OPERATOR, operator=True)
GONE = CodeMeaning(kind=OutcomeKind.REJECTED, fault=Fault.RECEIVER, suppress=SuppressionReason.BOUNCED)
#: On the list of those who do not want to be disturbed.
UNSUBSCRIBED = CodeMeaning(kind=OutcomeKind.REJECTED, suppress=SuppressionReason.UNSUBSCRIBED)
#: The account: credentials, payment, permissions.
ACCOUNT = CodeMeaning(kind=OutcomeKind.DEFERRED, fault=Fault.OPERATOR, operator=True, outage=True)
#: This SMS: the sign name or template is not approved yet.
OPERATOR = CodeMeaning(kind=OutcomeKind.DEFERRED, fault=Fault.OPERATOR, operator=True)
#: Too many calls of the account; it has accepted nothing.
BUSY = CodeMeaning(kind=OutcomeKind.DEFERRED, outage=True)
#: Too many SMS to this number.
WAIT = CodeMeaning(kind=OutcomeKind.DEFERRED, wait=60)
NEXT_DAY = CodeMeaning(kind=OutcomeKind.DEFERRED, until_hour=0)
#: The account may send no more SMS today.
ACCOUNT_NEXT_DAY = replace(ACCOUNT, until_hour=0)
WINDOW = CodeMeaning(kind=OutcomeKind.DEFERRED, until_hour=_MARKETING_FROM)
#: It may have been sent.
AMBIGUOUS = CodeMeaning(kind=OutcomeKind.UNKNOWN)


def seconds_until(hour: int, now: datetime) -> float:
    """Seconds until it is this hour in China, at least 1."""
    local = now.astimezone(CHINA)
    at = local.replace(hour=hour, minute=0, second=0, microsecond=0)
    if at <= local:
        at += timedelta(days=1)
    return max(1.0, (at - local).total_seconds())


def refusal(
    meaning: CodeMeaning, name: str, code: str, text: str, *, now: datetime, retry_after: float | None = None
) -> SendResult:
    """The result of an SMS that was not accepted, or may have been. `text` is the response, for the attempt's record."""
    reason = reason_of(name, code)
    if meaning.kind is OutcomeKind.UNKNOWN:
        return unknown_result(f"{reason}: {text}", wait=retry_after)
    wait = meaning.wait if meaning.until_hour is None else seconds_until(meaning.until_hour, now)
    if retry_after is not None:
        wait = max(wait or 0.0, retry_after)
    return SendResult(
        outcome=Outcome(
            kind=meaning.kind,
            reason=reason,
            retry_after=wait if meaning.kind is OutcomeKind.DEFERRED else None,
            fault=meaning.fault,
            response=text[:MAX_RESPONSE],
        ),
        outage=meaning.outage,
        operator_problem=reason if meaning.operator else None,
        suppress=meaning.suppress,
    )


def reason_of(name: str, code: str) -> str:
    return f"{name} {code}" if _CODE.fullmatch(code) else f"{name} refused"
