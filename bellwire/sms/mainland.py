"""What the SMS providers of mainland China call back with: paths, and codes of carriers for numbers that do not exist."""

from datetime import timedelta, timezone

ALIYUN_CALLBACKS, TENCENT_CALLBACKS = "/callbacks/sms/aliyun", "/callbacks/sms/tencent"

#: The time of both providers. China has no daylight saving.
CHINA = timezone(timedelta(hours=8))

#: The carriers' codes for a number that does not exist. Most codes of a failure (UNDELIV, other MK:…) also stand for a phone
#: that is off or barred, which says nothing about the number.
NUMBERS_GONE = frozenset({"MK:0001", "MN:0001", "CB:0001", "CB:0053", "DB:0101"})
