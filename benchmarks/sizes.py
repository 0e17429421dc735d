"""The sizes of the benchmarks."""

from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The default sizes keep all benchmarks together under 30 minutes on two processors."""

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
    storm: int = 20_000
    #: Subscribers of `scale` and `history`, ascending; from the second on, each is compared with the one before.
    scales: tuple[int, ...] = (1_000, 10_000, 100_000)
    #: Subscribers of the one event, and events of the stream, of `slow`.
    slow: int = 1_000
    stream: int = 60
    #: Seconds that the quiet tenant of `fair` publishes each time, alone and beside the loud one.
    fair: float = 8.0
    #: Publications of the loud one by which it is measured what the system delivers.
    fair_tried: int = 100
    #: Seconds that the healthy tenant of `tenants` publishes each time, alone and beside the hostile one, and how many times.
    tenants: float = 10.0
    tenants_repeats: int = 2
    #: Maximum subscriptions of the hostile one, and events of its publications.
    tenants_attack: int = 1_000
    #: Subscribers of the one event, and events of the publications, of one measurement of `processes`.
    processes: int = 5_000
    #: Events of one measurement of `concurrent` and `crowd`, and of `sparse`.
    concurrent: int = 2_000
    sparse: int = 500
    #: Events of one measurement of `outbox`.
    outbox: int = 4_000
    #: Subscriptions of each dialect of `filters`.
    filters: int = 10_000

    def huge(self) -> Self:
        """With an event of 1,000,000 subscribers."""
        return replace(self, scales=(*self.scales, 1_000_000))

    @classmethod
    def tiny(cls) -> Self:
        """Small enough for a test that each benchmark runs; the figures mean nothing."""
        return cls(
            repeats=1,
            fanout=20,
            bulk=20,
            single=5,
            latency=2,
            storm=20,
            scales=(10, 20, 40),
            slow=40,
            stream=3,
            fair=2.0,
            fair_tried=20,
            tenants=0.5,
            tenants_repeats=1,
            tenants_attack=4,
            processes=20,
            concurrent=20,
            sparse=5,
            outbox=20,
            filters=12,
        )
