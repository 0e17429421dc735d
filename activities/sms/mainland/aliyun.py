"""AliyunProvider: sends SMS by Aliyun's Dysmsapi (2017-05-25), and reconciles an SMS whose response was lost.

Errors of the SMS come with HTTP 200 and a Code. Aliyun does not deduplicate, so reconciling queries what it has sent to the
number, for the OutId that identifies the attempt.
"""

import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from activities.providers.http import ProviderResponse, call, object_in, parse_object, provider_id_of
from activities.sms.mainland.config import AliyunConfig, NamedTemplate
from activities.sms.mainland.meanings import (
    ACCOUNT,
    ACCOUNT_NEXT_DAY,
    AMBIGUOUS,
    BUSY,
    CONTENT,
    GONE,
    NEXT_DAY,
    OPERATOR,
    WAIT,
    CodeMeaning,
)
from activities.sms.mainland.provider import MainlandProvider, values_of
from activities.sms.mainland.signatures import aliyun_headers, canonical_query
from activities.sms.providers import SendResult, Sms, unknown_result
from bellwire.deliveries import Fault, Outcome, OutcomeKind
from bellwire.sms.mainland import CHINA, NUMBERS_GONE
from bellwire.suppressions import SuppressionReason

VERSION = "2017-05-25"
#: Rows of one page of sent SMS, and pages and days that are searched. Aliyun keeps 30 days.
PAGE, MAX_PAGES, MAX_DAYS = 50, 10, 30
#: The SendStatus of an SMS that the carrier could not deliver.
_FAILED = "2"

#: https://help.aliyun.com/zh/sms/developer-reference/api-error-codes
BY_CODE: dict[str, CodeMeaning] = {
    "isv.MOBILE_NUMBER_ILLEGAL": GONE,
    "isv.BUSINESS_LIMIT_CONTROL": WAIT,  # the message says for how long
    "isv.DAY_LIMIT_CONTROL": ACCOUNT_NEXT_DAY,
    "isv.MONTH_LIMIT_CONTROL": ACCOUNT_NEXT_DAY,
    "isv.TEMPLATE_MISSING_PARAMETERS": CONTENT,
    "isv.TEMPLATE_PARAMS_ILLEGAL": CONTENT,
    "isv.INVALID_PARAMETERS": CONTENT,
    "isv.INVALID_JSON_PARAM": CONTENT,
    "isv.PARAM_NOT_SUPPORT_URL": CONTENT,
    "isv.PARAM_LENGTH_LIMIT": CONTENT,
    "isv.SMS_CONTENT_ILLEGAL": CONTENT,
    "isv.SMS_TEMPLATE_ILLEGAL": CONTENT,
    "isv.SMS_SIGNATURE_ILLEGAL": CONTENT,
    "isv.BLACK_KEY_CONTROL_LIMIT": CONTENT,
    "isv.SIGN_STATE_ILLEGAL": OPERATOR,  # the registration of the sign name takes days
    "isv.OUT_OF_SERVICE": ACCOUNT,
    "isv.PRODUCT_UNSUBSCRIBE": ACCOUNT,
    "isv.AMOUNT_NOT_ENOUGH": ACCOUNT,
    "isv.ACCOUNT_NOT_EXISTS": ACCOUNT,
    "isv.ACCOUNT_ABNORMAL": ACCOUNT,
    "isp.RAM_PERMISSION_DENY": ACCOUNT,
    "SignatureDoesNotMatch": ACCOUNT,
    "InvalidAccessKeyId.NotFound": ACCOUNT,
    "ServiceUnavailable": BUSY,
    "isp.SYSTEM_ERROR": AMBIGUOUS,
}
#: The levels of BUSINESS_LIMIT_CONTROL as its message spells them.
_LEVELS = {
    "天级": NEXT_DAY,
    "小时级": WAIT.for_seconds(3600),
    "分钟级": WAIT,
    "day": NEXT_DAY,
    "hour": WAIT.for_seconds(3600),
}


