"""Orders and refunds in an SQLite file.

Knows records and their tables; knows nothing of claims. Times are kept as Unix seconds.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from wechatpay_kit.records import OrderRecord, RefundRecord

if TYPE_CHECKING:
    import sqlite3

    from wechatpay_kit.records import OrderState

    from .sqlite_file import SqliteFile

__all__ = ["RECORDS_SCHEMA", "SqliteRecords", "as_moment", "as_seconds"]

R = TypeVar("R", OrderRecord, RefundRecord)

RECORDS_SCHEMA = """
CREATE TABLE orders (
    mchid TEXT NOT NULL,
    out_trade_no TEXT NOT NULL,
    appid TEXT NOT NULL,
    total INTEGER NOT NULL,         -- fen
    currency TEXT NOT NULL,
    state TEXT NOT NULL,            -- placing, open, refused, paid, closed
    created_at REAL NOT NULL,
    expires_at REAL,
    notify_url TEXT,
    body BLOB NOT NULL,
    serial TEXT,
    fingerprint TEXT NOT NULL,
    prepay_id TEXT,
    prepay_at REAL,
    transaction_id TEXT,
    success_time REAL,
    payer_total INTEGER,            -- fen
    source TEXT,
    settled_at REAL,
    PRIMARY KEY (mchid, out_trade_no)
) WITHOUT ROWID;
CREATE INDEX orders_by_success ON orders (mchid, success_time);
CREATE TABLE refunds (
    mchid TEXT NOT NULL,
    out_refund_no TEXT NOT NULL,
    refund INTEGER NOT NULL,        -- fen
    total INTEGER NOT NULL,         -- fen
    state TEXT NOT NULL,            -- placing, accepted, refused, settled
    created_at REAL NOT NULL,
    out_trade_no TEXT,
    transaction_id TEXT,
    body BLOB NOT NULL,
    fingerprint TEXT NOT NULL,
    refund_id TEXT,
    status TEXT,
    success_time REAL,
    payer_refund INTEGER,           -- fen
    source TEXT,
    settled_at REAL,
    PRIMARY KEY (mchid, out_refund_no)
) WITHOUT ROWID;
CREATE INDEX refunds_by_order ON refunds (mchid, out_trade_no);
"""

_TIMES = frozenset({"created_at", "expires_at", "prepay_at", "success_time", "settled_at"})
_ORDER_SETTLED = (
    "state", "transaction_id", "success_time", "payer_total", "source", "settled_at",
)  # fmt: skip
_REFUND_SETTLED = (
    "state", "refund_id", "status", "transaction_id", "out_trade_no", "success_time",
    "payer_refund", "source", "settled_at",
)  # fmt: skip


class SqliteRecords:
    """The records' half of :class:`~wechatpay_kit.store.Store`."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def add_order(self, record: OrderRecord) -> OrderRecord:
        with self._file.writing() as connection:
            if _insert(connection, "orders", record):
                return record
            return find_order(connection, record.mchid, record.out_trade_no) or record

    def order(self, mchid: str, out_trade_no: str) -> OrderRecord | None:
        with self._file.reading() as connection:
            return find_order(connection, mchid, out_trade_no)

    def order_answered(
        self,
        mchid: str,
        out_trade_no: str,
        *,
        state: OrderState,
        prepay_id: str | None = None,
        at: datetime,
    ) -> None:
        with self._file.writing() as connection:
            connection.execute(
                "UPDATE orders SET state = ?, prepay_id = coalesce(?, prepay_id),"
                " prepay_at = CASE WHEN ? IS NULL THEN prepay_at ELSE ? END"
                " WHERE mchid = ? AND out_trade_no = ? AND settled_at IS NULL",
                (state, prepay_id, prepay_id, at.timestamp(), mchid, out_trade_no),
            )

    def add_refund(self, record: RefundRecord) -> RefundRecord:
        with self._file.writing() as connection:
            if _insert(connection, "refunds", record):
                return record
            return find_refund(connection, record.mchid, record.out_refund_no) or record

    def refund(self, mchid: str, out_refund_no: str) -> RefundRecord | None:
        with self._file.reading() as connection:
            return find_refund(connection, mchid, out_refund_no)

    def refunds(self, mchid: str, out_trade_no: str) -> list[RefundRecord]:
        with self._file.reading() as connection:
            rows = connection.execute(
                "SELECT * FROM refunds WHERE mchid = ? AND out_trade_no = ? ORDER BY created_at",
                (mchid, out_trade_no),
            ).fetchall()
        return [_record(row, RefundRecord) for row in rows]

    def refund_answered(self, record: RefundRecord) -> None:
        with self._file.writing() as connection:
            connection.execute(
                "UPDATE refunds SET state = ?, refund_id = ?, status = ?, transaction_id = ?,"
                " out_trade_no = ? WHERE mchid = ? AND out_refund_no = ? AND state <> 'settled'",
                (
                    record.state,
                    record.refund_id,
                    record.status,
                    record.transaction_id,
                    record.out_trade_no,
                    record.mchid,
                    record.out_refund_no,
                ),
            )


def find_order(connection: sqlite3.Connection, mchid: str, out_trade_no: str) -> OrderRecord | None:
    row = connection.execute(
        "SELECT * FROM orders WHERE mchid = ? AND out_trade_no = ?", (mchid, out_trade_no)
    ).fetchone()
    return row and _record(row, OrderRecord)


def find_refund(
    connection: sqlite3.Connection, mchid: str, out_refund_no: str
) -> RefundRecord | None:
    row = connection.execute(
        "SELECT * FROM refunds WHERE mchid = ? AND out_refund_no = ?", (mchid, out_refund_no)
    ).fetchone()
    return row and _record(row, RefundRecord)


def lags(connection: sqlite3.Connection, record: OrderRecord | RefundRecord | None) -> bool:
    """Whether ``record`` says something is settled that its table does not show as such."""
    if record is None:
        return False
    held = (
        find_order(connection, record.mchid, record.out_trade_no)
        if isinstance(record, OrderRecord)
        else find_refund(connection, record.mchid, record.out_refund_no)
    )
    return held is None or held.settled_at is None


def write_settled(
    connection: sqlite3.Connection, record: OrderRecord | RefundRecord | None
) -> None:
    """Write what settlement knows of a record; what placing wrote stays."""
    if isinstance(record, OrderRecord):
        _insert(connection, "orders", record, "(mchid, out_trade_no)", _ORDER_SETTLED)
    elif isinstance(record, RefundRecord):
        _insert(connection, "refunds", record, "(mchid, out_refund_no)", _REFUND_SETTLED)


def as_seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def as_moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _insert(
    connection: sqlite3.Connection,
    table: str,
    record: OrderRecord | RefundRecord,
    key: str = "",
    settled: tuple[str, ...] = (),
) -> bool:
    """Insert ``record``; where its number is taken, change the ``settled`` columns alone.

    Whether anything was written.
    """
    columns = {
        name: as_seconds(value) if name in _TIMES else value
        for name, value in msgspec.structs.asdict(record).items()
    }
    update = ", ".join(f"{name} = excluded.{name}" for name in settled)
    cursor = connection.execute(
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608 - names of this module
        f" ON CONFLICT {key} {f'DO UPDATE SET {update}' if update else 'DO NOTHING'}",
        tuple(columns.values()),
    )
    return cursor.rowcount > 0


def _record(row: sqlite3.Row, kind: type[R]) -> R:
    values: dict[str, Any] = {
        name: as_moment(row[name]) if name in _TIMES and row[name] is not None else row[name]
        for name in kind.__struct_fields__
    }
    return kind(**values)
