"""Every timeout and schedule, by name.

There are two kinds of retry. If a receiver refuses a delivery, the schedule of the delivery attempts it again, over days. If the
platform fails (database down, worker killed), the retry policy of the activity runs it again, over seconds, without limit.
"""

from datetime import timedelta
from typing import Any

from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityCancellationType

from bellwire.subscriptions import Channel

MINUTE, HOUR = 60.0, 3600.0

#: Seconds before the second, third, … attempt, for subscriptions without a schedule.
SCHEDULES: dict[Channel, tuple[float, ...]] = {
    # 10 attempts over 75 h 35 min: the example schedule of Standard Webhooks 1.0.
    Channel.WEBHOOK: (
        5.0,
        5 * MINUTE,
        30 * MINUTE,
        2 * HOUR,
        5 * HOUR,
        10 * HOUR,
        14 * HOUR,
        20 * HOUR,
        24 * HOUR,
    ),
    # 9 attempts over 49 h 21 min. Greylisting needs at least 5 minutes (RFC 6647 §5); RFC 5321 §4.5.4.1 asks for days.
    Channel.EMAIL: (1 * MINUTE, 5 * MINUTE, 15 * MINUTE, 1 * HOUR, 3 * HOUR, 6 * HOUR, 15 * HOUR, 24 * HOUR),
    # 6 attempts over 5 h 13 min: a text message is of little use after that.
    Channel.SMS: (30.0, 2 * MINUTE, 10 * MINUTE, 1 * HOUR, 4 * HOUR),
}

#: A delay is lengthened by a random part of itself, up to this fraction, so that a receiver does not get its whole backlog at
#: once. A delay is never shortened, and one from Retry-After is not changed.
JITTER = 0.1

#: Deliveries are attempted together if they are due within this many seconds of the first one, or within this fraction of the
#: time until then, whichever is longer.
SLACK_SECONDS, SLACK_FRACTION = 1.0, 0.02

#: A first round of up to this many deliveries, over these channels, is sent within the workflow task. SMS is left out because
#: it costs money: its activity records an intent before it sends.
INLINE_LIMIT, INLINE_CHANNELS = 20, frozenset({Channel.EMAIL, Channel.WEBHOOK})

#: Maximum pending activities of one workflow over rate-limited channels, where each delivery has its own activity. The rest
#: stays due, so that the history grows gradually.
MAX_CONCURRENT_LIMITED = 200

#: Maximum Dispatch children of one Notify that are in their first round.
MAX_PAGES_IN_FIRST_ROUND = 20

#: Retries of activities, without limit: the fault is the platform's, not the receiver's.
PLATFORM_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=30),
    maximum_attempts=0,
)

#: Options of the local activities on the registry, which run short statements.
REGISTRY_OPTIONS: dict[str, Any] = {"start_to_close_timeout": timedelta(seconds=60), "retry_policy": PLATFORM_RETRY}

#: Options of the send activities. A chunk of 200, with 50 concurrent attempts of up to 30 s, takes at most 2 minutes.
SEND_OPTIONS: dict[str, Any] = {
    "start_to_close_timeout": timedelta(minutes=10),
    # A killed worker is detected after this time, and another worker runs the activity.
    "heartbeat_timeout": timedelta(seconds=15),
    "retry_policy": PLATFORM_RETRY,
    # On a cancel, the activity records its attempts in flight before the workflow settles the rest.
    "cancellation_type": ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
}

#: Options of a lookup. A client waits for it, so it fails soon.
LOOKUP_OPTIONS: dict[str, Any] = {
    "start_to_close_timeout": timedelta(seconds=10),
    "retry_policy": RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_attempts=5),
}

#: Options of a test send. A person waits for it: one attempt only, and a channel without a worker fails soon.
TEST_SEND_OPTIONS: dict[str, Any] = {
    "schedule_to_start_timeout": timedelta(seconds=15),
    "start_to_close_timeout": timedelta(minutes=1),
    "retry_policy": RetryPolicy(maximum_attempts=1),
}
