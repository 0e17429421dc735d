"""RelayCircuit: the circuit breaker of one mail relay.

The circuit is closed while the relay works. It opens when the relay fails or is slow, and the relay then gets no mail for a
while. After that the circuit is half open: one mail, the probe, decides whether it closes or opens again for longer.
"""

from collections.abc import Iterable

import structlog
from temporalio import activity

log = structlog.get_logger("bellwire")

#: Seconds that a circuit is open at first and at most. Each failed probe doubles them.
OPEN_SECONDS, MAX_OPEN_SECONDS = 5.0, 300.0
#: Consecutive failures that may concern the recipient after which the circuit opens.
FAILURE_THRESHOLD = 3
#: A relay is slow above MAX_LATENCY seconds a mail, or above MAX_LATENCY_RATIO times the latency of the fastest relay. A
#: latency up to TOLERATED_LATENCY seconds is never slow.
MAX_LATENCY, MAX_LATENCY_RATIO, TOLERATED_LATENCY = 15.0, 10.0, 1.0
#: Mails after which the average latency counts, and the weight of the newest mail in it.
MIN_SAMPLES, EWMA_WEIGHT = 5, 0.2


class RelayCircuit:
    """The state of one relay. Times are seconds of a monotonic clock."""

    def __init__(self, relay: str) -> None:
        self.relay = relay
        #: Consecutive failures.
        self.failures = 0
        #: Exponentially weighted average of the seconds that a mail takes, over `samples` mails.
        self.ewma_latency, self.samples = 0.0, 0
        #: Seconds for which the circuit opened last; 0 while it is closed.
        self._open_for = 0.0
        self._opened_at = self._open_until = 0.0
        #: Whether it opened because the relay was slow.
        self.slow = False
        #: Whether the probe is under way.
        self._probing = False

    @property
    def is_open(self) -> bool:
        """Whether the circuit is open or half open."""
        return self._open_for > 0

    def allows(self, now: float) -> bool:
        """Whether the relay may get a mail: the circuit is closed, or half open without a probe under way."""
        return not self._open_for or (now >= self._open_until and not self._probing)

    def begin(self, now: float) -> bool:
        """Whether the mail that starts now is the probe. Call `end` after it."""
        probe = self.is_open and self.allows(now)
        self._probing |= probe
        return probe

    def end(self, *, probe: bool) -> None:
        if probe:
            self._probing = False

    def record_latency(self, seconds: float, *, probe: bool) -> None:
        """Add a mail to the average latency. A probe starts a new average."""
        self.samples = 1 if probe else self.samples + 1
        self.ewma_latency = (
            seconds if self.samples == 1 else self.ewma_latency + EWMA_WEIGHT * (seconds - self.ewma_latency)
        )

    def is_slow(self, others: Iterable["RelayCircuit"], *, probe: bool) -> bool:
        """Whether the latency is too high, absolutely or beside the closed circuits among `others`."""
        if self.samples < MIN_SAMPLES and not probe:
            return False
        compared = [each.ewma_latency for each in others if not each.is_open and each.samples >= MIN_SAMPLES]
        limit = max(TOLERATED_LATENCY, MAX_LATENCY_RATIO * min(compared)) if compared else MAX_LATENCY
        return self.ewma_latency > min(limit, MAX_LATENCY)

    def open(self, reason: str, now: float, *, probe: bool, slow: bool = False, operator: bool = False) -> None:
        """Open the circuit, or open it for longer after a failed probe. `operator`: the operator has to fix the cause.

        Mails that were under way when it opened do not extend it.
        """
        if self.is_open and not probe and (slow or not self.slow):
            return
        if not self.is_open:
            self._opened_at = now
        self._open_for = min(self._open_for * 2 or OPEN_SECONDS, MAX_OPEN_SECONDS)
        self._open_until, self.slow, self.failures = now + self._open_for, slow, 0
        write = log.error if operator else log.warning
        write("relay.circuit_opened", relay=self.relay, reason=reason, seconds=self._open_for)
        self._report()

    def close(self, now: float) -> None:
        """Close the circuit after a probe that succeeded."""
        log.info("relay.circuit_closed", relay=self.relay, after_seconds=round(now - self._opened_at))
        self._open_for, self.slow = 0.0, False
        self._report()

    def _report(self) -> None:
        if activity.in_activity():
            gauge = activity.metric_meter().create_gauge(
                "bellwire_relay_circuit_open", "1 while the circuit of a relay is open"
            )
            gauge.set(int(self.is_open), {"relay": self.relay})
