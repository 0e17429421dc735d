"""The meter of the running activity."""

from temporalio import activity
from temporalio.common import MetricMeter


def current_meter() -> MetricMeter:
    """The meter of the activity; one that records nothing where an activity is called as a function."""
    return activity.metric_meter() if activity.in_activity() else MetricMeter.noop
