"""TencentProvider: sends SMS by Tencent Cloud's API (2021-01-11), and reconciles an SMS whose response was lost.

Every error comes with HTTP 200: of the whole request in Response.Error, of the number in its SendStatus. Tencent does not
deduplicate, and lists an SMS only once the carrier has reported on it.
"""

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from activities.providers.http import ProviderResponse, call, object_in, parse_object, provider_id_of
from activities.sms.mainland.config import OrderedTemplate, TencentConfig
from activities.sms.mainland.meanings import (
    ACCOUNT,
    ACCOUNT_NEXT_DAY,
    AMBIGUOUS,
    BUSY,
    CONTENT,
    GONE,
    NEXT_DAY,
    UNSUBSCRIBED,
    WAIT,
    WINDOW,
    CodeMeaning,
)
from activities.sms.mainland.provider import MainlandProvider, values_of
from activities.sms.mainland.signatures import TENCENT_CONTENT_TYPE, tencent_authorization
from activities.sms.providers import ReportedCost, SendResult, Sms, unknown_result
from bellwire.deliveries import Outcome, OutcomeKind

VERSION = "2021-01-11"
#: Rows of one page of reports, pages that are searched, and the time for which Tencent keeps them.
PAGE, MAX_PAGES, KEPT = 100, 10, timedelta(days=7)

#: https://cloud.tencent.com/document/api/382/52075
BY_CODE: dict[str, CodeMeaning] = {
    "FailedOperation.PhoneNumberInBlacklist": UNSUBSCRIBED,
    "InvalidParameterValue.IncorrectPhoneNumber": GONE,
    "FailedOperation.PhoneNumberParseFail": GONE,
    "LimitExceeded.PhoneNumberThirtySecondLimit": WAIT.for_seconds(30),
    "LimitExceeded.PhoneNumberOneHourLimit": WAIT.for_seconds(3600),
    "LimitExceeded.PhoneNumberDailyLimit": NEXT_DAY,
    "LimitExceeded.PhoneNumberSameContentDailyLimit": NEXT_DAY,
    "LimitExceeded.DeliveryFrequencyLimit": WAIT,
    "LimitExceeded.AppDailyLimit": ACCOUNT_NEXT_DAY,
    "LimitExceeded.DailyLimit": ACCOUNT_NEXT_DAY,
    "LimitExceeded.AppMainlandChinaDailyLimit": ACCOUNT_NEXT_DAY,
    "LimitExceeded.AppGlobalDailyLimit": ACCOUNT_NEXT_DAY,
    "LimitExceeded.AppCountryOrRegionDailyLimit": ACCOUNT_NEXT_DAY,
    "LimitExceeded.GlobalSmsSendingRateLimit": BUSY.for_seconds(1),
    "FailedOperation.MarketingSendTimeConstraint": WINDOW,
    "FailedOperation.ContainSensitiveWord": CONTENT,
    "FailedOperation.TemplateIncorrectOrUnapproved": CONTENT,
    "FailedOperation.SignatureIncorrectOrUnapproved": CONTENT,
    "FailedOperation.TemplateIdNotExist": CONTENT,
    "FailedOperation.TemplateUnapprovedOrNotExist": CONTENT,
    "FailedOperation.TemplateParamSetNotMatchApprovedTemplate": CONTENT,
    "FailedOperation.FailResolvePacket": CONTENT,
    "FailedOperation.JsonParseFail": CONTENT,
    "FailedOperation.InsufficientBalanceInSmsPackage": ACCOUNT,
    "InvalidParameterValue.ProhibitedUseUrlInTemplateParameter": CONTENT,
    "InvalidParameterValue.TemplateParameterFormatError": CONTENT,
    "InvalidParameterValue.TemplateParameterLengthLimit": CONTENT,
    "InvalidParameterValue.SdkAppIdNotExist": ACCOUNT,
    "InvalidParameter.AppidAndBizId": ACCOUNT,
    "LimitExceeded.AppCountryOrRegionInBlacklist": ACCOUNT,
    "InternalError.SigFieldMissing": ACCOUNT,
    "InternalError.SigVerificationFail": ACCOUNT,
    "InternalError.RequestTimeException": ACCOUNT,  # the clock is more than 10 minutes off
    "InternalError.Timeout": AMBIGUOUS,
    "InternalError.SendAndRecvFail": AMBIGUOUS,
    "InternalError.OtherError": AMBIGUOUS,
}
#: What the beginnings of other codes mean.
_BY_PREFIX = {
    "RequestLimitExceeded": BUSY.for_seconds(1),
    "AuthFailure": ACCOUNT,
    "UnauthorizedOperation": ACCOUNT,
    "UnsupportedOperation": ACCOUNT,
    "ResourceInsufficient": ACCOUNT,
    "LimitExceeded": WAIT,
    "InvalidParameter": CONTENT,
    "MissingParameter": CONTENT,
}


