"""What hooks receive.

Knows the facts and where they came from; knows nothing of how they arrived or what is done
with them. The kit builds events from verified messages only.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

from .errors import StoreError
from .models import Refund, Transaction
from .records import OrderRecord, Source

__all__ = [
    "ClosedEvent",
    "ConflictEvent",
    "ConflictReason",
    "DuplicateEvent",
    "Event",
    "NotificationEvent",
    "PaidEvent",
    "RefundEvent",
    "RejectedEvent",
]

ConflictReason = Literal[
    "mismatch",
    "unknown_order",
    "second_payment",
    "paid_after_closed",
    "closed_after_paid",
    "refunded_before_paid",
]


class Event(Struct, frozen=True, kw_only=True):
    """What every event has.

    ``key`` is stable over retries: hand it on as an idempotency key. ``attempt`` counts from 1.
    ``order`` is the store's record, None where the order is kept elsewhere.
    """

    mchid: str
    key: str
    source: Source = "notification"
    out_trade_no: str | None = None
    attempt: int = 1
    order: OrderRecord | None = None
    _connection: Any = None

    @property
    def connection(self) -> Any:
        """The transaction that holds the claim, of the store's own type.

        Raises :class:`~wechatpay_kit.StoreError` where the store is a leased one.
        """
        if self._connection is None:
            raise StoreError(
                "this store holds claims by lease, so there is no transaction to join; "
                "hand event.key on as an idempotency key instead"
            )
        return self._connection

    def __repr__(self) -> str:  # a transaction holds an openid
        return f"{type(self).__name__}({self.key!r}, attempt={self.attempt})"


class PaidEvent(Event, frozen=True, kw_only=True):
    """The order is paid: established by WeChat Pay, amount and appid checked."""

    out_trade_no: str
    transaction: Transaction


class ClosedEvent(Event, frozen=True, kw_only=True):
    """The order is closed; ``transaction`` where a query said so."""

    out_trade_no: str
    transaction: Transaction | None = None


class RefundEvent(Event, frozen=True, kw_only=True):
    """A refund reached ``refund.status`` SUCCESS, ABNORMAL or CLOSED."""

    out_trade_no: str
    out_refund_no: str
    refund: Refund


class DuplicateEvent(Event, frozen=True, kw_only=True):
    """A fact that was dealt with before came again; ``fact`` says which kind."""

    fact: Literal["paid", "closed", "refund", "conflict", "notification"]
    transaction: Transaction | None = None
    refund: Refund | None = None


class ConflictEvent(Event, frozen=True, kw_only=True):
    """Money without a place: ``order`` is our version, ``transaction`` or ``refund`` theirs.

    ``recorded`` is the fact that was settled before, such as ``paid:4200…:100:CNY:wx…`` or
    ``closed``, where one was.
    """

    out_trade_no: str
    reason: ConflictReason
    transaction: Transaction | None = None
    refund: Refund | None = None
    recorded: str | None = None


class NotificationEvent(Event, frozen=True, kw_only=True):
    """A verified notification of a kind that the kit does not model; ``plaintext`` is decrypted."""

    id: str
    event_type: str
    plaintext: bytes
    create_time: datetime | None = None
    summary: str | None = None
    original_type: str | None = None

    def json(self) -> Any:
        """The plaintext as JSON; ``ValueError`` where it is none."""
        return json.loads(self.plaintext)


class RejectedEvent(Event, frozen=True, kw_only=True):
    """A delivery was refused before settlement; never holds its body.

    ``step`` and ``reason`` are the check that failed, ``status`` the HTTP answer, ``serial`` the
    key that the delivery named, ``size`` its body's bytes.
    """

    step: str
    reason: str
    status: int
    size: int
    serial: str | None = None
