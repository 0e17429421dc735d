"""Every timeout and schedule, by name.

There are two kinds of retry. If a receiver refuses a delivery, the schedule of the delivery attempts it again, over days. If the
platform fails (database down, worker killed), the retry policy of the activity runs it again, over seconds, without limit.
"""

from datetime import timedelta
from typing import Any

from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityCancellationType

from bellwire.targets import SPECS

MINUTE, HOUR = 60.0, 3600.0

#: Seconds before the second, third, … attempt, for subscriptions without a schedule.
SCHEDULES = {channel: spec.schedule for channel, spec in SPECS.items()}

#: A delay is lengthened by a random part of itself, up to this fraction, so that a receiver does not get its whole backlog at
#: once. A delay is never shortened, and one from Retry-After is not changed.
JITTER = 0.1

#: Deliveries are attempted together if they are due within this many seconds of the first one, or within this fraction of the
#: time until then, whichever is longer.
SLACK_SECONDS, SLACK_FRACTION = 1.0, 0.02

#: A first round of up to this many deliveries is sent within the workflow task, over the channels whose spec allows it.
INLINE_LIMIT, INLINE_CHANNELS = 20, frozenset(channel for channel, spec in SPECS.items() if spec.inline)

#: Maximum pending activities of one workflow over rate-limited channels, where each delivery has its own activity. The rest
#: stays due, so that the history grows gradually.
MAX_CONCURRENT_LIMITED = 200

#: Maximum Dispatch children of one Notify that are in their first round.
MAX_PAGES_IN_FIRST_ROUND = 20

#: Priority of the batches of a replay, from 1 to 5: live events have 3, and go first.
REPLAY_PRIORITY = 5

#: How long a paused replay waits before it looks at the registry, should the signal of its operator be lost.
PAUSED_REPLAY_POLL = timedelta(minutes=10)

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

#: Options of a call of handlers, on the task queue of their service. It waits while no process of the service runs; then the
#: workflow looks whether its deliveries are still wanted, and calls again.
CALL_OPTIONS: dict[str, Any] = {
    "schedule_to_start_timeout": timedelta(minutes=10),
    # A process begins no more of a call's functions after 5 minutes, and a function takes at most an hour.
    "start_to_close_timeout": timedelta(minutes=70),
    # A killed process is detected after this time, and another one makes the calls that had not ended.
    "heartbeat_timeout": timedelta(seconds=15),
    "retry_policy": PLATFORM_RETRY,
    # On a cancel, the functions that run end, and what they came to is recorded.
    "cancellation_type": ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
}

#: Seconds until a delivery that a process of a service has handed back is called again.
RETURNED_DELAY = 1.0
#: The same if the process does not have the handler: an older version of the service, or one without it.
UNKNOWN_HANDLER_DELAY = 30.0

#: Options of a lookup. A client waits for it, so it fails soon.
LOOKUP_OPTIONS: dict[str, Any] = {
    "start_to_close_timeout": timedelta(seconds=10),
    "retry_policy": RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_attempts=5),
}

#: Options of recording a tick. One that cannot be recorded within half a minute is left: while a tick is open, Temporal skips
#: the next one.
TICK_RECORD_OPTIONS: dict[str, Any] = {
    "start_to_close_timeout": timedelta(seconds=5),
    "retry_policy": RetryPolicy(initial_interval=timedelta(milliseconds=500), maximum_attempts=4),
}

#: Seconds for which one activity waits for an event, and the options of that activity. Its answer takes 10 s more at most.
FOLLOW_SECONDS = 10.0
FOLLOW_OPTIONS: dict[str, Any] = {"start_to_close_timeout": timedelta(seconds=60), "retry_policy": PLATFORM_RETRY}

#: Seconds between two of them where no attempt is due: the first pause, and the longest. Each is twice the one before.
FOLLOW_PAUSES = (5.0, 600.0)

#: Options of a test send. A person waits for it: one attempt only, and a channel without a worker fails soon.
TEST_SEND_OPTIONS: dict[str, Any] = {
    "schedule_to_start_timeout": timedelta(seconds=15),
    "start_to_close_timeout": timedelta(minutes=1),
    "retry_policy": RetryPolicy(maximum_attempts=1),
}

#: Seconds before the second, third, … attempt to take messages back from a provider that is busy. WeCom blocks for a minute.
RECALL_DELAYS = (2.0, 10.0, 65.0)
#: The longest wait between two of them, whatever the provider asks for, in seconds: a person waits.
MAX_RECALL_WAIT = 120.0
#: Maximum pending activities of one recall.
MAX_CONCURRENT_RECALLS = 10
#: Options of the activities of a recall on the registry. The first waits some seconds for attempts in flight.
RECALL_REGISTRY_OPTIONS: dict[str, Any] = {
    "start_to_close_timeout": timedelta(seconds=60),
    "retry_policy": PLATFORM_RETRY,
}
#: Options of one such attempt, at up to 50 messages.
RECALL_OPTIONS: dict[str, Any] = {
    "schedule_to_start_timeout": timedelta(minutes=1),
    "start_to_close_timeout": timedelta(minutes=6),
    "heartbeat_timeout": timedelta(seconds=15),
    # To take a message back twice does no harm.
    "retry_policy": RetryPolicy(initial_interval=timedelta(seconds=1), maximum_attempts=5),
}
