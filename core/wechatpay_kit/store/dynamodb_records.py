"""Orders and refunds in a DynamoDB table.

Knows records and where they lie; knows nothing of claims. Times are kept as Unix seconds; what a
record does not know is an attribute that its item does not have.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from wechatpay_kit.errors import StoreError
from wechatpay_kit.records import OrderRecord, RefundRecord

from .dynamodb_writes import Write

if TYPE_CHECKING:
    from wechatpay_kit.records import OrderState

    from .dynamodb_table import DynamoTable
    from .dynamodb_writes import Item, Key

__all__ = ["DynamoRecords", "as_moment", "as_seconds", "record_key", "write_settled"]

R = TypeVar("R", OrderRecord, RefundRecord)

_RECORD = "record"  # the sort key of an order or a refund
_TIMES = frozenset({"created_at", "expires_at", "prepay_at", "success_time", "settled_at"})
_ORDER_SETTLED = frozenset(
    {"state", "transaction_id", "success_time", "payer_total", "source", "settled_at"}
)
_REFUND_SETTLED = frozenset(
    {
        "state", "refund_id", "status", "transaction_id", "out_trade_no", "success_time",
        "payer_refund", "source", "settled_at",
    }
)  # fmt: skip
_REQUIRED = {
    kind: frozenset(field.name for field in msgspec.structs.fields(kind) if field.required)
    for kind in (OrderRecord, RefundRecord)
}


class DynamoRecords:
    """The records' half of :class:`~wechatpay_kit.store.Store`."""

    def __init__(self, table: DynamoTable) -> None:
        self._table = table

    def add_order(self, record: OrderRecord) -> OrderRecord:
        return self._add(record)

    def order(self, mchid: str, out_trade_no: str) -> OrderRecord | None:
        return find_record(self._table, order_key(mchid, out_trade_no), OrderRecord)

    def order_answered(
        self,
        mchid: str,
        out_trade_no: str,
        *,
        state: OrderState,
        prepay_id: str | None = None,
        at: datetime,
    ) -> None:
        write = Write()
        order = write.on(order_key(mchid, out_trade_no)).set(state=state)
        if prepay_id is not None:
            order.set(prepay_id=prepay_id, prepay_at=at.timestamp())
        order.require("created_at", "present").require("settled_at", "absent")
        self._table.tries(write)

    def add_refund(self, record: RefundRecord) -> RefundRecord:
        return self._add(record)

    def refund(self, mchid: str, out_refund_no: str) -> RefundRecord | None:
        return find_record(self._table, refund_key(mchid, out_refund_no), RefundRecord)

    def refunds(self, mchid: str, out_trade_no: str) -> list[RefundRecord]:
        numbers = self._table.below(order_key(mchid, out_trade_no)[0], "refund/")
        items = self._table.get_many(refund_key(mchid, number) for number in numbers)
        found = [_record(item, RefundRecord) for item in items]
        return sorted(
            (refund for refund in found if refund.out_trade_no == out_trade_no),
            key=lambda refund: (refund.created_at, refund.out_refund_no),
        )

    def refund_answered(self, record: RefundRecord) -> None:
        write = Write()
        write.on(record_key(record)).set(
            state=record.state,
            refund_id=record.refund_id,
            status=record.status,
            transaction_id=record.transaction_id,
            out_trade_no=record.out_trade_no,
        ).require("created_at", "present").require("state", "<>", "settled")
        _link_to_order(write, record)
        self._table.tries(write)

    def _add(self, record: R) -> R:
        write = Write()
        values = _values(record)
        write.on(record_key(record)).set(**values, **_listing(record)).require(
            "created_at", "absent"
        )
        _link_to_order(write, record)
        if self._table.tries(write):
            return record
        # Taken, perhaps by this very record: its answer may have been lost.
        return find_record(self._table, record_key(record), type(record)) or record


def order_key(mchid: str, out_trade_no: str) -> Key:
    return f"order/{mchid}/{out_trade_no}", _RECORD


def refund_key(mchid: str, out_refund_no: str) -> Key:
    return f"refund/{mchid}/{out_refund_no}", _RECORD


def record_key(record: OrderRecord | RefundRecord) -> Key:
    if isinstance(record, OrderRecord):
        return order_key(record.mchid, record.out_trade_no)
    return refund_key(record.mchid, record.out_refund_no)


def link_key(mchid: str, out_trade_no: str, linked: str) -> Key:
    """Where an order's partition names what belongs to it: ``claim/…`` or ``refund/…``."""
    return order_key(mchid, out_trade_no)[0], linked


def settled_listing(mchid: str) -> str:
    """The index's listing of a merchant's settled records, for the purge."""
    return f"settled/{mchid}"


def find_record(
    table: DynamoTable, key: Key, kind: type[R], until: float | None = None
) -> R | None:
    item = table.get(key, until)
    return None if item is None else _record(item, kind)


def write_settled(write: Write, record: OrderRecord | RefundRecord) -> None:
    """Write what settlement knows of a record; what placing wrote stays."""
    names = _ORDER_SETTLED if isinstance(record, OrderRecord) else _REFUND_SETTLED
    values = _values(record)
    write.on(record_key(record)).set(
        **{name: values.get(name) for name in sorted(names)}, **_listing(record)
    ).set_once(**{name: value for name, value in values.items() if name not in names})
    _link_to_order(write, record)


def as_seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def as_moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _link_to_order(write: Write, record: OrderRecord | RefundRecord) -> None:
    if isinstance(record, RefundRecord) and record.out_trade_no is not None:
        linked = f"refund/{record.out_refund_no}"
        write.on(link_key(record.mchid, record.out_trade_no, linked)).set(links="refund")


def _listing(record: OrderRecord | RefundRecord) -> dict[str, Any]:
    if record.settled_at is None:
        return {}
    return {"listed": settled_listing(record.mchid), "listed_at": record.settled_at.timestamp()}


def _values(record: OrderRecord | RefundRecord) -> dict[str, Any]:
    values = {
        name: as_seconds(value) if name in _TIMES else value
        for name, value in msgspec.structs.asdict(record).items()
        if value is not None
    }
    missing = _REQUIRED[type(record)] - values.keys()
    if missing:
        raise StoreError(f"{record!r} has no {', '.join(sorted(missing))} and cannot be kept")
    return values


def _record(item: Item, kind: type[R]) -> R:
    values: dict[str, Any] = {
        name: as_moment(item[name]) if name in _TIMES else item[name]
        for name in kind.__struct_fields__
        if name in item
    }
    return kind(**values)
