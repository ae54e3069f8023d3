"""What is settled: facts, whether they fit the order, and what their completion records.

Knows transactions, refunds and records; knows nothing of hooks, and does no I/O.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from .errors import MessageError
from .events import ConflictReason
from .records import OrderRecord, RefundRecord

if TYPE_CHECKING:
    from .models import Refund, Transaction, TransactionAmount
    from .records import ExpectedOrder, Source

__all__ = [
    "REFUND_STATUSES",
    "Fact",
    "check_paid",
    "closed_fact",
    "conflict_fact",
    "expected_record",
    "misplaced_payment",
    "misplaced_refund",
    "notification_fact",
    "order_key",
    "paid_conflict",
    "paid_fact",
    "refund_fact",
]


REFUND_STATUSES = ("SUCCESS", "ABNORMAL", "CLOSED")  # those that a shop is told of


class Fact(Struct, frozen=True, kw_only=True):
    """What is claimed; see :class:`wechatpay_kit.store.Fact`."""

    mchid: str
    key: str
    subject: str
    fingerprint: str
    out_trade_no: str | None = None
    at: datetime | None = None
    reason: ConflictReason | None = None
    record: OrderRecord | RefundRecord | None = None

    @property
    def conflict_key(self) -> str:
        """The key of the conflict about this very fact."""
        import hashlib  # noqa: PLC0415 - a delivery's, not an import's

        digest = hashlib.sha256(self.fingerprint.encode()).hexdigest()[:16]
        return f"conflict/{self.key}/{digest}"


def order_key(mchid: str, out_trade_no: str) -> str:
    """One key an order: paid and closed exclude each other."""
    return f"order/{mchid}/{out_trade_no}"


def paid_fact(
    mchid: str, transaction: Transaction, order: OrderRecord | None, source: Source, now: datetime
) -> Fact:
    """That an order is paid; :class:`MessageError` as :func:`check_paid` says."""
    amount = check_paid(transaction)
    currency = amount.currency or "CNY"
    key = order_key(mchid, transaction.out_trade_no)
    record = order or OrderRecord(
        mchid=mchid,
        out_trade_no=transaction.out_trade_no,
        appid=transaction.appid,
        total=amount.total,
        currency=currency,
        state="open",
        created_at=now,
    )
    return Fact(
        mchid=mchid,
        key=key,
        subject=key,
        fingerprint=(
            f"paid:{transaction.transaction_id}:{amount.total}:{currency}:{transaction.appid}"
        ),
        out_trade_no=transaction.out_trade_no,
        at=transaction.success_time or now,
        record=msgspec.structs.replace(
            record,
            state="paid",
            transaction_id=transaction.transaction_id,
            success_time=transaction.success_time,
            payer_total=amount.payer_total,
            source=source,
            settled_at=now,
        ),
    )


def check_paid(transaction: Transaction) -> TransactionAmount:
    """The amount of a paid transaction; :class:`MessageError` where it does not say how much."""
    if transaction.amount is None:
        raise MessageError("a paid transaction lacks its amount", field="amount")
    if not transaction.transaction_id:
        raise MessageError("a paid transaction lacks transaction_id", field="transaction_id")
    return transaction.amount


def misplaced_payment(order: OrderRecord | None, fact: Fact) -> ConflictReason | None:
    """Why a payment is not this order's: amount, currency and appid must be the order's."""
    if order is None:
        return "unknown_order"
    ours = f"{order.total}:{order.currency}:{order.appid}"
    return None if fact.fingerprint.split(":", 2)[2] == ours else "mismatch"


def paid_conflict(fact: Fact, recorded: str) -> ConflictReason:
    """What it is called where ``recorded`` stands in the place of this payment."""
    if recorded == "closed":
        return "paid_after_closed"
    same_payment = recorded.split(":")[1:2] == fact.fingerprint.split(":")[1:2]
    return "mismatch" if same_payment else "second_payment"


def closed_fact(
    mchid: str,
    out_trade_no: str,
    order: OrderRecord | None,
    source: Source,
    now: datetime,
    at: datetime | None,
) -> Fact:
    """That an order is closed; WeChat Pay gives no time, so ``at`` is when we learnt of it."""
    key = order_key(mchid, out_trade_no)
    return Fact(
        mchid=mchid,
        key=key,
        subject=key,
        fingerprint="closed",
        out_trade_no=out_trade_no,
        at=at,
        record=order
        and msgspec.structs.replace(order, state="closed", source=source, settled_at=now),
    )


def refund_fact(
    mchid: str,
    refund: Refund,
    known: RefundRecord | None,
    source: Source,
    now: datetime,
    at: datetime | None,
) -> Fact:
    """That a refund reached a status; ``at``, else now, stands in for a missing success_time."""
    subject = f"refund/{mchid}/{refund.out_refund_no}"
    record = known or RefundRecord(
        mchid=mchid,
        out_refund_no=refund.out_refund_no,
        refund=refund.amount.refund,
        total=refund.amount.total,
        state="accepted",
        created_at=now,
    )
    return Fact(
        mchid=mchid,
        key=f"{subject}/{refund.status}",
        subject=subject,
        fingerprint=f"{refund.refund_id}:{refund.amount.refund}:{refund.amount.total}",
        out_trade_no=refund.out_trade_no,
        at=refund.success_time or at or now,
        record=msgspec.structs.replace(
            record,
            state="settled",
            status=refund.status,
            refund_id=refund.refund_id,
            out_trade_no=refund.out_trade_no,
            transaction_id=refund.transaction_id,
            success_time=refund.success_time,
            payer_refund=refund.amount.payer_refund,
            source=source,
            settled_at=now,
        ),
    )


def misplaced_refund(
    order: OrderRecord | None, known: RefundRecord | None, refund: Refund
) -> ConflictReason | None:
    """Why a refund is not of this order: total and refund must be ours, where we know them."""
    if order is None and known is None:
        return "unknown_order"
    total, part = refund.amount.total, refund.amount.refund
    if order is not None and (order.total != total or part > total):
        return "mismatch"
    if order is not None and order.transaction_id not in (None, refund.transaction_id):
        return "second_payment"  # it gives back what was paid twice, not what was shipped for
    if known is not None and (known.total, known.refund) != (total, part):
        return "mismatch"
    return None


def notification_fact(mchid: str, notification_id: str, now: datetime) -> Fact:
    """That a notification of another kind arrived, told apart by its id."""
    key = f"notification/{mchid}/{notification_id}"
    return Fact(mchid=mchid, key=key, subject=key, fingerprint=notification_id, at=now)


def conflict_fact(fact: Fact, reason: ConflictReason) -> Fact:
    """That ``fact`` has no place: it has a claim of its own, so each is handled once."""
    key = fact.conflict_key
    return msgspec.structs.replace(fact, key=key, subject=key, reason=reason, record=None)


def expected_record(
    mchid: str, out_trade_no: str, expected: ExpectedOrder, now: datetime
) -> OrderRecord:
    """An order kept elsewhere, by the shop's word."""
    return OrderRecord(
        mchid=mchid,
        out_trade_no=out_trade_no,
        appid=expected.appid,
        total=expected.total,
        currency=expected.currency,
        state="open",
        created_at=now,
    )
