"""AliyunProvider: sends SMS by Aliyun's Dysmsapi (2017-05-25), and reconciles an SMS whose response was lost.

Errors of the SMS come with HTTP 200 and a Code. Aliyun does not deduplicate, so reconciling queries what it has sent to the
number, for the OutId that identifies the attempt.
"""

import json
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from activities.providers.http import NotSent, ProviderResponse, ResponseLost, call, limits, parse_json
from activities.sms.http_responses import provider_id_of
from activities.sms.mainland.config import AliyunConfig
from activities.sms.mainland.mapping import Records, cannot_send, not_listed, template_of, values_of
from activities.sms.mainland.meanings import (
    ACCOUNT,
    ACCOUNT_NEXT_DAY,
    AMBIGUOUS,
    BUSY,
    CHINA,
    CONTENT,
    GONE,
    NEXT_DAY,
    OPERATOR,
    WAIT,
    CodeMeaning,
    reason_of,
    refusal,
)
from activities.sms.mainland.signatures import AccessKey, aliyun_headers, canonical_query
from activities.sms.providers import SendResult, Sms, unknown_result, unreachable
from bellwire.deliveries import Fault, Outcome, OutcomeKind
from bellwire.sms.mainland import NUMBERS_GONE
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


def classify(status: int, code: str, message: str) -> CodeMeaning:
    """What a response means that is not OK. A code that is not known may be one of an SMS that was sent."""
    if code == "isv.BUSINESS_LIMIT_CONTROL":
        return next((meaning for level, meaning in _LEVELS.items() if level in message.lower()), WAIT)
    if code in BY_CODE:
        return BY_CODE[code]
    if status in {429, 503} or code.startswith("Throttling"):
        return BUSY
    if 400 <= status < 500:
        return ACCOUNT
    return OPERATOR if code.startswith("isv.") else AMBIGUOUS


class AliyunProvider:
    """One account. The caller closes `session`."""

    idempotent_resend = False

    def __init__(self, config: AliyunConfig, session: aiohttp.ClientSession, records: Records, *, secret: str) -> None:
        self.name = config.name
        self._config = config
        self._session = session
        self._records = records
        self._limits = limits(config.timeout)
        self._key = AccessKey(id=config.access_key_id, secret=secret)

    def sender_of(self, sms: Sms) -> str:
        """The sign name, which stands before the text."""
        template = template_of(self._config.templates, sms)
        return (template and template.sign_name) or self._config.sign_name

    def cannot_send(self, sms: Sms) -> str | None:
        return cannot_send(self._config, sms)

    async def send(self, sms: Sms) -> SendResult:
        template = template_of(self._config.templates, sms)
        assert template is not None
        values = values_of(list(template.params.values()), sms)
        parameters = {
            "PhoneNumbers": _national(sms.to),
            "SignName": self.sender_of(sms),
            "TemplateCode": template.template,
            "TemplateParam": json.dumps(dict(zip(template.params, values, strict=True)), ensure_ascii=False),
            "OutId": sms.idempotency_key,
        }
        try:
            response = await self._call("SendSms", parameters)
        except NotSent as error:
            return unreachable(self.name, error)
        except ResponseLost as error:
            return unknown_result(f"{self.name}: {error}")
        document = _document(response)
        code = str(document.get("Code", ""))
        if response.status == 200 and code == "OK":
            if (found := provider_id_of(document.get("BizId"))) is None:
                return unknown_result(f"{self.name}: response without a BizId")
            outcome = Outcome(kind=OutcomeKind.DELIVERED, reason=f"{self.name} OK", provider_id=found)
            return SendResult(outcome=outcome)
        meaning = classify(response.status, code, str(document.get("Message", "")))
        now, wait = datetime.now(UTC), response.retry_after
        return refusal(meaning, self.name, code, response.text, now=now, retry_after=wait)

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
                try:
                    response = await self._call("QuerySendDetails", parameters)
                except (NotSent, ResponseLost) as error:
                    return unknown_result(f"while reconciling, {self.name}: {error}")
                document = _document(response)
                code = str(document.get("Code", ""))
                rows = _rows(document)
                if response.status != 200 or code != "OK" or rows is None:
                    problem = classify(response.status, code, "").operator
                    return unknown_result(
                        f"while reconciling, {reason_of(self.name, code)}",
                        wait=response.retry_after,
                        operator_problem=reason_of(self.name, code) if problem else None,
                    )
                if found := next((row for row in rows if row.get("OutId") == sms.idempotency_key), None):
                    return self._found(found, sms)
                if len(rows) < PAGE:
                    break
            else:
                return unknown_result(f"while reconciling, {self.name}: too many SMS to search")
        return await not_listed(self.name, self._records, sms, self._config.absent_after)

    def _found(self, row: dict[str, Any], sms: Sms) -> SendResult:
        """The result of an SMS that Aliyun has. Its rows have no BizId; receipts have the OutId too."""
        gone = str(row.get("SendStatus")) == _FAILED and row.get("ErrCode") in NUMBERS_GONE
        outcome = Outcome(
            kind=OutcomeKind.REJECTED if gone else OutcomeKind.DELIVERED,
            reason=f"{self.name} failed, reconciled" if gone else f"{self.name} has it, reconciled",
            fault=Fault.RECEIVER,
            provider_id=sms.idempotency_key,
        )
        return SendResult(outcome=outcome, suppress=SuppressionReason.BOUNCED if gone else None)

    async def _call(self, action: str, parameters: dict[str, str]) -> ProviderResponse:
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
        base = self._config.url.rstrip("/")
        headers["Accept"] = "application/json"
        url = f"{base}/?{query}"
        return await call(
            self._session, "POST", url, timeout=self._limits, headers=headers, shown=f"{base}/?Action={action}"
        )


def _national(number: str) -> str:
    """The number as Aliyun writes it: one of mainland China without its country."""
    return number.removeprefix("+86").removeprefix("+")


def _document(response: ProviderResponse) -> dict[str, Any]:
    document = parse_json(response.text)
    return document if isinstance(document, dict) else {}


def _rows(document: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The sent SMS of a page; None if the response has none, which says nothing about the SMS."""
    found = document.get("SmsSendDetailDTOs")
    rows = found.get("SmsSendDetailDTO") if isinstance(found, dict) else None
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else None
