"""One of something for each process: what a fork inherits is its parent's.

Knows process ids; knows nothing of what is made. Takes no lock, which a fork could copy locked.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PerProcess"]

T = TypeVar("T")


class PerProcess(Generic[T]):
    """Calls ``make`` on first use in a process, and again in a fork's child.

    Of two threads that come first at once, one's is kept and the other's is dropped.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[int, T] = {}

    def __call__(self) -> T:
        pid = os.getpid()
        made = self._made.get(pid)
        return self._made.setdefault(pid, self._make()) if made is None else made

    def drop(self) -> T | None:
        """Forget this process's, and return it where there is one."""
        return self._made.pop(os.getpid(), None)

    def forget_parents(self) -> None:
        """In a fork's child, before its own is made: ids of processes are used again."""
        self._made.clear()
