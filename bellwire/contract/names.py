"""Names and limits that workflows, activities and clients agree on: task queues, workflow types, search attributes, sizes."""

from enum import StrEnum
from typing import Any

from temporalio.common import SearchAttributeKey

from bellwire.targets import SPECS, Channel

#: Task queue of workflows and of the activities on the registry.
QUEUE = "bellwire"

# Workflow types, as strings, so that clients start workflows without importing them.
NOTIFY = "Notify"
DISPATCH = "Dispatch"
LOOKUP = "Lookup"
TEST_SEND = "TestSend"
RECALL = "Recall"
REPLAY = "Replay"
TICK = "Tick"
WAIT_FOR_EVENT = "WaitForEvent"
REGISTER_HANDLERS = "RegisterHandlers"

#: The activity that services register for their handlers.
CALL_HANDLERS = "call_handlers"

# Search attributes, registered by `python -m starter setup`.
TENANT = SearchAttributeKey.for_keyword("BellwireTenant")
EVENT_TYPE = SearchAttributeKey.for_keyword_list("BellwireEventType")
EVENT_ID = SearchAttributeKey.for_keyword_list("BellwireEventId")
UNSETTLED = SearchAttributeKey.for_int("BellwireUnsettled")
WAITING = SearchAttributeKey.for_keyword_list("BellwireWaiting")
FAILED = SearchAttributeKey.for_int("BellwireFailed")
#: Words separated by spaces. A KeywordList would suit better, but a namespace on SQL has only three of them; in a Text,
#: `BellwireOutcome = 'rejected'` finds the word as well.
OUTCOME = SearchAttributeKey.for_text("BellwireOutcome")
SEARCH_ATTRIBUTES: tuple[SearchAttributeKey[Any], ...] = (
    TENANT,
    EVENT_TYPE,
    EVENT_ID,
    UNSETTLED,
    WAITING,
    FAILED,
    OUTCOME,
)

#: Search attribute of what a Schedule of Temporal's starts: the time that it was started for. The server has it.
SCHEDULED_AT = SearchAttributeKey.for_datetime("TemporalScheduledStartTime")

#: Memo field of a Notify: the digest of the publication it was started with.
DIGEST_MEMO = "bellwire_digest"
#: Memo field of a Notify that is to start later: source and id of its event. The registry does not have it before.
EVENT_MEMO = "bellwire_event"

#: Maximum failed deliveries that a result lists; its counts are complete.
MAX_FAILED = 100
#: Maximum deliveries in one send activity.
CHUNK_SIZE = 200
#: Maximum deliveries that one workflow runs itself.
PAGE_SIZE = 1_000
#: Maximum Dispatch children of one Notify; a Notify below it takes the remaining subscriptions.
MAX_PAGES = 1_000
#: Maximum events in one publication, and their maximum size as JSON.
MAX_EVENTS = 100
MAX_PUBLICATION_BYTES = 1_000_000

# `type` strings of ApplicationErrors. Temporal matches them as strings.
EVENT_NOT_FOUND = "EventNotFound"
DELIVERY_NOT_FOUND = "DeliveryNotFound"
SUBSCRIPTION_NOT_FOUND = "SubscriptionNotFound"
NOT_UNSETTLED = "NotUnsettled"


#: The reason of a delivery that was cancelled since a later event replaced it before it was sent.
REPLACED = "replaced"


class HoldReason(StrEnum):
    """Why a delivery is held without an attempt. Each one is the reason of a gate in activities/sending/throttling.py."""

    #: The rate limit of its subscription, or the rate that its endpoint consented to, is used up.
    RATE_LIMIT = "rate limit"
    #: Its endpoint was overloaded a short time ago.
    THROTTLED = "throttled"
    #: The message that it replaces is being sent.
    REPLACED_IN_FLIGHT = "replaced message in flight"


def channel_queue(channel: Channel) -> str:
    """The task queue of a channel's send activity: each fleet scales, is rate-limited and fails alone."""
    return SPECS[channel].queue
