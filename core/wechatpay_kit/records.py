"""What the kit remembers of an order and a refund.

Knows fields; knows nothing of where they are kept. Amounts are integers in fen (分), times aware.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct

__all__ = [
    "REFUND_RANK",
    "ExpectedOrder",
    "OrderRecord",
    "OrderState",
    "RefundRecord",
    "Source",
    "Unsettled",
]

OrderState = Literal["placing", "open", "refused", "paid", "closed"]
Source = Literal["notification", "query", "close", "reconcile"]


# How far a refund has come; a status that is no step forward is a duplicate.
REFUND_RANK = {None: 0, "PROCESSING": 0, "ABNORMAL": 1, "CLOSED": 2, "SUCCESS": 2}


class OrderRecord(Struct, frozen=True, kw_only=True):
    """An order as the store holds it.

    ``state``: *placing* (sent or about to be, no answer recorded), *open* (the gateway has it),
    *refused*, *paid*, *closed*. ``body`` is the very bytes sent, and ``serial`` names the key that
    sealed their sensitive fields; ``fingerprint`` is of the caller's parameters. What settlement
    adds: ``transaction_id``, ``success_time``, ``payer_total`` (fen), ``source``, ``settled_at``.
    """

    mchid: str
    out_trade_no: str
    appid: str
    total: int
    currency: str
    state: OrderState
    created_at: datetime
    expires_at: datetime | None = None
    notify_url: str | None = None
    body: bytes = b""
    serial: str | None = None
    fingerprint: str = ""
    prepay_id: str | None = None
    prepay_at: datetime | None = None
    transaction_id: str | None = None
    success_time: datetime | None = None
    payer_total: int | None = None
    source: Source | None = None
    settled_at: datetime | None = None

    def __repr__(self) -> str:  # the body holds an openid
        return f"OrderRecord({self.out_trade_no!r}, {self.state!r}, total={self.total})"


class RefundRecord(Struct, frozen=True, kw_only=True):
    """A refund as the store holds it.

    ``state``: *placing*, *accepted*, *refused*, or *settled* once a status was fired; ``status``
    is WeChat Pay's own. ``refund`` and ``total`` in fen.
    """

    mchid: str
    out_refund_no: str
    refund: int
    total: int
    state: Literal["placing", "accepted", "refused", "settled"]
    created_at: datetime
    out_trade_no: str | None = None
    transaction_id: str | None = None
    body: bytes = b""
    fingerprint: str = ""
    refund_id: str | None = None
    status: str | None = None
    success_time: datetime | None = None
    payer_refund: int | None = None
    source: Source | None = None
    settled_at: datetime | None = None

    def __repr__(self) -> str:
        return f"RefundRecord({self.out_refund_no!r}, {self.status or self.state!r})"


class ExpectedOrder(Struct, frozen=True, kw_only=True):
    """A shop's own word on an order that it keeps elsewhere; ``total`` in fen."""

    total: int
    appid: str
    currency: str = "CNY"


class Unsettled(Struct, frozen=True, kw_only=True):
    """A verified fact that no plugin has dealt with yet: what an operator must see.

    ``reason`` is *failed* (a hook raised, or its process died) or a conflict's reason.
    """

    key: str
    fingerprint: str
    reason: str
    out_trade_no: str | None
    first_seen: datetime
    attempts: int
    last_error: str | None
