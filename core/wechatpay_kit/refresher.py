"""Fetch WeChat Pay's keys when one is missing, within limits that no stranger can stretch.

Knows when to fetch and when not; knows nothing of how it is done. Whoever names an unknown
serial costs at most one fetch a minute, whatever its outcome, and nobody waits behind a lock.
"""

from __future__ import annotations

import threading
import time
from enum import StrEnum
from typing import TYPE_CHECKING

from . import log
from .processes import PerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .verifier import KeyRing, VerificationKey

__all__ = ["KeyRefresher", "Refresh"]

INTERVAL = 60.0  # seconds between two fetches
PATIENCE = 2.0  # seconds a caller waits, and a fetch may take
MAX_AGE = 12 * 3600.0  # seconds; APIv3 asks to fetch certificates at least that often


class Refresh(StrEnum):
    """What became of a refresh."""

    DONE = "done"  # the ring has what the gateway has
    FAILED = "failed"  # the keys that were good are still held
    BUSY = "busy"  # one is under way; come again
    LIMITED = "limited"  # one was made less than a minute ago; come again


class KeyRefresher:
    """Adds what ``fetch`` brings to ``keys``; single-flight, at most one fetch a minute.

    ``fetch`` takes the seconds it may use and must not ask this refresher for keys. It runs in a
    thread of its own, so that a gateway that hangs holds up nobody for longer than 2 s.
    """

    def __init__(
        self,
        keys: KeyRing,
        fetch: Callable[[float], Iterable[VerificationKey]],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = keys
        self._fetch = fetch
        self._monotonic = monotonic
        self._renewed_at = monotonic()
        self._started_at: float | None = None
        self._flight = PerProcess(threading.Lock)

    def refresh(self) -> Refresh:
        """Fetch now, wait at most 2 s, and say what became of it."""
        started = self._start()
        if isinstance(started, Refresh):
            return started
        finished, outcome = started
        return outcome[0] if finished.wait(PATIENCE) and outcome else Refresh.FAILED

    def refresh_if_old(self) -> None:
        """Start a fetch ahead of need where the ring is over 12 h old; wait for nothing."""
        if self._monotonic() - self._renewed_at > MAX_AGE:
            self._start()

    def _start(self) -> Refresh | tuple[threading.Event, list[Refresh]]:
        flight = self._flight()
        if not flight.acquire(blocking=False):
            return Refresh.BUSY
        if self._started_at is not None and self._monotonic() - self._started_at < INTERVAL:
            flight.release()
            return Refresh.LIMITED
        self._started_at = self._monotonic()
        finished = threading.Event()
        outcome: list[Refresh] = []
        thread = threading.Thread(
            target=self._run,
            args=(flight, finished, outcome),
            name="wechatpay-kit-keys",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError:  # no thread to be had: at the limit, or the interpreter is ending
            flight.release()
            return Refresh.FAILED
        return finished, outcome

    def _run(
        self, flight: threading.Lock, finished: threading.Event, outcome: list[Refresh]
    ) -> None:
        try:
            self._keys.add(*self._fetch(PATIENCE))
            self._renewed_at = self._monotonic()
            outcome.append(Refresh.DONE)
        except Exception:  # noqa: BLE001 - whatever went wrong, the keys that were good stay
            outcome.append(Refresh.FAILED)
            log.logger.warning("fetching WeChat Pay's certificates failed", exc_info=True)
        finally:
            flight.release()
            finished.set()
