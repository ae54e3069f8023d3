"""Keep the leases of claims in work alive.

Knows claims and when they are due; knows nothing of how a lease is renewed. One thread a store,
which ends when there is nothing to keep.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["LeaseKeeper"]

C = TypeVar("C")


class LeaseKeeper(Generic[C]):
    """Calls ``renew`` for each claim in work every ``interval`` seconds, until it returns False."""

    def __init__(self, renew: Callable[[C], bool], interval: float) -> None:
        self._renew = renew
        self._interval = interval
        self._due: dict[C, float] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_closing = False

    @contextmanager
    def keeping(self, claim: C) -> Iterator[None]:
        with self._changed:
            self._is_closing = False
            self._due[claim] = time.monotonic() + self._interval
            if self._thread is None:
                thread = threading.Thread(
                    target=self._run, name="wechatpay-kit-leases", daemon=True
                )
                with suppress(RuntimeError):  # no thread to be had: the lease is not renewed
                    thread.start()
                    self._thread = thread
        try:
            yield
        finally:
            with self._changed:
                self._due.pop(claim, None)
                self._changed.notify()

    def close(self) -> None:
        """Let the thread end now rather than after a while without work."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()

    def _run(self) -> None:
        while (claim := self._next()) is not None:
            try:
                renewed = self._renew(claim)
            except Exception:  # noqa: BLE001 - the database may be back before the lease ends
                renewed = True
            with self._changed:
                if claim in self._due:
                    self._due[claim] = time.monotonic() + self._interval
                    if not renewed:
                        del self._due[claim]

    def _next(self) -> C | None:
        """Wait for the claim that is due; None once nothing has been in work for a while."""
        with self._changed:
            while True:
                if not self._due:
                    if not self._is_closing:
                        self._changed.wait(self._interval)
                    if not self._due:
                        self._thread = None
                        return None
                claim, due = min(self._due.items(), key=lambda item: item[1])
                left = due - time.monotonic()
                if left <= 0:
                    return claim
                self._changed.wait(left)
