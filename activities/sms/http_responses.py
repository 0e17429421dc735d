"""Classifies responses of configured providers by their ResponseRules."""

import re
from typing import Any

from activities.providers.http import ProviderResponse, parse_json, provider_id_of
from activities.sms.provider_config import ResponseRules
from activities.sms.providers import SendResult, unknown_result
from activities.sms.templating import json_pointer
from bellwire.deliveries import MAX_RESPONSE, Fault, Outcome, OutcomeKind
from bellwire.suppressions import SuppressionReason

#: Error codes that a reason may contain: a short number, perhaps after a few letters (7001, E-1001), or words with _ between
#: (bad_token, isv.MOBILE_NUMBER_ILLEGAL). Others, such as a phone number or a name, are shown only if the
#: configuration lists them.
_CODE = re.compile(r"[A-Za-z]{0,3}[-_.:]?\d{1,6}|([a-z]{1,8}\.)?[A-Za-z]{2,20}(_[A-Za-z]{2,20}){1,4}", re.ASCII)
_MAX_CODE = 40
#: Statuses that concern credentials, payment, the URL or something in between, unless the configuration says otherwise: the next
#: SMS would be refused too.
_ABOUT_ACCOUNT = {401, 402, 403, 404, 405, 406, 407, 411, 412, 415, 421, 426, 451}


def classify_response(name: str, rules: ResponseRules, response: ProviderResponse) -> SendResult:
    """The result of sending, from the response of the provider `name`."""
    status, document = response.status, parse_json(response.text)
    code = _error_code(rules, document)
    reason = f"{name} {status} {code}" if _CODE.fullmatch(code) or _is_listed(rules, code) else f"{name} {status}"
    permanent = status in rules.rejected or code in rules.gone | rules.unsubscribed
    kind, outage, operator_problem = OutcomeKind.REJECTED, False, None
    if status in rules.accepted:
        kind, provider_id = _classify_accepted(rules, document)
        if kind is OutcomeKind.DELIVERED:
            return SendResult(outcome=Outcome(kind=kind, reason=reason, provider_id=provider_id))
    elif status in rules.unknown:
        kind = OutcomeKind.UNKNOWN
    elif status == 429 or (status >= 500 and status not in rules.rejected):
        kind, outage = OutcomeKind.DEFERRED, True
    elif status in rules.retry:
        kind = OutcomeKind.DEFERRED
    elif (status < 400 or status in _ABOUT_ACCOUNT) and not permanent:
        kind, operator_problem = OutcomeKind.DEFERRED, reason
    if kind is OutcomeKind.UNKNOWN:
        return unknown_result(f"{reason}: {response.shown}", wait=response.retry_after)
    # Other refusals may concern the number, the text or the sender.
    gone = kind is OutcomeKind.REJECTED and code in rules.gone
    outcome = Outcome(
        kind=kind,
        reason=reason,
        retry_after=response.retry_after if kind is OutcomeKind.DEFERRED else None,
        disable=gone,
        fault=Fault.RECEIVER if gone else Fault.OPERATOR if operator_problem else Fault.PROVIDER,
        response=response.shown[:MAX_RESPONSE],
    )
    suppress = _suppression(rules, code) if kind is OutcomeKind.REJECTED else None
    return SendResult(outcome=outcome, outage=outage, operator_problem=operator_problem, suppress=suppress)


def _error_code(rules: ResponseRules, document: Any) -> str:
    code = json_pointer(document, rules.code) if rules.code else None
    return "" if code is None else str(code)


def _is_listed(rules: ResponseRules, code: str) -> bool:
    return code in rules.gone | rules.unsubscribed and len(code) <= _MAX_CODE


def _classify_accepted(rules: ResponseRules, document: Any) -> tuple[OutcomeKind, str | None]:
    """The outcome for an accepted status, since some providers respond 200 to everything. Unknown if it is not clear."""
    if rules.result is not None:
        result = str(json_pointer(document, rules.result))
        if result in rules.rejected_results:
            return OutcomeKind.REJECTED, None
        if result in rules.retry_results:
            return OutcomeKind.DEFERRED, None
        if result not in rules.accepted_results:
            return OutcomeKind.UNKNOWN, None
    found = provider_id_of(json_pointer(document, rules.id))
    return (OutcomeKind.DELIVERED, found) if found else (OutcomeKind.UNKNOWN, None)


def _suppression(rules: ResponseRules, code: str) -> SuppressionReason | None:
    if code in rules.unsubscribed:
        return SuppressionReason.UNSUBSCRIBED
    return SuppressionReason.BOUNCED if code in rules.gone else None
