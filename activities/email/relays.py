"""Relays: sends mails by several relays, with failover and load sharing.

A mail goes to the relay with the lowest priority whose circuit is closed; relays of the same priority share the load. If a
relay fails before it has the mail, the same attempt continues with the next relay. A reply about the recipient is final for
the attempt. So is a lost reply, since the relay may have accepted the mail.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from itertools import count

import aiosmtplib
from temporalio import activity

from activities.email.relay_circuit import FAILURE_THRESHOLD, RelayCircuit
from activities.email.smtp_pool import NoRelayAvailable, ReplyLost, SmtpPool
from activities.email.smtp_replies import ERRORS, FailureScope, Meaning, classify_smtp_error, failure_scope
from bellwire.email.relay_urls import Relay


class _Route:
    """One relay with its connections and its circuit."""

    def __init__(self, relay: Relay, *, connections: int, timeout: float) -> None:
        self.priority = relay.priority
        self.circuit = RelayCircuit(relay.name)
        self.connections = relay.connections or connections
        # Mails wait for a connection here and not in the pool, so that they can change to another relay.
        self.slots = asyncio.Semaphore(self.connections)
        self.pool = SmtpPool(
            relay.host,
            relay.port,
            security=relay.security,
            username=relay.username,
            password=relay.password.get_secret_value() if relay.password else None,
            verify=relay.verify,
            connections=self.connections,
            timeout=timeout,
        )
        #: Mails that the relay is sending or that wait for a connection to it.
        self.load = 0
        #: Grows with each choice, so that relays of equal load take turns.
        self.last_chosen = 0


class Relays:
    """Sends by `relays`. `connections`: the limit for each relay that does not set its own.

    `timeout`: seconds for each step of an SMTP session. `clock`: a monotonic clock in seconds. The circuit of a single relay
    never opens.
    """

    def __init__(
        self,
        relays: Sequence[Relay],
        *,
        connections: int = 10,
        timeout: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._routes = [_Route(relay, connections=connections, timeout=timeout) for relay in relays]
        self._clock = clock
        self._choices = count(1)

    async def send(self, sender: str, recipient: str, mail: bytes) -> str:
        """Send one mail in one envelope and return the relay's reply, such as "250 2.0.0 OK queued as 4F1".

        Raises what `SmtpPool.send` raises, for the first relay that failed; NoRelayAvailable if no relay was tried.
        """
        tried: set[_Route] = set()
        failed: BaseException | None = None
        unsupported: aiosmtplib.SMTPNotSupported | None = None
        while (route := self._choose(tried)) is not None:
            route.load += 1
            route.last_chosen = next(self._choices)
            try:
                async with route.slots:
                    if not self._usable(route):
                        continue  # its circuit opened while this mail waited for a connection
                    tried.add(route)
                    return await self._send(route, sender, recipient, mail)
            except aiosmtplib.SMTPNotSupported as error:
                unsupported = error
            except ReplyLost:
                raise
            except ERRORS as error:
                if failure_scope(error) is FailureScope.MAIL:
                    raise
                failed = failed or error
            finally:
                route.load -= 1
        if failed is None and unsupported is not None and len(tried) == len(self._routes):
            raise unsupported
        raise failed or NoRelayAvailable

    async def close(self) -> None:
        """Close all idle connections with QUIT."""
        await asyncio.gather(*(route.pool.close() for route in self._routes))

    def _choose(self, tried: set[_Route]) -> _Route | None:
        left = [route for route in self._routes if route not in tried and self._usable(route)]
        now = self._clock()
        # A slow relay is used if there is no other.
        best = [route for route in left if route.circuit.allows(now)] or left
        return min(
            best, key=lambda route: (route.priority, route.load / route.connections, route.last_chosen), default=None
        )

    def _usable(self, route: _Route) -> bool:
        return route.circuit.slow or route.circuit.allows(self._clock())

    async def _send(self, route: _Route, sender: str, recipient: str, mail: bytes) -> str:
        started = self._clock()
        probe = route.circuit.begin(started)
        result = "cancelled"
        try:
            reply = await route.pool.send(sender, recipient, mail)
        except ERRORS as error:
            result = self._record_failure(route, error, started, probe=probe)
            raise
        else:
            result = "accepted"
            self._record_success(route, started, probe=probe)
            return reply
        finally:
            route.circuit.end(probe=probe)
            _count(route.circuit.relay, result)

    def _record_failure(self, route: _Route, error: BaseException, started: float, *, probe: bool) -> str:
        """Open the circuit if the relay failed. Returns the mail's result as the metric names it."""
        scope = failure_scope(error)
        if scope is FailureScope.MAIL:
            self._record_success(route, started, probe=probe)
            return "refused"
        circuit = route.circuit
        circuit.failures += 1
        if len(self._routes) > 1 and (scope is FailureScope.RELAY or circuit.failures >= FAILURE_THRESHOLD or probe):
            meaning, outcome = classify_smtp_error(error)
            circuit.open(outcome.reason, self._clock(), probe=probe, operator=meaning is Meaning.OPERATOR)
        return "reply_lost" if isinstance(error, ReplyLost) else "failed"

    def _record_success(self, route: _Route, started: float, *, probe: bool) -> None:
        """The relay replied: record its latency, and close or open its circuit by it."""
        circuit, now = route.circuit, self._clock()
        circuit.failures = 0
        circuit.record_latency(now - started, probe=probe)
        others = (other.circuit for other in self._routes if other is not route)
        if circuit.is_slow(others, probe=probe):
            if len(self._routes) > 1:
                circuit.open(f"slow: {circuit.ewma_latency:.1f} s for a mail", now, probe=probe, slow=True)
        elif probe:
            circuit.close(now)


def _count(relay: str, result: str) -> None:
    if activity.in_activity():
        counter = activity.metric_meter().create_counter("bellwire_relay_mails", "Mails given to a relay")
        counter.add(1, {"relay": relay, "result": result})
