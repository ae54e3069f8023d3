"""The embedded store: one SQLite file, claims held by lease.

Knows SQL and leases; knows nothing of hooks or messages. Every decision is one ``BEGIN
IMMEDIATE`` transaction in WAL mode with ``synchronous=FULL``: what was acknowledged survives a
power cut. Leases run on wall time, the only clock that processes of one machine share across a
reboot; a step of it can let a successor in early, and the fence keeps the predecessor out.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import weakref
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from wechatpay_kit.errors import ConfigError, LeaseLostError, StoreBusyError, StoreError
from wechatpay_kit.records import OrderRecord, RefundRecord, Unsettled

from . import ClaimOutcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from wechatpay_kit.records import OrderState

    from . import Claim, Fact

__all__ = ["SqliteStore"]

R = TypeVar("R", OrderRecord, RefundRecord)

LEASE = timedelta(seconds=60)
MAX_HOLD = timedelta(minutes=10)
WAIT = timedelta(seconds=2)  # for the write lock; WeChat Pay waits 5 s for the whole delivery
_SCHEMA_VERSION = 1
_NEEDED_SQLITE = (3, 35, 0)

_SCHEMA = """
CREATE TABLE claims (
    key TEXT PRIMARY KEY,
    mchid TEXT NOT NULL,
    subject TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    state TEXT NOT NULL,            -- held, released, done
    fence INTEGER NOT NULL,
    lease_until REAL NOT NULL,      -- Unix seconds
    attempts INTEGER NOT NULL,
    completed TEXT NOT NULL,        -- JSON list of plugin names
    out_trade_no TEXT,
    reason TEXT,                    -- of a conflict
    fact_at REAL,
    first_seen REAL NOT NULL,
    done_at REAL,
    last_error TEXT
) WITHOUT ROWID;
CREATE INDEX claims_by_subject ON claims (subject);
CREATE INDEX claims_open ON claims (state) WHERE state <> 'done';
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
CREATE TABLE memory (purged_before REAL NOT NULL);
INSERT INTO memory VALUES (0);
"""

_TIMES = frozenset({"created_at", "expires_at", "prepay_at", "success_time", "settled_at"})
_ORDER_SETTLED = (
    "state", "transaction_id", "success_time", "payer_total", "source", "settled_at",
)  # fmt: skip
_REFUND_SETTLED = (
    "state", "refund_id", "status", "transaction_id", "out_trade_no", "success_time",
    "payer_refund", "source", "settled_at",
)  # fmt: skip
# How far a refund has come; a status that is no step forward is a duplicate.
_RANK = {None: 0, "PROCESSING": 0, "ABNORMAL": 1, "CLOSED": 2, "SUCCESS": 2}


class SqliteStore:
    """Orders, refunds and claims in one file; leased (docs/once.md says what that promises).

    ``lease`` is renewed at a third of it by a living owner, up to ``max_hold``; ``wait`` is the
    longest wait for the file's write lock; ``now`` gives Unix seconds. Needs SQLite 3.35 or newer.
    Connections open on first use, and again after a fork.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        lease: timedelta = LEASE,
        max_hold: timedelta = MAX_HOLD,
        wait: timedelta = WAIT,
        now: Callable[[], float] = time.time,
    ) -> None:
        if sqlite3.sqlite_version_info < _NEEDED_SQLITE:
            raise ConfigError(
                f"SqliteStore needs SQLite 3.35 or newer; this Python has {sqlite3.sqlite_version}"
            )
        self._path = os.fspath(path)
        if not self._path or ":memory:" in self._path:
            raise ConfigError("SqliteStore needs a file: money must outlive the process")
        self._lease = lease.total_seconds()
        self._max_hold = max_hold.total_seconds()
        self._wait = wait.total_seconds()
        self._now = now
        self._processes: dict[int, _Process] = {}
        _stores.add(self)

    # Claims

    @contextmanager
    def claim(
        self,
        fact: Fact,
        *,
        now: datetime,
        since: datetime | None = None,
        hold: timedelta | None = None,
        wait: timedelta | None = None,
    ) -> Iterator[Claim]:
        patience = self._wait if wait is None else min(self._wait, wait.total_seconds())
        claim = self._settled(fact) or self._take(fact, now, since, hold, patience)
        if claim.outcome is not ClaimOutcome.FRESH:
            yield claim
            return
        with self._process.keeper.keeping(claim):
            try:
                yield claim
            except BaseException as error:
                self._release(claim, error)
                raise
            self._complete(claim, fact, now)

    def is_claimed(self, key: str) -> bool:
        with self._reading() as connection:
            return bool(
                connection.execute(
                    "SELECT 1 FROM claims WHERE key = ?"
                    " AND (state = 'done' OR (state = 'held' AND lease_until > ?))",
                    (key, self._now()),
                ).fetchone()
            )

    def _settled(self, fact: Fact) -> _SqliteClaim | None:
        """Done is final, so it may be read without the write lock, which duplicates then skip."""
        with self._reading() as connection:
            row = self._claim_row(connection, fact.key)
            if row is None or row["state"] != "done" or row["fingerprint"] != fact.fingerprint:
                return None
            lags = self._record_lags(connection, fact.record)
        if lags and fact.record is not None:
            with self._writing() as connection:
                self._write_settled(connection, fact.record)
        return self._claim_of(fact, ClaimOutcome.DONE, row)

    def _take(
        self,
        fact: Fact,
        now: datetime,
        since: datetime | None,
        hold: timedelta | None,
        patience: float,
    ) -> _SqliteClaim:
        longest = self._max_hold if hold is None else min(self._max_hold, hold.total_seconds())
        if longest <= 0 or patience <= 0:
            raise StoreBusyError("no time is left to hold a claim; come again")
        with self._writing(patience) as connection:
            row = self._claim_row(connection, fact.key)
            outcome = self._outcome(connection, fact, row, since)
            if outcome is not ClaimOutcome.FRESH:
                return self._claim_of(fact, outcome, row)
            moment = self._now()
            connection.execute(
                "INSERT INTO claims (key, mchid, subject, fingerprint, state, fence, lease_until,"
                " attempts, completed, out_trade_no, reason, fact_at, first_seen)"
                " VALUES (?, ?, ?, ?, 'held', 1, ?, 1, '[]', ?, ?, ?, ?)"
                " ON CONFLICT (key) DO UPDATE SET state = 'held', fence = fence + 1,"
                " lease_until = excluded.lease_until, attempts = attempts + 1",
                (
                    fact.key,
                    fact.mchid,
                    fact.subject,
                    fact.fingerprint,
                    moment + min(self._lease, longest),
                    fact.out_trade_no,
                    fact.reason,
                    _seconds(fact.at),
                    now.timestamp(),
                ),
            )
            row = self._claim_row(connection, fact.key)
        claim = self._claim_of(fact, outcome, row)
        claim.keep_until = moment + longest
        return claim

    def _outcome(
        self,
        connection: sqlite3.Connection,
        fact: Fact,
        row: sqlite3.Row | None,
        since: datetime | None,
    ) -> ClaimOutcome:
        if row is None:
            if self._is_expired(connection, fact, since):
                return ClaimOutcome.EXPIRED
            if self._is_superseded(connection, fact):
                return ClaimOutcome.DONE
        elif row["state"] == "held" and row["lease_until"] > self._now():
            return ClaimOutcome.BUSY
        elif row["fingerprint"] != fact.fingerprint:
            return ClaimOutcome.CONFLICT
        elif row["state"] == "done":
            return ClaimOutcome.DONE
        neighbour = connection.execute(
            "SELECT 1 FROM claims WHERE subject = ? AND key <> ? AND state = 'held'"
            " AND lease_until > ?",
            (fact.subject, fact.key, self._now()),
        ).fetchone()
        return ClaimOutcome.BUSY if neighbour else ClaimOutcome.FRESH

    def _is_expired(
        self, connection: sqlite3.Connection, fact: Fact, since: datetime | None
    ) -> bool:
        horizon = connection.execute("SELECT purged_before FROM memory").fetchone()[0]
        if since is not None:
            horizon = max(horizon, since.timestamp())
        return fact.at is not None and fact.at.timestamp() < horizon

    def _is_superseded(self, connection: sqlite3.Connection, fact: Fact) -> bool:
        if not isinstance(fact.record, RefundRecord):
            return False
        held = self._refund(connection, fact.record.mchid, fact.record.out_refund_no)
        return (
            held is not None
            and held.state == "settled"
            and _RANK.get(fact.record.status, 0) <= _RANK.get(held.status, 0)
        )

    def _complete_plugin(self, claim: _SqliteClaim, name: str) -> None:
        done = json.dumps(sorted(claim.completed | {name}))
        with self._writing() as connection:
            self._update_owned(connection, claim, "completed = ?", done)
        claim.completed |= {name}

    def _complete(self, claim: _SqliteClaim, fact: Fact, now: datetime) -> None:
        with self._writing() as connection:
            self._update_owned(connection, claim, "state = 'done', done_at = ?", now.timestamp())
            if fact.record is not None:
                self._write_settled(connection, fact.record)

    def _update_owned(
        self, connection: sqlite3.Connection, claim: _SqliteClaim, assignment: str, value: object
    ) -> None:
        """Change a claim that is still ours: the fence is the current one and the lease runs."""
        changed = connection.execute(
            f"UPDATE claims SET {assignment}"  # noqa: S608 - assignments are this module's own
            " WHERE key = ? AND fence = ? AND state = 'held' AND lease_until > ?",
            (value, claim.key, claim.fence, self._now()),
        ).rowcount
        if not changed:
            raise LeaseLostError(
                f"the lease of {claim.key} ended (fence {claim.fence}) before it was recorded; "
                "the work may be done again: make hooks shorter, or enqueue"
            )

    def _release(self, claim: _SqliteClaim, error: BaseException) -> None:
        cause = error.__cause__ or error
        with self._writing() as connection:
            connection.execute(
                "UPDATE claims SET state = 'released', lease_until = 0, last_error = ?"
                " WHERE key = ? AND fence = ? AND state = 'held'",
                (f"{type(cause).__name__}: {cause}"[:500], claim.key, claim.fence),
            )

    def _renew(self, claim: _SqliteClaim) -> bool:
        moment = self._now()
        if moment >= claim.keep_until:
            return False
        with self._writing() as connection:
            return bool(
                connection.execute(
                    "UPDATE claims SET lease_until = ? WHERE key = ? AND fence = ?"
                    " AND state = 'held'",
                    (min(moment + self._lease, claim.keep_until), claim.key, claim.fence),
                ).rowcount
            )

    def _claim_row(self, connection: sqlite3.Connection, key: str) -> sqlite3.Row | None:
        row: sqlite3.Row | None = connection.execute(
            "SELECT * FROM claims WHERE key = ?", (key,)
        ).fetchone()
        return row

    def _claim_of(self, fact: Fact, outcome: ClaimOutcome, row: sqlite3.Row | None) -> _SqliteClaim:
        return _SqliteClaim(
            self,
            fact.key,
            outcome,
            fence=row["fence"] if row else None,
            attempt=row["attempts"] if row else 1,
            recorded=row["fingerprint"] if row else None,
            completed=frozenset(json.loads(row["completed"])) if row else frozenset(),
        )

    # Orders and refunds

    def add_order(self, record: OrderRecord) -> OrderRecord:
        with self._writing() as connection:
            _insert(connection, "orders", record)
            held = self._order(connection, record.mchid, record.out_trade_no)
        return held or record

    def order(self, mchid: str, out_trade_no: str) -> OrderRecord | None:
        with self._reading() as connection:
            return self._order(connection, mchid, out_trade_no)

    def order_answered(
        self,
        mchid: str,
        out_trade_no: str,
        *,
        state: OrderState,
        prepay_id: str | None = None,
        at: datetime,
    ) -> None:
        with self._writing() as connection:
            connection.execute(
                "UPDATE orders SET state = ?, prepay_id = coalesce(?, prepay_id),"
                " prepay_at = CASE WHEN ? IS NULL THEN prepay_at ELSE ? END"
                " WHERE mchid = ? AND out_trade_no = ? AND settled_at IS NULL",
                (state, prepay_id, prepay_id, at.timestamp(), mchid, out_trade_no),
            )

    def add_refund(self, record: RefundRecord) -> RefundRecord:
        with self._writing() as connection:
            _insert(connection, "refunds", record)
            held = self._refund(connection, record.mchid, record.out_refund_no)
        return held or record

    def refund(self, mchid: str, out_refund_no: str) -> RefundRecord | None:
        with self._reading() as connection:
            return self._refund(connection, mchid, out_refund_no)

    def refunds(self, mchid: str, out_trade_no: str) -> list[RefundRecord]:
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT * FROM refunds WHERE mchid = ? AND out_trade_no = ? ORDER BY created_at",
                (mchid, out_trade_no),
            ).fetchall()
        return [_record(row, RefundRecord) for row in rows]

    def refund_answered(self, record: RefundRecord) -> None:
        with self._writing() as connection:
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

    def _order(
        self, connection: sqlite3.Connection, mchid: str, out_trade_no: str
    ) -> OrderRecord | None:
        row = connection.execute(
            "SELECT * FROM orders WHERE mchid = ? AND out_trade_no = ?", (mchid, out_trade_no)
        ).fetchone()
        return row and _record(row, OrderRecord)

    def _refund(
        self, connection: sqlite3.Connection, mchid: str, out_refund_no: str
    ) -> RefundRecord | None:
        row = connection.execute(
            "SELECT * FROM refunds WHERE mchid = ? AND out_refund_no = ?", (mchid, out_refund_no)
        ).fetchone()
        return row and _record(row, RefundRecord)

    def _record_lags(
        self, connection: sqlite3.Connection, record: OrderRecord | RefundRecord | None
    ) -> bool:
        if isinstance(record, OrderRecord):
            order = self._order(connection, record.mchid, record.out_trade_no)
            return order is None or order.settled_at is None
        if isinstance(record, RefundRecord):
            refund = self._refund(connection, record.mchid, record.out_refund_no)
            return refund is None or refund.settled_at is None
        return False

    def _write_settled(
        self, connection: sqlite3.Connection, record: OrderRecord | RefundRecord
    ) -> None:
        if isinstance(record, OrderRecord):
            _insert(connection, "orders", record, "(mchid, out_trade_no)", _ORDER_SETTLED)
        else:
            _insert(connection, "refunds", record, "(mchid, out_refund_no)", _REFUND_SETTLED)

    # The operator's view, and memory

    def unsettled(self, mchid: str) -> list[Unsettled]:
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT * FROM claims WHERE mchid = ? AND (state = 'released'"
                " OR (state = 'held' AND lease_until <= ?)) ORDER BY first_seen, key",
                (mchid, self._now()),
            ).fetchall()
        return [
            Unsettled(
                key=row["key"],
                fingerprint=row["fingerprint"],
                reason=row["reason"] or "failed",
                out_trade_no=row["out_trade_no"],
                first_seen=_moment(row["first_seen"]),
                attempts=row["attempts"],
                last_error=row["last_error"]
                or (row["state"] == "held" and "its process died")
                or None,
            )
            for row in rows
        ]

    def purge(self, before: datetime) -> int:
        horizon = before.timestamp()
        with self._writing() as connection:
            connection.execute(
                "UPDATE memory SET purged_before = max(purged_before, ?)", (horizon,)
            )
            forgotten = connection.execute(
                "DELETE FROM claims WHERE state = 'done' AND reason IS NULL"
                " AND done_at < ? AND fact_at < ?",
                (horizon, horizon),
            ).rowcount
            for table in ("orders", "refunds"):
                connection.execute(
                    f"DELETE FROM {table} WHERE settled_at < ?"  # noqa: S608 - names from above
                    f" AND NOT EXISTS (SELECT 1 FROM claims WHERE claims.mchid = {table}.mchid"
                    f" AND claims.out_trade_no = {table}.out_trade_no)",
                    (horizon,),
                )
        return int(forgotten)

    def close(self) -> None:
        self._process.close()

    # Connections

    @property
    def _process(self) -> _Process:
        """This process's connections; a fork's child has none of its parent's."""
        pid = os.getpid()
        return self._processes.get(pid) or self._processes.setdefault(
            pid, _Process(_Keeper(self._renew, self._lease / 3))
        )

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with _store_errors(self._path), self._process.connection(self._connect) as connection:
            yield connection

    @contextmanager
    def _writing(self, wait: float | None = None) -> Iterator[sqlite3.Connection]:
        # Threads queue on a lock of their own: SQLite's polls, and would let some starve.
        patience = self._wait if wait is None else wait
        deadline = time.monotonic() + patience
        writer = self._process.writer
        if not writer.acquire(timeout=patience):
            raise StoreBusyError(f"the write lock of {self._path} was not free in {patience:.1f} s")
        try:
            with self._reading() as connection:
                left = max(0.0, deadline - time.monotonic())
                connection.execute(f"PRAGMA busy_timeout = {int(left * 1000)}")
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
        finally:
            writer.release()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=self._wait, isolation_level=None, check_same_thread=False
        )
        try:
            connection.row_factory = sqlite3.Row
            self._into_wal(connection)
            connection.execute("PRAGMA synchronous = FULL")
            self._migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _into_wal(self, connection: sqlite3.Connection) -> None:
        # Switching to WAL does not wait for a lock as other statements do: another process may
        # be switching the same new file at this moment.
        deadline = time.monotonic() + self._wait
        while True:
            try:
                mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
                continue
            if mode != "wal":
                raise StoreError(
                    f"{self._path} cannot use WAL ({mode}); put it on a local disk, not a network "
                    "share"
                )
            return

    def _migrate(self, connection: sqlite3.Connection) -> None:
        if self._version(connection) == 0:
            connection.execute("BEGIN IMMEDIATE")
            try:
                if self._version(connection) == 0:
                    for statement in _SCHEMA.split(";\n"):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise
        if self._version(connection) > _SCHEMA_VERSION:
            raise StoreError(
                f"{self._path} was written by a newer wechatpay-kit (schema "
                f"{self._version(connection)}, this one knows {_SCHEMA_VERSION}); upgrade"
            )

    def _version(self, connection: sqlite3.Connection) -> int:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])

    def __repr__(self) -> str:
        return f"SqliteStore({self._path!r})"


