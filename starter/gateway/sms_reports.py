"""Callbacks of Aliyun and Tencent Cloud: delivery receipts, and STOP or START from recipients.

Nobody signs them: the URL has a secret, and each receipt must name a recorded SMS. Both providers repeat a callback until it is
answered with their code of success. A receipt of an SMS that is not recorded yet gets another code, so that it comes again.
"""

import json
import secrets
from collections.abc import Callable, Collection
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bellwire.registry import Registry
from bellwire.service.settings import Settings
from bellwire.sms.mainland import ALIYUN_CALLBACKS, TENCENT_CALLBACKS
from starter.gateway.bodies import BodyTooLarge, read_body
from starter.gateway.sms_rows import read_aliyun, read_tencent
from starter.operations.subscribers import sms_callbacks
from starter.operations.subscribers.sms_callbacks import SmsReply, SmsReport

log = structlog.get_logger("bellwire")

#: Maximum bytes of a callback, which may have any number of rows. One has about 300 bytes.
MAX_BODY = 4 * 1024 * 1024
#: Rows that are recorded together.
PAGE = 500


def routes(settings: Settings, registry: Registry) -> list[Route]:
    """The callbacks, if there is a secret for their URLs."""
    if settings.sms_callback_secret is None:
        return []
    secret, networks = settings.sms_callback_secret.get_secret_value(), settings.sms_callback_networks
    reports = SmsReports(registry, secret, networks)
    return [
        Route(f"{ALIYUN_CALLBACKS}/{{secret}}", reports.aliyun, methods=["POST"]),
        Route(f"{TENCENT_CALLBACKS}/{{secret}}", reports.tencent, methods=["POST"]),
    ]


class SmsReports:
    """Records receipts, and what recipients want. Responds 404 to a wrong secret, as if there were nothing.

    `networks` are those that requests may come from; by default any.
    """

    def __init__(self, registry: Registry, secret: str, networks: Collection[IPv4Network | IPv6Network] = ()) -> None:
        self._registry = registry
        self._secret = secret.encode()
        self._networks = networks

    async def aliyun(self, request: Request) -> Response:
        """A JSON array of SmsReport or of SmsUp."""
        known = await self._record(request, "Aliyun", read_aliyun)
        if isinstance(known, Response):
            return known
        return JSONResponse({"code": 0 if known else 1, "msg": "OK" if known else "unknown SMS"})

    async def tencent(self, request: Request) -> Response:
        """A JSON array of status reports, or one reply."""
        known = await self._record(request, "Tencent Cloud", read_tencent)
        if isinstance(known, Response):
            return known
        return JSONResponse({"result": 0 if known else 1, "errmsg": "OK" if known else "unknown SMS"})

    async def _record(
        self, request: Request, provider: str, read: Callable[[Any], SmsReport | SmsReply | None]
    ) -> bool | Response:
        """Record the rows; whether all receipts are of recorded SMS. A malformed row would not be better next time."""
        if not secrets.compare_digest(request.path_params["secret"].encode(), self._secret):
            return Response(status_code=404)
        address = request.client.host if request.client else ""
        if self._networks and not _is_in(address, self._networks):
            log.warning("sms.callback_refused", provider=provider, address=address)
            return Response(status_code=404)
        try:
            document = json.loads(await read_body(request, MAX_BODY))
        except BodyTooLarge:
            return Response(status_code=413)
        except (ClientDisconnect, ValueError, RecursionError):
            return Response(status_code=400)
        if not isinstance(document, list | dict):
            return Response(status_code=400)
        rows = document if isinstance(document, list) else [document]
        known, malformed = True, 0
        for start in range(0, len(rows), PAGE):
            page = list(map(read, rows[start : start + PAGE]))
            malformed += page.count(None)
            known &= await self._record_reports([each for each in page if isinstance(each, SmsReport)], provider)
            for reply in (each for each in page if isinstance(each, SmsReply)):
                if keyword := await sms_callbacks.obey(self._registry, reply):
                    log.info("sms.keyword_received", keyword=str(keyword))
        if malformed:
            log.warning("sms.callback_malformed", provider=provider, rows=malformed)
        return known

    async def _record_reports(self, reports: list[SmsReport], provider: str) -> bool:
        """Whether all of them are of recorded SMS."""
        if not reports:
            return True
        results = await sms_callbacks.record_reports(self._registry, reports, provider=provider)
        for report, new in zip(reports, results, strict=True):
            if new:
                log.info("sms.receipt_recorded", status=str(report.status), code=report.code)
        return None not in results


def _is_in(address: str, networks: Collection[IPv4Network | IPv6Network]) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return any((mapped or found) in network for network in networks)
