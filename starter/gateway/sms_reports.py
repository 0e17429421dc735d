"""Delivery receipts of Aliyun and Tencent Cloud. Nobody signs them: the URL has a secret, and each must name a recorded SMS.

Both repeat a callback until it is answered with their code of success. A receipt of an SMS that is not recorded yet gets
another code, so that it comes again.
"""

import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bellwire.formats.phone_numbers import number_key
from bellwire.registry import Registry
from bellwire.service.settings import Settings
from bellwire.sms.mainland import ALIYUN_CALLBACKS, TENCENT_CALLBACKS
from bellwire.sms.receipts import SmsReceiptStatus
from starter.gateway.bodies import BodyTooLarge, read_body
from starter.operations.subscribers.sms_callbacks import SmsReport, record_report

log = structlog.get_logger("bellwire")

#: Maximum bytes of a callback, and receipts in it. One has about 300 bytes.
MAX_BODY, MAX_RECEIPTS = 512 * 1024, 1000
MAX_ID = 64

_CODE = re.compile(r"[A-Za-z0-9_.:-]{1,40}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Report:
    """One receipt in a callback. `ids`: what it may be recorded by, the provider's own id first."""

    ids: tuple[str, ...]
    number: str
    report: SmsReport


def routes(settings: Settings, registry: Registry) -> list[Route]:
    """The callbacks, if there is a secret for their URLs."""
    if settings.sms_callback_secret is None:
        return []
    reports = SmsReports(registry, settings.sms_callback_secret.get_secret_value())
    return [
        Route(f"{ALIYUN_CALLBACKS}/{{secret}}", reports.aliyun, methods=["POST"]),
        Route(f"{TENCENT_CALLBACKS}/{{secret}}", reports.tencent, methods=["POST"]),
    ]


class SmsReports:
    """Records receipts. Responds 404 to a wrong secret, as if there were nothing."""

    def __init__(self, registry: Registry, secret: str) -> None:
        self._registry = registry
        self._secret = secret.encode()

    async def aliyun(self, request: Request) -> Response:
        """A JSON array of SmsReport."""
        return await self._record(
            request,
            "Aliyun",
            read_aliyun,
            lambda known: {"code": 0 if known else 1, "msg": "OK" if known else "unknown SMS"},
        )

    async def tencent(self, request: Request) -> Response:
        """A JSON array of status reports."""
        return await self._record(
            request,
            "Tencent Cloud",
            read_tencent,
            lambda known: {"result": 0 if known else 1, "errmsg": "OK" if known else "unknown SMS"},
        )

    async def _record(
        self,
        request: Request,
        provider: str,
        read: Callable[[Any], Report | None],
        answer: Callable[[bool], dict[str, Any]],
    ) -> Response:
        if not secrets.compare_digest(request.path_params["secret"].encode(), self._secret):
            return Response(status_code=404)
        try:
            rows = json.loads(await read_body(request, MAX_BODY))
        except BodyTooLarge:
            return Response(status_code=413)
        except (ClientDisconnect, ValueError, RecursionError):
            return Response(status_code=400)
        if not isinstance(rows, list) or len(rows) > MAX_RECEIPTS:
            return Response(status_code=400)
        reports = list(filter(None, map(read, rows)))
        # Receipts of other accounts, of which there may be many, cost one look-up.
        recorded = await self._registry.attempts.by_provider_ids([each for found in reports for each in found.ids])
        known = True
        for found in reports:
            if recorded.keys().isdisjoint(found.ids):
                known = False
                continue
            new = await record_report(self._registry, found.ids, found.number, found.report, provider=provider)
            known = known and new is not None
            if new:
                log.info("sms.receipt_recorded", status=str(found.report.status), code=found.report.code)
        return JSONResponse(answer(known))


def read_aliyun(row: Any) -> Report | None:
    """The receipt in an SmsReport; None if it is malformed."""
    if not isinstance(row, dict) or not isinstance(row.get("success"), bool):
        return None
    size = row.get("sms_size")
    return _report(
        ids=(row.get("biz_id"), row.get("out_id")),
        number=row.get("phone_number"),
        delivered=row["success"],
        code=row.get("err_code"),
        segments=int(size) if isinstance(size, str) and re.fullmatch("[1-9][0-9]?", size, re.ASCII) else None,
    )


def read_tencent(row: Any) -> Report | None:
    """The receipt in a status report; None if it is malformed."""
    if not isinstance(row, dict) or row.get("report_status") not in ("SUCCESS", "FAIL"):
        return None
    number, country = row.get("mobile"), row.get("nationcode")
    if isinstance(number, str) and isinstance(country, str) and not number.startswith("+"):
        number = f"+{country}{number}"
    return _report(
        ids=(row.get("sid"),), number=number, delivered=row["report_status"] == "SUCCESS", code=row.get("errmsg")
    )


def _report(
    *, ids: tuple[Any, ...], number: Any, delivered: bool, code: Any, segments: int | None = None
) -> Report | None:
    valid = tuple(each for each in ids if isinstance(each, str) and 0 < len(each) <= MAX_ID and each.isprintable())
    if not valid or not isinstance(number, str) or len(number) > 30:
        return None
    # One of mainland China may come without its country.
    number = f"+86{number}" if re.fullmatch("1[0-9]{10}", number, re.ASCII) else number
    status = SmsReceiptStatus.DELIVERED if delivered else SmsReceiptStatus.UNDELIVERED
    code = code if not delivered and isinstance(code, str) and _CODE.fullmatch(code) else None
    return Report(ids=valid, number=number_key(number), report=SmsReport(status=status, code=code, segments=segments))