class _SqliteClaim:
    def __init__(
        self,
        store: SqliteStore,
        key: str,
        outcome: ClaimOutcome,
        *,
        fence: int | None,
        attempt: int,
        recorded: str | None,
        completed: frozenset[str],
    ) -> None:
        self._store, self.key, self.outcome = store, key, outcome
        self.fence, self.attempt, self.recorded = fence, attempt, recorded
        self.completed = completed
        self.connection = None
        self.keep_until = 0.0

    def complete_plugin(self, name: str) -> None:
        self._store._complete_plugin(self, name)  # noqa: SLF001 - one class in two parts


class _Process:
    """The connections of one process, and what keeps its leases."""

    def __init__(self, keeper: _Keeper) -> None:
        self.writer = threading.Lock()
        self.keeper = keeper
        self._idle: list[sqlite3.Connection] = []
        self._in_use = 0
        self._gate = threading.Condition()

    @contextmanager
    def connection(self, connect: Callable[[], sqlite3.Connection]) -> Iterator[sqlite3.Connection]:
        """An idle connection or a new one; one that an error went through is not used again."""
        with self._gate:
            self._in_use += 1
            connection = self._idle.pop() if self._idle else None
        try:
            connection = connection or connect()
            yield connection
        except BaseException:
            if connection is not None:
                connection.close()
            connection = None
            raise
        finally:
            with self._gate:
                self._in_use -= 1
                if connection is not None:
                    self._idle.append(connection)
                self._gate.notify_all()

    def close(self) -> None:
        with self._gate:
            self._close_idle()

    def before_fork(self) -> None:
        """SQLite's locks do not survive a fork: fork with no connection open, and let none open."""
        self._gate.acquire()
        self._gate.wait_for(lambda: not self._in_use, timeout=WAIT.total_seconds() * 2)
        self._close_idle()

    def after_fork(self) -> None:
        self._gate.release()

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()


