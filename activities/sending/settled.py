"""The metric of deliveries that have settled, however they did."""

from activities.metrics import current_meter
from bellwire.deliveries import DeliveryState
from bellwire.targets import Channel


def count_settled(channel: Channel, state: DeliveryState, number: int = 1) -> None:
    """Count deliveries that this process has settled."""
    counter = current_meter().create_counter(
        "bellwire_deliveries_settled", "Deliveries that have settled, by their state"
    )
    counter.add(number, {"channel": str(channel), "state": str(state)})
