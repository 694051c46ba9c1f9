"""Queues of work: what streams were given and have not done, and the orders in which a device may do it."""

import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


class Ticket:
    """A place in a stream, as an event that is recorded remembers it."""

    def __init__(self, stream: object) -> None:
        self.stream = stream
        self.is_reached = False
        self.time = 0.0


@dataclass
class _Entry:
    """One thing of a queue.

    Attributes:
        do: the work.
        after: what another stream has to reach before; None where the work waits for nothing.
    """

    do: Callable[[], None]
    after: Ticket | None = None

    def can_begin(self) -> bool:
        return self.after is None or self.after.is_reached


class Streams:
    """What every stream still has to do.

    A device does the work of one stream in order, and that of several in any order that events allow. So does this one
    once `in_any_order` was called: as late as possible, when somebody waits for it; or as soon as it may; or in
    between, one stream far ahead of the others. Until then everything is done as it is given.
    """

    def __init__(self) -> None:
        self._queues: dict[object, deque[_Entry]] = {}
        self._chance: random.Random | None = None
        self._eagerness = 1.0
        self._weights: dict[object, float] = {}

    def in_any_order(self, seed: int) -> None:
        """From now on in an order of this number: 0 as late as possible, 1 as soon as may be, others mixed."""
        self._chance = random.Random(seed)
        self._eagerness = (0.0, 1.0)[seed] if seed < 2 else self._chance.choice((0.3, 0.6, 0.9))

    def give(self, stream: object, do: Callable[[], None], after: Ticket | None = None) -> None:
        """Add something to what a stream has to do."""
        self._queues.setdefault(stream, deque()).append(_Entry(do, after))
        if self._chance is None:
            self.finish(stream)
        else:
            self._wander()

    def record(self, stream: object) -> Ticket:
        """A ticket that is reached when everything that the stream was given is done."""
        ticket = Ticket(stream)

        def reach() -> None:
            ticket.is_reached, ticket.time = True, time.perf_counter()

        self.give(stream, reach)
        return ticket

    def finish(self, stream: object, until: Ticket | None = None) -> None:
        """Do what a stream has to do, up to a ticket, and of the others only what it waits for."""
        queue = self._queues.get(stream, deque())
        while queue and not (until is not None and until.is_reached):
            after = queue[0].after
            if after is None or after.is_reached:
                queue.popleft().do()
            else:
                self.finish(after.stream, after)
        if self._chance is not None:
            self._wander()

    def _wander(self) -> None:
        """Do something here and there, as a device does it while the host is busy."""
        assert self._chance is not None
        while self._chance.random() < self._eagerness:
            ready = [stream for stream, queue in self._queues.items() if queue and queue[0].can_begin()]
            if not ready:
                return
            # Streams differ in how fast they are, so that each at times runs far ahead.
            for stream in ready:
                self._weights.setdefault(stream, self._chance.choice((0.02, 1.0, 50.0)))
            weights = [self._weights[stream] for stream in ready]
            self._queues[self._chance.choices(ready, weights)[0]].popleft().do()