_stores: weakref.WeakSet[SqliteStore] = weakref.WeakSet()
_forking: list[_Process] = []


def _before_fork() -> None:
    for store in list(_stores):
        process = store._processes.get(os.getpid())  # noqa: SLF001 - the same module
        if process is not None:
            process.before_fork()
            _forking.append(process)


def _after_fork_in_parent() -> None:
    while _forking:
        _forking.pop().after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_forking.clear,
    )


class _Keeper:
    """Renews the leases of claims in work, from one thread that ends when there are none."""

    def __init__(self, renew: Callable[[_SqliteClaim], bool], interval: float) -> None:
        self._renew = renew
        self._interval = interval
        self._due: dict[_SqliteClaim, float] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @contextmanager
    def keeping(self, claim: _SqliteClaim) -> Iterator[None]:
        with self._changed:
            self._due[claim] = time.monotonic() + self._interval
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="wechatpay-kit-leases", daemon=True
                )
                self._thread.start()
        try:
            yield
        finally:
            with self._changed:
                self._due.pop(claim, None)
                self._changed.notify()

    def _run(self) -> None:
        while (claim := self._next()) is not None:
            try:
                renewed = self._renew(claim)
            except StoreError:
                renewed = True  # the database may be back before the lease ends
            with self._changed:
                if claim in self._due:
                    self._due[claim] = time.monotonic() + self._interval
                    if not renewed:
                        del self._due[claim]

    def _next(self) -> _SqliteClaim | None:
        """Wait for the claim that is due; None once nothing has been in work for a while."""
        with self._changed:
            while True:
                if not self._due:
                    self._changed.wait(self._interval)
                    if not self._due:
                        self._thread = None
                        return None
                claim, due = min(self._due.items(), key=lambda item: item[1])
                left = due - time.monotonic()
                if left <= 0:
                    return claim
                self._changed.wait(left)


