"""Reports what became of published events: one metric for all, and a log line for each that another workflow
delivers, or whose tenant is unknown."""

from collections import Counter
from collections.abc import Mapping

import structlog

from activities.metrics import current_meter
from bellwire.contract import EventSummary, PublishResult, ResolveInput

log = structlog.get_logger("bellwire")


def report_results(request: ResolveInput, summaries: Mapping[str, EventSummary]) -> None:
    """Count the events of a publication by result, and log those that were published before.

    The operational event `bellwire.event.conflict` is added by the registry, in the transaction that finds the conflict.
    """
    if not summaries:
        return
    counter = current_meter().create_counter(
        "bellwire_events_published", "Published events, by whether this publication delivers them"
    )
    for result, number in Counter(str(summary.result) for summary in summaries.values()).items():
        counter.add(number, {"result": result})
    for event in request.events:
        summary = summaries[event.key]
        fields = {
            "event_source": event.source,
            "event_id": event.id,
            "event_type": event.type,
            "tenant": event.tenant,
            "workflow": request.workflow_id,
            "published_by": summary.workflow_id,
        }
        if summary.result is PublishResult.CONFLICT:
            log.warning("event.conflicted", **fields)
        elif summary.result is PublishResult.DUPLICATE:
            log.info("event.duplicated", **fields)
        elif summary.result is PublishResult.REFUSED:
            log.warning("event.refused", **fields)
        elif summary.unknown_tenant:
            log.warning("event.tenant_unknown", **fields)
