"""How much each benchmark does."""

from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The default sizes keep all benchmarks together under eight minutes on two processors."""

    #: Pairs of measurements that are compared.
    repeats: int = 5
    #: Subscribers of the one event of `fanout`.
    fanout: int = 5_000
    #: Events of one measurement of `bulk`.
    bulk: int = 2_000
    #: Events, and empty workflows, of one measurement of `single`.
    single: int = 300
    #: Pairs of lone events of `latency`.
    latency: int = 60
    #: Deliveries of `storm`.
    storm: int = 5_000
    #: Subscribers of `scale` and `history`, ascending; the last two are compared.
    scales: tuple[int, ...] = (1_000, 10_000)
    #: Subscribers of the one event, and events of the stream, of `slow`.
    slow: int = 1_000
    stream: int = 60

    def large(self) -> Self:
        """With a storm of 20,000 deliveries and an event of 100,000."""
        return replace(self, storm=20_000, scales=(*self.scales, 100_000))

    @classmethod
    def tiny(cls) -> Self:
        """Small enough for a test that each benchmark runs; the figures mean nothing."""
        return cls(repeats=1, fanout=20, bulk=20, single=5, latency=2, storm=20, scales=(10, 20), slow=40, stream=3)
