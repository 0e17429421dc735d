"""OutboxStore: the table `bellwire_outbox` in a service's database, as the relay reads it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from starter.operations.problems import Kind, OperationError

#: Bytes of events that one read returns, at most, beside its first row.
MAX_READ_BYTES = 16 * 1024 * 1024
#: Refused rows that are listed.
MAX_SHOWN = 1_000


class OutboxUnavailable(OperationError):
    """The outbox database cannot be reached; check BELLWIRE_OUTBOX_URL and that it runs."""

    kind = Kind.UNAVAILABLE


@dataclass(frozen=True, slots=True)
class WaitingRow:
    """An event that is to be published."""

    id: int
    event_id: str
    #: Rows with the same value are published in the order of their ids: the subject, or for an event without one its id.
    order: str
    #: The event in the CloudEvents JSON format.
    event: str
    #: When it is to be delivered, as an RFC 3339 timestamp; None: at once.
    deliver_at: str | None


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """An event that Bellwire refused, and why."""

    id: int
    source: str
    event_id: str
    error: str
    refused_at: datetime


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is in the table."""

    waiting: int
    #: Seconds since the oldest waiting row was inserted; 0 without one.
    oldest_age: float
    refused: int


class OutboxStore(ABC):
    """One connection to the table. Methods raise OutboxUnavailable; after that, `claim` connects again."""

    @abstractmethod
    async def claim(self) -> bool:
        """Connect if needed, and take this relay's share of the table; whether it has any. Call it before each read."""

    @abstractmethod
    async def waiting(self, limit: int) -> Sequence[WaitingRow]:
        """The oldest waiting rows of this relay's share, up to `limit` and MAX_READ_BYTES, in the order of their ids."""

    @abstractmethod
    async def settle(self, published: Sequence[int], refused: Mapping[int, str]) -> None:
        """Delete the rows that are published, and mark the refused ones with why."""

    @abstractmethod
    async def backlog(self) -> Backlog:
        """Count the rows of the whole table."""

    @abstractmethod
    async def refused(self) -> Sequence[RefusedRow]:
        """The refused rows, oldest first, up to MAX_SHOWN."""

    @abstractmethod
    async def retry_refused(self) -> int:
        """Let all refused rows wait again; how many they are."""

    @abstractmethod
    async def keep_alive(self) -> None:
        """Tell the database that this relay works, while it waits for Temporal."""

    @abstractmethod
    async def close(self) -> None:
        """Give the share up, and disconnect."""
