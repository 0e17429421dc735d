"""Every timeout and schedule, named.

Two kinds of trouble, two kinds of retry: a receiver that refuses is met again by its delivery's schedule, over days; a fault of
ours (database down, worker killed) is met by the activity's own retries, over seconds, without end.
"""

from datetime import timedelta
from typing import Any

from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityCancellationType

from bellwire.subscriptions import Channel

MINUTE, HOUR = 60.0, 3600.0

#: Seconds to wait before the second, third, … attempt, for subscriptions that name no schedule.
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
    # 9 attempts over 49 h 21 min; greylisting servers want at least 5 minutes (RFC 6647 §5), RFC 5321 §4.5.4.1 days.
    Channel.EMAIL: (1 * MINUTE, 5 * MINUTE, 15 * MINUTE, 1 * HOUR, 3 * HOUR, 6 * HOUR, 15 * HOUR, 24 * HOUR),
    # 6 attempts over 5 h 13 min: a text message is of little use after that.
    Channel.SMS: (30.0, 2 * MINUTE, 10 * MINUTE, 1 * HOUR, 4 * HOUR),
}

#: A wait is made longer by up to this part of itself, at random, so that receivers do not meet their whole backlog at once.
#: Never shorter; and a time that the receiver stated is kept as it is.
JITTER = 0.1

#: Deliveries due within this many seconds of the first, or within this part of the time until it, go together.
SLACK_SECONDS, SLACK_PART = 1.0, 0.02

#: A first round of at most this many deliveries is made within the workflow task, over these channels. An SMS costs money, so
#: it waits for its own activity, which announces it first.
INLINE_LIMIT, INLINE_CHANNELS = 20, frozenset({Channel.EMAIL, Channel.WEBHOOK})

#: Deliveries over a rate-limited channel that one run has asked for at the same time, each by an activity of its own. The rest
#: stays due, so that the run's history does not outgrow its bounds in one go.
MAX_CONCURRENT_LIMITED = 200

#: Dispatch children of one Notify that are in their first round at the same time.
OPEN_PAGES = 20

OUR_FAULTS = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=30),
    maximum_attempts=0,
)

#: Options of the local activities on the registry: short statements; retried within the workflow task for up to a minute a time.
REGISTRY: dict[str, Any] = {"start_to_close_timeout": timedelta(seconds=60), "retry_policy": OUR_FAULTS}

#: Options of the send activities. A chunk of 200 with 50 at a time and 30 s for each takes 2 minutes at worst.
SENDING: dict[str, Any] = {
    "start_to_close_timeout": timedelta(minutes=10),
    # A worker that was killed is missed after this long, and another takes over.
    "heartbeat_timeout": timedelta(seconds=15),
    "retry_policy": OUR_FAULTS,
    # What was in flight at a cancel is recorded before the workflow settles the rest.
    "cancellation_type": ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
}

#: A look-up answers a waiting client; better a clear failure than a long wait.
LOOKUP_OPTIONS: dict[str, Any] = {
    "start_to_close_timeout": timedelta(seconds=10),
    "retry_policy": RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_attempts=5),
}

#: A trial is one attempt, and somebody waits for it: an SMS is not repeated, and a channel without a worker is told soon.
TEST_SENDING: dict[str, Any] = {
    "schedule_to_start_timeout": timedelta(seconds=15),
    "start_to_close_timeout": timedelta(minutes=1),
    "retry_policy": RetryPolicy(maximum_attempts=1),
}
