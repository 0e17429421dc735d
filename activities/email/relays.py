"""Relays: several mail relays that stand in for each other, each behind a pool of its own.

A mail goes to the relay of the lowest priority that does well; equal ones share the load. One that fails, or is far slower
than the others, is passed over for a while and then tried again with one mail. Whatever happens before a relay has been
given the mail sends it on to the next, within the same attempt; what a relay says about the recipient is an answer, and a
mail whose answer was lost may have been accepted: neither goes on.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from itertools import count

import aiosmtplib
import structlog
from temporalio import activity

from activities.email.smtp_pool import AnswerLost, NoRelay, SmtpPool
from activities.email.smtp_replies import (
    ERRORS,
    OURS,
    FailureScope,
    concern_of,
    judge,
)
from bellwire.email.relay_urls import Relay

log = structlog.get_logger("bellwire")

#: Seconds that a relay is passed over at first and at most; each failure when it is tried again doubles them.
PAUSE, MAX_PAUSE = 5.0, 300.0
#: Mails in a row after which an answer that may be about the recipient is taken to be about the relay.
DOUBTS = 3
#: A relay is slow if a mail takes it so many seconds on average; or so many times as long as the fastest, and a second.
SLOW, TIMES_SLOWER, NEVER_SLOW = 15.0, 10.0, 1.0
#: Mails before a relay's pace is judged, and the share of the newest in the average.
ENOUGH, SHARE = 5, 0.2


class _Route:
    """One relay, and how it does."""

    def __init__(self, relay: Relay, *, connections: int, timeout: float) -> None:
        self.name, self.priority = relay.name, relay.priority
        self.most = relay.connections or connections
        # The wait for a connection is here and not in the pool, so that whoever waits can turn to another relay.
        self.slots = asyncio.Semaphore(self.most)
        self.pool = SmtpPool(
            relay.host,
            relay.port,
            security=relay.security,
            username=relay.username,
            password=relay.password.get_secret_value() if relay.password else None,
            verify=relay.verify,
            connections=self.most,
            timeout=timeout,
        )
        #: Mails that it has, or that wait for a connection to it; and when it was last chosen, as a number that grows.
        self.load = self.turn = 0
        #: Seconds that a mail takes it, over the mails so far; the pace is known once they are ENOUGH.
        self.pace, self.paced = 0.0, 0
        self.doubts = 0
        #: Seconds that it is passed over for; 0 while it does well.
        self.pause = self.since = self.until = 0.0
        self.slow = self.on_trial = False

    def ready(self, now: float) -> bool:
        """Whether a mail may be given to it: it does well, or it is to be tried again."""
        return not self.pause or (now >= self.until and not self.on_trial)

    def took(self, seconds: float) -> None:
        self.paced += 1
        self.pace = seconds if self.paced == 1 else self.pace + SHARE * (seconds - self.pace)


class Relays:
    """Sends by the relays, with at most `connections` to each that names no other number.

    `timeout`: seconds for each step of a conversation. `clock`: seconds that only grow. A relay without another beside it is
    never passed over.
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
        self._turns = count(1)

    async def send(self, sender: str, recipient: str, mail: bytes) -> str:
        """Send one mail in one envelope; returns the relay's answer, "250 2.0.0 OK queued as 4F1".

        Raises what `SmtpPool.send` does, of the first relay that failed; NoRelay if none was tried.
        """
        tried: set[_Route] = set()
        failed: BaseException | None = None
        lacking: aiosmtplib.SMTPNotSupported | None = None
        while (route := self._chosen(tried)) is not None:
            route.load += 1
            route.turn = next(self._turns)
            try:
                async with route.slots:
                    if not self._usable(route):
                        continue  # it failed while this mail waited for it
                    tried.add(route)
                    return await self._send(route, sender, recipient, mail)
            except aiosmtplib.SMTPNotSupported as error:
                lacking = error
            except AnswerLost:
                raise
            except ERRORS as error:
                if concern_of(error) is FailureScope.MAIL:
                    raise
                failed = failed or error
            finally:
                route.load -= 1
        if failed is None and lacking is not None and len(tried) == len(self._routes):
            raise lacking
        raise failed or NoRelay

    async def close(self) -> None:
        """Say goodbye on all connections."""
        await asyncio.gather(*(route.pool.close() for route in self._routes))

    def _chosen(self, tried: set[_Route]) -> _Route | None:
        left = [route for route in self._routes if route not in tried and self._usable(route)]
        now = self._clock()
        # A slow relay is better than none.
        best = [route for route in left if route.ready(now)] or left
        return min(best, key=lambda route: (route.priority, route.load / route.most, route.turn), default=None)

    def _usable(self, route: _Route) -> bool:
        return route.slow or route.ready(self._clock())

    async def _send(self, route: _Route, sender: str, recipient: str, mail: bytes) -> str:
        begun = self._clock()
        trial = bool(route.pause) and route.ready(begun)
        route.on_trial |= trial
        result = "broken off"
        try:
            answer = await route.pool.send(sender, recipient, mail)
        except ERRORS as error:
            result = self._judge(route, error, begun, trial=trial)
            raise
        else:
            result = "accepted"
            self._did_well(route, begun, trial=trial)
            return answer
        finally:
            if trial:
                route.on_trial = False
            _count(route, result)

    def _judge(self, route: _Route, error: BaseException, begun: float, *, trial: bool) -> str:
        """Draw the consequences for the relay; returns the mail's result, as metrics name it."""
        concern = concern_of(error)
        if concern is FailureScope.MAIL:
            self._did_well(route, begun, trial=trial)
            return "refused"
        route.doubts += 1
        if concern is FailureScope.RELAY or route.doubts >= DOUBTS or trial:
            meaning, outcome = judge(error)
            self._pass_over(route, outcome.reason, trial=trial, loud=meaning == OURS)
        return "lost" if isinstance(error, AnswerLost) else "failed"

    def _did_well(self, route: _Route, begun: float, *, trial: bool) -> None:
        route.doubts = 0
        if trial:
            route.pace, route.paced = 0.0, 0
        route.took(self._clock() - begun)
        if self._is_slow(route, trial=trial):
            self._pass_over(route, f"slow: {route.pace:.1f} s for a mail", trial=trial, slow=True)
        elif trial:
            log.info("relay.restored", relay=route.name, after_seconds=round(self._clock() - route.since))
            route.pause, route.slow = 0.0, False
            _gauge(route)

    def _is_slow(self, route: _Route, *, trial: bool) -> bool:
        if route.paced < ENOUGH and not trial:
            return False
        others = [
            other.pace for other in self._routes if other is not route and not other.pause and other.paced >= ENOUGH
        ]
        return route.pace > SLOW or (bool(others) and route.pace > max(NEVER_SLOW, TIMES_SLOWER * min(others)))

    def _pass_over(self, route: _Route, reason: str, *, trial: bool, slow: bool = False, loud: bool = False) -> None:
        """Leave it alone for a while. What mails say that were under way when it began changes that no more."""
        if len(self._routes) == 1 or (route.pause and not trial and (slow or not route.slow)):
            return
        now = self._clock()
        if not route.pause:
            route.since = now
        route.pause = min(route.pause * 2 or PAUSE, MAX_PAUSE)
        route.until, route.slow, route.doubts = now + route.pause, slow, 0
        tell = log.error if loud else log.warning
        tell("relay.passed_over", relay=route.name, reason=reason, seconds=route.pause)
        _gauge(route)


def _count(route: _Route, result: str) -> None:
    if activity.in_activity():
        counter = activity.metric_meter().create_counter("bellwire_relay_mails", "Mails given to a relay")
        counter.add(1, {"relay": route.name, "result": result})


def _gauge(route: _Route) -> None:
    if activity.in_activity():
        gauge = activity.metric_meter().create_gauge("bellwire_relay_passed_over", "1 while a relay is passed over")
        gauge.set(int(route.pause > 0), {"relay": route.name})
