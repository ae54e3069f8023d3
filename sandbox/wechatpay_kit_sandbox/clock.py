"""The sandbox's business clock: it rules expiry, retries and bills, and can be turned.

Starts at wall time, runs at a rate, jumps forward, never goes back. It signs nothing:
signatures carry wall time, or an honest receiver would refuse them.
"""

from __future__ import annotations

import math
import threading
import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BEIJING", "BusinessClock", "rfc3339"]

BEIJING = timezone(timedelta(hours=8))


def rfc3339(moment: datetime) -> str:
    """As the gateway writes times: whole seconds, +08:00."""
    return moment.astimezone(BEIJING).isoformat(timespec="seconds")


class BusinessClock:
    """``now()`` is Beijing time; thread-safe."""

    def __init__(
        self,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._base = datetime.fromtimestamp(wall(), BEIJING)
        self._anchor = monotonic()
        self._rate = 1.0

    @property
    def rate(self) -> float:
        """Business seconds a real second; 0 is a clock that stands."""
        return self._rate

    def now(self) -> datetime:
        with self._lock:
            return self._read()

    def set_rate(self, rate: float) -> None:
        """Run at ``rate`` from now on. Raises ``ValueError`` unless it is finite and ≥ 0."""
        if not (math.isfinite(rate) and rate >= 0):
            raise ValueError(f"rate must be a finite number of at least 0; got {rate!r}")
        with self._lock:
            self._move(self._read())
            self._rate = float(rate)

    def move_to(self, moment: datetime) -> None:
        """Be at ``moment`` or later; a moment already past changes nothing."""
        with self._lock:
            self._move(max(moment.astimezone(BEIJING), self._read()))

    def _read(self) -> datetime:
        return self._base + timedelta(seconds=(self._monotonic() - self._anchor) * self._rate)

    def _move(self, moment: datetime) -> None:
        self._base, self._anchor = moment, self._monotonic()
