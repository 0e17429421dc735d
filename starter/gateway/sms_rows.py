"""Rows of the callbacks of Aliyun and Tencent Cloud: delivery receipts, and replies of recipients."""

import re
from datetime import UTC, datetime
from typing import Any

from bellwire.formats.phone_numbers import is_number, number_key
from bellwire.sms.mainland import CHINA
from bellwire.sms.receipts import SmsReceiptStatus
from starter.operations.subscribers.sms_callbacks import SmsReply, SmsReport

#: Maximum characters of an id, and of a number.
MAX_ID, MAX_NUMBER = 64, 30

_CODE = re.compile(r"[A-Za-z0-9_.:-]{1,40}", re.ASCII)


def read_aliyun(row: Any) -> SmsReport | SmsReply | None:
    """What an SmsReport or an SmsUp says; None if it is malformed."""
    if not isinstance(row, dict):
        return None
    number = _number(row.get("phone_number"))
    if "content" in row:
        return _reply(number, row["content"], sign=row.get("sign_name"), sent_at=_china_time(row.get("send_time")))
    if not isinstance(row.get("success"), bool):
        return None
    size = row.get("sms_size")
    return _report(
        (row.get("biz_id"), row.get("out_id")),
        number,
        delivered=row["success"],
        code=row.get("err_code"),
        segments=int(size) if isinstance(size, str) and re.fullmatch("[1-9][0-9]?", size, re.ASCII) else None,
    )


def read_tencent(row: Any) -> SmsReport | SmsReply | None:
    """What a status report or a reply says; None if it is malformed."""
    if not isinstance(row, dict):
        return None
    number, country = row.get("mobile"), row.get("nationcode")
    if isinstance(number, str) and isinstance(country, str) and country and not number.startswith("+"):
        number = f"+{country.removeprefix('+')}{number}"
    number = _number(number)
    if "text" in row:
        return _reply(number, row["text"], sign=row.get("sign"), sent_at=_unix_time(row.get("time")))
    if row.get("report_status") not in ("SUCCESS", "FAIL"):
        return None
    delivered = row["report_status"] == "SUCCESS"
    return _report((row.get("sid"),), number, delivered=delivered, code=row.get("errmsg"))


def _report(
    ids: tuple[Any, ...], number: str | None, *, delivered: bool, code: Any, segments: int | None = None
) -> SmsReport | None:
    valid = tuple(each for each in ids if isinstance(each, str) and 0 < len(each) <= MAX_ID and each.isprintable())
    if not valid or number is None:
        return None
    status = SmsReceiptStatus.DELIVERED if delivered else SmsReceiptStatus.UNDELIVERED
    code = code if not delivered and isinstance(code, str) and _CODE.fullmatch(code) else None
    return SmsReport(ids=valid, number=number, status=status, code=code, segments=segments)


def _reply(number: str | None, text: Any, *, sign: Any, sent_at: datetime | None) -> SmsReply | None:
    if number is None or not is_number(number) or not isinstance(text, str):
        return None
    now = datetime.now(UTC)
    # The sign name may come as it stands in the SMS.
    sender = sign.strip().removeprefix("【").removesuffix("】") if isinstance(sign, str) else ""
    return SmsReply(number=number, text=text, sender=sender, sent_at=min(sent_at or now, now))


def _number(given: Any) -> str | None:
    """The number as `number_key` has it. One of mainland China may come without its country."""
    if not isinstance(given, str) or len(given) > MAX_NUMBER:
        return None
    return number_key(f"+86{given}" if re.fullmatch("1[0-9]{10}", given, re.ASCII) else given)


def _china_time(given: Any) -> datetime | None:
    try:
        return datetime.strptime(given, "%Y-%m-%d %H:%M:%S").replace(tzinfo=CHINA).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None


def _unix_time(given: Any) -> datetime | None:
    try:
        return datetime.fromtimestamp(given, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None
