"""FakeTencentSms: SMS by Tencent Cloud. It verifies signatures, lists what carriers reported, and calls back."""

import hashlib
import hmac
import json
import time
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from starter.local.receivers.providers.aliyun_sms import post
from starter.local.receivers.providers.fake import Answer, FakeProvider, Received


def refused(code: str) -> Answer:
    """A refusal of the number with this code."""
    row = {"SerialNo": "", "PhoneNumber": "", "Fee": 0, "SessionContext": "", "Code": code, "Message": "scripted"}
    return Answer(body={"Response": {"SendStatusSet": [row], "RequestId": "1"}})


def failed(code: str) -> Answer:
    """An error of the whole request."""
    return Answer(body={"Response": {"Error": {"Code": code, "Message": "scripted"}, "RequestId": "1"}})


class FakeTencentSms(FakeProvider):
    """`recipient` of what it accepts is the number; `key` is the SessionContext. `reported` is False until carriers report."""

    secret_id, secret, app_id = "AKID-test", "tencent-secret", "1400006666"

    def __init__(self) -> None:
        super().__init__()
        self.reported = True
        #: Seconds until they report on an SMS.
        self.listed_after = 0.0
        #: Whether Tencent has activated the SessionContext of reports.
        self.with_context = True
        self.queries = 0

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/", self._call)

    async def _call(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if not self._is_signed(request, body):
            return web.json_response(failed("AuthFailure.SignatureFailure").body)
        given = json.loads(body)
        if request.headers["X-TC-Action"] == "PullSmsSendStatusByPhoneNumber":
            return self._reports(given)
        (number,) = given["PhoneNumberSet"]
        message = Received(recipient=number, content=given, key=given["SessionContext"])
        return await self.answer(request, message, self._accepted)

    def _accepted(self, sms: Received) -> dict[str, Any]:
        row = {"SerialNo": sms.id, "PhoneNumber": sms.recipient, "Fee": 2, "SessionContext": sms.key, "Code": "Ok"}
        return {"Response": {"SendStatusSet": [{**row, "Message": "send success", "IsoCode": "CN"}], "RequestId": "1"}}

    def _reports(self, given: dict[str, Any]) -> web.StreamResponse:
        self.queries += 1
        until = time.monotonic() - self.listed_after if self.reported else 0.0
        found = [each for each in self.accepted if each.recipient == given["PhoneNumber"] and each.at <= until]
        rows = [
            {
                "SerialNo": each.id,
                "PhoneNumber": each.recipient,
                "ReportStatus": "SUCCESS",
                "UserReceiveTime": int(time.time()),
                "SessionContext": each.key if self.with_context else "",
            }
            for each in found[given["Offset"] : given["Offset"] + given["Limit"]]
        ]
        return web.json_response({"Response": {"PullSmsSendStatusSet": rows, "RequestId": "1"}})

    def _is_signed(self, request: web.Request, body: bytes) -> bool:
        """Whether the request has the signature of TC3-HMAC-SHA256, computed from what arrived."""
        scheme, _, rest = request.headers.get("Authorization", "").partition(" ")
        given = dict(part.strip().split("=", 1) for part in rest.split(",") if "=" in part)
        key_id, _, scope = given.get("Credential", "").partition("/")
        names = given.get("SignedHeaders", "").split(";")
        timestamp = request.headers.get("X-TC-Timestamp", "0")
        date = datetime.fromtimestamp(int(timestamp), UTC).date().isoformat()
        if scheme != "TC3-HMAC-SHA256" or key_id != self.secret_id or scope != f"{date}/sms/tc3_request":
            return False
        if not {"content-type", "host"} <= set(names) or abs(time.time() - int(timestamp)) > 300:
            return False
        headers = [f"{name}:{request.headers[name].strip().lower()}" for name in names]
        lines = [request.method, request.path, "", *headers, "", ";".join(names), hashlib.sha256(body).hexdigest()]
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        key = b"TC3" + self.secret.encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        expected = hmac.new(key, f"{scheme}\n{timestamp}\n{scope}\n{digest}".encode(), "sha256").hexdigest()
        return hmac.compare_digest(expected, given.get("Signature", ""))

    async def send_receipt(self, url: str, *receipts: dict[str, Any]) -> tuple[int, Any]:
        """Call the URL with these receipts; the status and the JSON of its response."""
        return await post(url, list(receipts))

    def reply(self, number: str, text: str, **fields: Any) -> dict[str, Any]:
        """What somebody in mainland China answered, as Tencent Cloud sends it."""
        reply = {"extend": "", "mobile": number, "nationcode": "86", "sign": "贝尔", "text": text}
        return {**reply, "time": int(time.time()), **fields}

    async def send_reply(self, url: str, reply: dict[str, Any]) -> tuple[int, Any]:
        """The same for a reply, which comes alone and in no array."""
        return await post(url, reply)

    def receipt(self, sms: Received, *, code: str = "DELIVRD", **fields: Any) -> dict[str, Any]:
        """The receipt of an SMS to mainland China, as Tencent Cloud sends it."""
        return {
            "user_receive_time": "2026-11-01 08:00:02",
            "nationcode": "86",
            "mobile": sms.recipient.removeprefix("+86"),
            "report_status": "SUCCESS" if code == "DELIVRD" else "FAIL",
            "errmsg": code,
            "description": "",
            "sid": sms.id,
            **fields,
        }