class _Column(NamedTuple):
    name: str
    value: object


def _columns(record: OrderRecord | RefundRecord) -> list[_Column]:
    return [
        _Column(name, _seconds(value) if name in _TIMES else value)
        for name, value in msgspec.structs.asdict(record).items()
    ]


def _insert(
    connection: sqlite3.Connection,
    table: str,
    record: OrderRecord | RefundRecord,
    key: str = "",
    settled: tuple[str, ...] = (),
) -> None:
    """Insert ``record``; where its number is taken, change the ``settled`` columns alone."""
    columns = _columns(record)
    update = ", ".join(f"{name} = excluded.{name}" for name in settled)
    action = f"DO UPDATE SET {update}" if update else "DO NOTHING"
    connection.execute(
        f"INSERT INTO {table} ({', '.join(c.name for c in columns)})"  # noqa: S608 - own names
        f" VALUES ({', '.join('?' * len(columns))}) ON CONFLICT {key} {action}",
        [column.value for column in columns],
    )


def _record(row: sqlite3.Row, kind: type[R]) -> R:
    values: dict[str, Any] = {
        name: _moment(row[name]) if name in _TIMES and row[name] is not None else row[name]
        for name in kind.__struct_fields__
    }
    return kind(**values)


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


@contextmanager
def _store_errors(path: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if _is_busy(error):
            raise StoreBusyError(f"{path} is locked by another process; come again") from error
        raise StoreError(f"{path}: {error}") from error
