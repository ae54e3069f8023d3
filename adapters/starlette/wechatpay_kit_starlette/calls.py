"""The kit's calls as awaitables.

Knows which of the kit's calls do I/O; knows nothing of what they do.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from wechatpay_kit import Kit

from .threads import THREADS, Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["AsyncKit"]

P = ParamSpec("P")
R = TypeVar("R")


def _awaitable(
    call: Callable[Concatenate[Kit, P], R],
) -> Callable[Concatenate[AsyncKit, P], Coroutine[Any, Any, R]]:
    @functools.wraps(call)
    async def awaited(shop: AsyncKit, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await shop.run(getattr(shop.kit, call.__name__), *args, **kwargs)

    return awaited


class AsyncKit:
    """``kit`` for async code: its calls that do I/O, by the same names and with the same arguments.

    They run in at most ``threads`` worker threads at once (:class:`ConfigError` below 1); hooks
    that they fire run on the loop that awaits. A call that waits for its thread can be cancelled;
    once it has begun it is finished, whoever still listens.
    """

    def __init__(self, kit: Kit, *, threads: int = THREADS) -> None:
        self.kit = kit
        self._threads = Threads(threads)

    create_order = _awaitable(Kit.create_order)
    order = _awaitable(Kit.order)
    query_order = _awaitable(Kit.query_order)
    close_order = _awaitable(Kit.close_order)
    create_refund = _awaitable(Kit.create_refund)
    query_refund = _awaitable(Kit.query_refund)
    unsettled = _awaitable(Kit.unsettled)
    purge = _awaitable(Kit.purge)
    close = _awaitable(Kit.close)

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Await a plain function in the same threads, for what the kit's answers can do.

        ``await shop.run(order.request_payment)``, ``await shop.run(bill.download, path)``.
        """
        return await self._threads.run(function, *args, **kwargs)

    def __repr__(self) -> str:
        return f"AsyncKit({self.kit!r})"
