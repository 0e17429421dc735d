"""FakeAliyunSms: Dysmsapi as Aliyun has it, which verifies signatures, lists what it has sent, and calls back."""

import hashlib
import hmac
import json
import secrets
import time
from datetime import datetime, timedelta, timezone
from typing import Any

from aiohttp import ClientSession, web

from starter.local.receivers.providers.fake import Answer, FakeProvider, Received

_CHINA = timezone(timedelta(hours=8))


def refused(code: str, message: str = "scripted", *, status: int = 200) -> Answer:
    """A refusal with this code."""
    return Answer(status=status, body={"Code": code, "Message": message, "RequestId": "1"})


class FakeAliyunSms(FakeProvider):
    """`recipient` of what it accepts is the number; `key` is the OutId. `listed` is False while it lists nothing yet."""

    access_key_id, secret = "LTAI-test", "aliyun-secret"

    def __init__(self) -> None:
        super().__init__()
        self.listed = True
        #: Seconds until it lists an SMS that it has accepted.
        self.listed_after = 0.0
        self.queries = 0
        #: By OutId, the SendStatus and ErrCode of an SMS; others wait for the carrier (1).
        self.statuses: dict[str, tuple[int, str]] = {}
        #: Answers to queries, in turn; later ones are the usual.
        self.query_script: list[Answer] = []

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/", self._call)

    async def _call(self, request: web.Request) -> web.StreamResponse:
        if not self._is_signed(request):
            body = {"Code": "SignatureDoesNotMatch", "Message": "Specified signature is not matched", "RequestId": "1"}
            return web.json_response(body, status=400)
        if request.headers["x-acs-action"] == "QuerySendDetails":
            return self._details(request)
        query = dict(request.query)
        message = Received(recipient=query["PhoneNumbers"], content=query, key=query["OutId"])
        usual = {"Code": "OK", "Message": "OK", "RequestId": "1", "BizId": f"{secrets.randbelow(10**12)}^0"}
        return await self.answer(request, message, lambda accepted: {**usual, "BizId": accepted.id})

    def _details(self, request: web.Request) -> web.StreamResponse:
        self.queries += 1
        if self.query_script:
            answer = self.query_script.pop(0)
            return web.json_response(answer.body, status=answer.status)
        today = datetime.now(_CHINA).strftime("%Y%m%d")
        until = time.monotonic() - self.listed_after
        of_number = [
            each for each in self.accepted if each.recipient == request.query["PhoneNumber"] and each.at <= until
        ]
        found = of_number if self.listed and request.query["SendDate"] == today else []
        size, page = int(request.query["PageSize"]), int(request.query["CurrentPage"])
        rows = [self._row(each) for each in found[(page - 1) * size : page * size]]
        body = {"Code": "OK", "TotalCount": str(len(found)), "SmsSendDetailDTOs": {"SmsSendDetailDTO": rows}}
        return web.json_response(body)

    def _row(self, sms: Received) -> dict[str, Any]:
        status, code = self.statuses.get(sms.key, (1, ""))
        return {"PhoneNum": sms.recipient, "OutId": sms.key, "SendStatus": status, "ErrCode": code}

    def _is_signed(self, request: web.Request) -> bool:
        """Whether the request has the signature of ACS3-HMAC-SHA256, computed from what arrived."""
        scheme, _, rest = request.headers.get("Authorization", "").partition(" ")
        given = dict(part.split("=", 1) for part in rest.split(",") if "=" in part)
        names = given.get("SignedHeaders", "").split(";")
        required = {
            "host",
            "x-acs-action",
            "x-acs-content-sha256",
            "x-acs-date",
            "x-acs-signature-nonce",
            "x-acs-version",
        }
        if scheme != "ACS3-HMAC-SHA256" or given.get("Credential") != self.access_key_id or not required <= set(names):
            return False
        lines = [
            request.method,
            request.path,
            "&".join(sorted(request.rel_url.raw_query_string.split("&"))),
            *(f"{name}:{request.headers[name].strip()}" for name in names),
            "",
            ";".join(names),
            request.headers["x-acs-content-sha256"],
        ]
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        text = f"ACS3-HMAC-SHA256\n{digest}"
        expected = hmac.new(self.secret.encode(), text.encode(), "sha256").hexdigest()
        return hmac.compare_digest(expected, given.get("Signature", ""))

    async def send_receipt(self, url: str, *receipts: dict[str, Any]) -> tuple[int, Any]:
        """Call the URL with these receipts; the status and the JSON of its response."""
        return await post(url, list(receipts))

    def reply(self, number: str, content: str, **fields: Any) -> dict[str, Any]:
        """The SmsUp of what somebody answered, as Aliyun sends it."""
        return {
            "phone_number": number,
            "send_time": datetime.now(_CHINA).strftime("%Y-%m-%d %H:%M:%S"),
            "content": content,
            "sign_name": "贝尔",
            "dest_code": "1234",
            "sequence_id": secrets.token_hex(5),
            **fields,
        }

    async def send_reply(self, url: str, reply: dict[str, Any]) -> tuple[int, Any]:
        """The same for a reply."""
        return await post(url, [reply])

    def receipt(self, sms: Received, *, code: str = "DELIVERED", **fields: Any) -> dict[str, Any]:
        """The receipt of an SMS, as Aliyun sends it."""
        return {
            "phone_number": sms.recipient,
            "send_time": "2026-11-01 08:00:00",
            "report_time": "2026-11-01 08:00:02",
            "success": code == "DELIVERED",
            "err_code": code,
            "err_msg": "",
            "sms_size": "1",
            "biz_id": sms.id,
            "out_id": sms.key,
            **fields,
        }


async def post(url: str, document: Any) -> tuple[int, Any]:
    """POST JSON; the status and the JSON of the response, None without one."""
    async with ClientSession() as session, session.post(url, data=json.dumps(document)) as response:
        text = await response.text()
        return response.status, json.loads(text) if text else None