def classify(status: int, code: str, message: str = "") -> CodeMeaning:
    """What a response means that is not OK. A code that is not known may be one of an SMS that was sent."""
    if code == "isv.BUSINESS_LIMIT_CONTROL":
        return next((meaning for level, meaning in _LEVELS.items() if level in message.lower()), WAIT)
    if code in BY_CODE:
        return BY_CODE[code]
    if status in {429, 503} or code.startswith("Throttling"):
        return BUSY
    if 400 <= status < 500 or code.startswith("isv.ACCOUNT_"):
        return ACCOUNT
    return OPERATOR if code.startswith("isv.") else AMBIGUOUS


class AliyunProvider(MainlandProvider[AliyunConfig]):
    """Parameters of templates have names. A query lists the SMS to a number on one day, in China's time."""

    def message(self, sms: Sms) -> dict[str, Any]:
        template = self._template(sms)
        assert isinstance(template, NamedTemplate)
        values = dict(zip(template.params, values_of(template.params.values(), sms), strict=True))
        return {
            "PhoneNumbers": _national(sms.to),
            "SignName": self.sender_of(sms),
            "TemplateCode": template.template,
            "TemplateParam": json.dumps(values, ensure_ascii=False),
            "OutId": sms.idempotency_key,
        }

    def _result(self, response: ProviderResponse) -> SendResult:
        document = parse_object(response.text)
        code = str(document.get("Code") or "")
        if response.status != 200 or code != "OK":
            return self._refusal(classify(response.status, code, str(document.get("Message", ""))), code, response)
        if (found := provider_id_of(document.get("BizId"))) is None:
            return unknown_result(f"{self.name}: response without a BizId")
        return SendResult(outcome=Outcome(kind=OutcomeKind.DELIVERED, reason=f"{self.name} OK", provider_id=found))

    async def reconcile(self, sms: Sms, since: datetime) -> SendResult | None:
        today = datetime.now(CHINA).date()
        first = (since - timedelta(hours=1)).astimezone(CHINA).date()
        days = min(max(0, (today - first).days), MAX_DAYS - 1)
        for day in (today - timedelta(days=back) for back in range(days + 1)):
            for page in range(1, MAX_PAGES + 1):
                parameters = {
                    "PhoneNumber": _national(sms.to),
                    "SendDate": day.strftime("%Y%m%d"),
                    "PageSize": str(PAGE),
                    "CurrentPage": str(page),
                }
                rows = await self._query("QuerySendDetails", parameters)
                if isinstance(rows, SendResult):
                    return rows
                if found := next((row for row in rows if row.get("OutId") == sms.idempotency_key), None):
                    return self._found(found, sms)
                if len(rows) < PAGE:
                    break
            else:
                return self._not_known()
        return await self._not_listed(sms)

    def _found(self, row: dict[str, Any], sms: Sms) -> SendResult:
        """The result of an SMS that Aliyun has. Its rows have no BizId; receipts have the OutId too."""
        gone = str(row.get("SendStatus")) == _FAILED and str(row.get("ErrCode")) in NUMBERS_GONE
        outcome = Outcome(
            kind=OutcomeKind.REJECTED if gone else OutcomeKind.DELIVERED,
            reason=f"{self.name} failed, reconciled" if gone else f"{self.name} has it, reconciled",
            fault=Fault.RECEIVER,
            provider_id=sms.idempotency_key,
        )
        return SendResult(outcome=outcome, suppress=SuppressionReason.BOUNCED if gone else None)

    def _listed(self, response: ProviderResponse) -> tuple[str, Any, CodeMeaning]:
        document = parse_object(response.text)
        code = str(document.get("Code") or "")
        rows = object_in(document, "SmsSendDetailDTOs").get("SmsSendDetailDTO") if code == "OK" else None
        return code, rows, classify(response.status, code)

    async def _call(self, action: str, parameters: Mapping[str, str]) -> ProviderResponse:
        query = canonical_query(parameters)
        headers = aliyun_headers(
            self._key,
            host=urlsplit(self._config.url).netloc,
            action=action,
            version=VERSION,
            query=query,
            nonce=secrets.token_hex(16),
            now=datetime.now(UTC),
        )
        headers["Accept"] = "application/json"
        base = self._config.url.rstrip("/")
        url, shown = f"{base}/?{query}", f"{base}/?Action={action}"
        return await call(self._session, "POST", url, timeout=self._limits, headers=headers, shown=shown)


def _national(number: str) -> str:
    """The number as Aliyun writes it: one of mainland China without its country."""
    return number.removeprefix("+86").removeprefix("+")