def classify(status: int, code: str) -> CodeMeaning:
    """What a code means that is not Ok. One that is not known may be that of an SMS that was sent."""
    if code in BY_CODE:
        return BY_CODE[code]
    for prefix, meaning in _BY_PREFIX.items():
        if code.startswith(prefix):
            return meaning
    if status in {429, 503}:
        return BUSY
    return ACCOUNT if 400 <= status < 500 else AMBIGUOUS


class TencentProvider(MainlandProvider[TencentConfig]):
    """Parameters of templates are in order. A query lists the reports of carriers about a number."""

    def message(self, sms: Sms) -> dict[str, Any]:
        template = self._template(sms)
        assert isinstance(template, OrderedTemplate)
        return {
            "PhoneNumberSet": [sms.to],
            "SmsSdkAppId": self._config.app_id,
            "SignName": self.sender_of(sms),
            "TemplateId": template.template,
            "TemplateParamSet": values_of(template.params, sms),
            "SessionContext": sms.idempotency_key,
        }

    def _result(self, response: ProviderResponse) -> SendResult:
        error, document = _parsed(response.text)
        number = _first(document.get("SendStatusSet"))
        code = error or str(number.get("Code") or "")
        if response.status != 200 or code != "Ok":
            return self._refusal(classify(response.status, code), code, response)
        if (found := provider_id_of(number.get("SerialNo"))) is None:
            return unknown_result(f"{self.name}: response without a SerialNo")
        fee = number.get("Fee")
        return SendResult(
            outcome=Outcome(kind=OutcomeKind.DELIVERED, reason=f"{self.name} Ok", provider_id=found),
            cost=ReportedCost(segments=fee) if type(fee) is int and 0 < fee < 1000 else None,
        )

    async def reconcile(self, sms: Sms, since: datetime) -> SendResult | None:
        now = datetime.now(UTC)
        begin = max(since - timedelta(hours=1), now - KEPT)
        for page in range(MAX_PAGES):
            parameters = {
                "BeginTime": int(begin.timestamp()),
                "EndTime": int(now.timestamp()),
                "Offset": page * PAGE,
                "Limit": PAGE,
                "PhoneNumber": sms.to,
                "SmsSdkAppId": self._config.app_id,
            }
            rows = await self._query("PullSmsSendStatusByPhoneNumber", parameters)
            if isinstance(rows, SendResult):
                return rows
            if (found := await self._match(rows, sms)) is not None:
                reason = f"{self.name} has it, reconciled"
                return SendResult(outcome=Outcome(kind=OutcomeKind.DELIVERED, reason=reason, provider_id=found))
            if len(rows) < PAGE:
                return await self._not_listed(sms)
        return self._not_known()

    async def _match(self, rows: list[dict[str, Any]], sms: Sms) -> str | None:
        """The id of the SMS among reports to its number; None if it is not among them.

        Accounts get the SessionContext only after Tencent has activated that. A report without one that belongs to no
        other attempt counts as this one: better one SMS too few than one too many.
        """
        ids = {serial: row for row in rows if (serial := provider_id_of(row.get("SerialNo")))}
        if found := next(
            (serial for serial, row in ids.items() if row.get("SessionContext") == sms.idempotency_key), None
        ):
            return found
        others = {serial for serial, row in ids.items() if not row.get("SessionContext")}
        recorded = await self._records.claimed_provider_ids(sorted(others)) if others else set()
        return min(others - recorded, default=None)

    def _listed(self, response: ProviderResponse) -> tuple[str, Any, CodeMeaning]:
        error, document = _parsed(response.text)
        rows = None if error else document.get("PullSmsSendStatusSet")
        return error, rows, classify(response.status, error)

    async def _call(self, action: str, parameters: Mapping[str, Any]) -> ProviderResponse:
        body, timestamp = json.dumps(parameters).encode(), int(time.time())
        host = urlsplit(self._config.url).netloc
        headers = {
            "Host": host,
            "Content-Type": TENCENT_CONTENT_TYPE,
            "Accept": "application/json",
            "X-TC-Action": action,
            "X-TC-Version": VERSION,
            "X-TC-Region": self._config.region,
            "X-TC-Timestamp": str(timestamp),
            "Authorization": tencent_authorization(self._key, service="sms", host=host, body=body, timestamp=timestamp),
        }
        url = f"{self._config.url.rstrip('/')}/"
        return await call(self._session, "POST", url, timeout=self._limits, headers=headers, data=body)


def _parsed(text: str) -> tuple[str, dict[str, Any]]:
    """The code of an error of the whole request, empty without one, and what Response holds."""
    document = object_in(parse_object(text), "Response")
    error = document.get("Error")
    return str(error.get("Code") or "unknown") if isinstance(error, dict) else "", document


def _first(rows: Any) -> dict[str, Any]:
    """The status of the only number."""
    return rows[0] if isinstance(rows, list) and rows and isinstance(rows[0], dict) else {}
