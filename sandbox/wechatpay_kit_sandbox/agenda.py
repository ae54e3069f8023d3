"""What falls due on the business clock, and runs in that order.

Knows tasks and moments; knows nothing of what the tasks do. Turning the clock runs everything
that falls due on the way, each at its own moment, before it returns.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from .clock import BusinessClock

__all__ = ["Agenda"]

_log = logging.getLogger("wechatpay_kit_sandbox")
_LONGEST_WAIT = 3600.0  # seconds; a wait may not overflow the platform's limit


class _Entry(NamedTuple):
    due: datetime
    number: int  # keeps the order of entry among equals, and heapq off the task
    task: Callable[[], object]


class Agenda:
    """A heap of tasks; one thread at a time runs them, so that order holds."""

    def __init__(self, clock: BusinessClock) -> None:
        self._clock = clock
        self._entries: list[_Entry] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._turning = threading.Lock()
        self._is_stopped = False
        self._thread: threading.Thread | None = None

    def add(self, due: datetime, task: Callable[[], object]) -> None:
        with self._changed:
            heapq.heappush(self._entries, _Entry(due, next(self._numbers), task))
            self._changed.notify()

    def turn_to(self, moment: datetime) -> None:
        """Run all that is due until ``moment``, in order, then let the clock stand there.

        Not to be called by a task: it would wait for itself.
        """
        with self._turning:
            while (entry := self._pop(moment)) is not None:
                self._clock.move_to(entry.due)
                _run(entry)
            self._clock.move_to(moment)

    def set_rate(self, rate: float) -> None:
        self._clock.set_rate(rate)
        self.run_due()
        with self._changed:
            self._changed.notify()

    def run_due(self) -> None:
        """Run what is due now; returns when it has run, whichever thread ran it."""
        with self._turning:
            while (entry := self._pop(self._clock.now())) is not None:
                _run(entry)

    def start(self) -> None:
        """Run tasks as they fall due, in a thread, until :meth:`stop`."""
        self._is_stopped = False
        self._thread = threading.Thread(target=self._watch, name="sandbox-agenda", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        with self._changed:
            self._is_stopped = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _watch(self) -> None:
        while True:
            with self._changed:
                if self._is_stopped:
                    return
                wait = self._seconds_to_next()
                if wait is None or wait > 0:
                    self._changed.wait(wait)
                    continue
            self._run_one()

    def _run_one(self) -> None:
        with self._turning:
            entry = self._pop(self._clock.now())
            if entry is not None:
                _run(entry)

    def _seconds_to_next(self) -> float | None:
        if not self._entries:
            return None
        business = (self._entries[0].due - self._clock.now()).total_seconds()
        if business <= 0:
            return 0.0
        return min(business / self._clock.rate, _LONGEST_WAIT) if self._clock.rate else None

    def _pop(self, until: datetime) -> _Entry | None:
        with self._changed:
            if self._is_stopped or not self._entries or self._entries[0].due > until:
                return None
            return heapq.heappop(self._entries)


def _run(entry: _Entry) -> None:
    try:
        entry.task()
    except Exception:  # noqa: BLE001 - one failing task must not stop the gateway's time
        _log.exception("a task of the sandbox failed")
