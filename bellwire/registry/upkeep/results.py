"""Results of maintenance: what was purged, deleted or erased, or would be in a dry run."""

from dataclasses import dataclass, field, replace

from bellwire.registry.upkeep.purging import Rows


@dataclass(frozen=True, slots=True)
class Purged:
    """Rows that were purged."""

    events: int = 0
    deliveries: int = 0
    attempts: int = 0
    #: Old events that were kept: one of their deliveries is unsettled, or their workflow is open.
    kept: int = 0

    def plus(self, rows: Rows) -> "Purged":
        return replace(
            self,
            events=self.events + rows.events,
            deliveries=self.deliveries + rows.deliveries,
            attempts=self.attempts + rows.attempts,
        )


@dataclass(frozen=True, slots=True)
class Deleted:
    """A deleted subscription. One with `unsettled` deliveries is kept, unless they were cancelled."""

    gone: bool
    deliveries: int = 0
    attempts: int = 0
    unsettled: int = 0


@dataclass(slots=True)
class Erased:
    """What an erasure changed."""

    #: Ids of subscriptions that have no recipients left, and of those that still send to others.
    emptied: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    #: Deliveries and attempts that held data of the recipient.
    deliveries: int = 0
    attempts: int = 0
    #: Deliveries that were cancelled, and the workflows that own them until they are due next.
    cancelled: int = 0
    workflow_ids: set[str] = field(default_factory=set)
    events: int = 0
    suppressions: int = 0
    #: Deliveries that were not settled; attempts at them may have been in progress.
    unsettled: int = 0
