"""Worker threads of the adapter's own, and the way from them back to the application's loop.

Knows anyio; knows nothing of HTTP or the kit's calls. Whoever fills Starlette's own threads (plain
``def`` endpoints, files) neither starves a delivery nor is starved by one.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread

from wechatpay_kit import ConfigError
from wechatpay_kit.plugins import application_loop

if TYPE_CHECKING:
    from collections.abc import Callable

    from wechatpay_kit.plugins import AsyncRunner

__all__ = ["THREADS", "Threads", "run_on_loop"]

P = ParamSpec("P")
R = TypeVar("R")

THREADS = 40  # at once on one loop; as many as anyio's own
_numbers = itertools.count(1)

run_on_loop = cast("AsyncRunner", anyio.from_thread.run)  # its own signature is narrower by a hair


class Threads:
    """Runs plain functions in at most ``size`` threads at once, on each event loop.

    Calls that hooks make in their turn have as many of their own, level by level: a call never
    waits for the one that it is part of.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ConfigError(f"threads must be at least 1; got {size}")
        self._size = size
        # Made in the loop that uses them: an application may be run by several, one after another.
        self._limiters: anyio.lowlevel.RunVar[defaultdict[int, anyio.CapacityLimiter]] = (
            anyio.lowlevel.RunVar(f"wechatpay_kit_threads_{next(_numbers)}")
        )

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What ``function`` returns or raises. Once it has begun, no cancellation stops it.

        Async hooks that it fires run on this loop, and are not cancelled either.
        """
        running = _Running(partial(function, *args, **kwargs))
        async with self._limiter(running.level):
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(running.make, limiter=anyio.CapacityLimiter(1))
        return running.result

    def _limiter(self, level: int) -> anyio.CapacityLimiter:
        try:
            limiters = self._limiters.get()
        except LookupError:
            limiters = defaultdict(partial(anyio.CapacityLimiter, self._size))
            self._limiters.set(limiters)
        return limiters[level]


class _Running(Generic[R]):
    """One call: what it returned, and how deep in hooks of others it was made."""

    result: R

    def __init__(self, function: Callable[[], R]) -> None:
        self._function = function
        self._token = anyio.lowlevel.current_token()
        self.is_over = False
        self.level = _level()

    def make(self) -> None:
        # In the thread's own copy of the context, which hooks and their tasks inherit. With the
        # token they find the loop from any thread, so from asyncio.to_thread too.
        application_loop.set(cast("AsyncRunner", partial(anyio.from_thread.run, token=self._token)))
        _caller.set(self)
        try:
            self.result = self._function()
        finally:
            self.is_over = True


_caller: ContextVar[_Running[Any] | None] = ContextVar("wechatpay_kit_caller", default=None)


def _level() -> int:
    caller = _caller.get()
    return 0 if caller is None or caller.is_over else caller.level + 1
