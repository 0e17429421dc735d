"""What WeChat's errcodes mean. developers.weixin.qq.com/doc/oplatform/Return_codes/Return_code_descriptions_new.html"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from activities.providers.answers import CONTENT, DELIVERED, GONE, RENEW, TRANSIENT, Meaning, busy
from activities.wechat.fields import CHINA
from bellwire.deliveries import Fault, OutcomeKind

#: The user did not agree to this message, or an earlier one has used what they agreed to: which of the two, WeChat does not say.
#: Neither is wrong with the user, so nothing is suppressed, and the subscription's health does not suffer.
NO_GRANT = Meaning(kind=OutcomeKind.REJECTED, fault=Fault.OPERATOR)
#: The calls of a day are used up.
DAY_QUOTA = 45009
#: The same message was sent within the last minute.
REPEATED = 40241
NOT_GRANTED = 43101

#: Others are the operator's.
CODES: Mapping[int, Meaning] = {
    0: DELIVERED,
    -1: TRANSIENT,
    **dict.fromkeys((40001, 40014, 42001), RENEW),
    # No user of this account; not a follower; refuses messages; restricted by WeChat.
    **dict.fromkeys((40003, 43004, 48002, 50002, 50005), GONE),
    NOT_GRANTED: NO_GRANT,
    # The template, the page, a field, the JSON.
    **dict.fromkeys((40037, 41030, 47001, 47003), CONTENT),
    DAY_QUOTA: busy(60),
    # The calls of a minute are used up.
    45011: busy(60),
    # Too many to this user.
    43117: busy(300),
    REPEATED: busy(60),
}


def until_next_day(now: datetime) -> float:
    """Seconds until the quotas of a day begin again: midnight in China, and a minute more."""
    local = now.astimezone(CHINA)
    midnight = (local + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight - local).total_seconds() + 60
