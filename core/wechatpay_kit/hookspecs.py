"""The hooks, one sentence each; docs/hooks.md gives each a section and a plugin to paste.

Knows names, arguments and results; knows nothing of when they are called. A plugin may subclass
:class:`Hooks` to have a type checker verify it; it need not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pluggy

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .events import (
        ClosedEvent,
        ConflictEvent,
        DuplicateEvent,
        NotificationEvent,
        PaidEvent,
        RefundEvent,
        RejectedEvent,
    )
    from .records import ExpectedOrder

__all__ = ["PROJECT", "Hooks", "hookimpl"]

PROJECT = "wechatpay_kit"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Hooks(Protocol):
    """Every hook; implement those you need, plain or ``async def``, marked ``@hookimpl``."""

    @hookspec
    def on_paid(self, event: PaidEvent) -> Awaitable[None] | None:
        """The order's payment is established: fires once an order."""
        return None

    @hookspec
    def on_duplicate(self, event: DuplicateEvent) -> Awaitable[None] | None:
        """The same fact came again; for metrics, and its failure changes nothing."""
        return None

    @hookspec
    def on_closed(self, event: ClosedEvent) -> Awaitable[None] | None:
        """The order is closed at WeChat Pay: fires once an order."""
        return None

    @hookspec
    def on_refund(self, event: RefundEvent) -> Awaitable[None] | None:
        """A refund reached SUCCESS, ABNORMAL or CLOSED: fires once a status."""
        return None

    @hookspec(firstresult=True)
    def on_conflict(self, event: ConflictEvent) -> Awaitable[bool | None] | bool | None:
        """Money has no place; return True once it is dealt with, else it comes again."""
        return None

    @hookspec
    def on_notification(self, event: NotificationEvent) -> Awaitable[None] | None:
        """A verified notification of another kind arrived: fires at least once."""
        return None

    @hookspec
    def on_rejected(self, event: RejectedEvent) -> Awaitable[None] | None:
        """A delivery was refused; a security alarm, and its failure changes nothing."""
        return None

    @hookspec(firstresult=True)
    def expected_order(
        self, out_trade_no: str
    ) -> Awaitable[ExpectedOrder | None] | ExpectedOrder | None:
        """An order unknown to the store is asked for: what it should cost, or None."""
        return None
