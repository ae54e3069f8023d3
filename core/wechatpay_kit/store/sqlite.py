"""The embedded store: one SQLite file, claims held by lease.

Knows claims, leases and fences; knows nothing of hooks or messages. Every decision is one
``BEGIN IMMEDIATE`` transaction. Leases run on the machine's own clock, which nobody can set; the
fence keeps an owner that stalled past its lease from undoing its successor.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from wechatpay_kit.errors import ConfigError, LeaseLostError, StoreBusyError, StoreError
from wechatpay_kit.processes import PerProcess
from wechatpay_kit.records import REFUND_RANK, RefundRecord, Unsettled

from . import ClaimOutcome
from .lease_clock import LeaseClock, machine_clock
from .leases import LeaseKeeper
from .sqlite_file import SqliteFile
from .sqlite_records import (
    RECORDS_SCHEMA,
    SqliteRecords,
    as_moment,
    as_seconds,
    find_refund,
    lags,
    write_settled,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from . import Claim, Fact

__all__ = ["SqliteStore"]

LEASE = timedelta(seconds=60)
MAX_HOLD = timedelta(minutes=10)
WAIT = timedelta(seconds=2)  # for the write lock; WeChat Pay waits 5 s for the whole delivery
_SCHEMA_VERSION = 1
_NEEDED_SQLITE = (3, 35, 0)

_CLAIMS_SCHEMA = """
CREATE TABLE claims (
    key TEXT PRIMARY KEY,
    mchid TEXT NOT NULL,
    subject TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    state TEXT NOT NULL,            -- held, released, done
    fence INTEGER NOT NULL,
    boot TEXT NOT NULL,             -- the origin of lease_until
    lease_until REAL NOT NULL,      -- seconds since then
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
CREATE INDEX claims_by_order ON claims (mchid, out_trade_no);
CREATE INDEX claims_open ON claims (state) WHERE state <> 'done';
CREATE TABLE memory (
    mchid TEXT PRIMARY KEY,
    purged_before REAL NOT NULL     -- Unix seconds
) WITHOUT ROWID;
"""

_PURGE_BATCH = 500
_PURGE_CLAIMS = f"""
DELETE FROM claims WHERE key IN (
    SELECT key FROM claims AS old WHERE mchid = :mchid AND state = 'done' AND reason IS NULL
        AND done_at < :horizon AND fact_at < :horizon
        AND NOT EXISTS (
            SELECT 1 FROM claims AS kept
            WHERE kept.mchid = old.mchid AND kept.out_trade_no = old.out_trade_no
            AND NOT (kept.state = 'done' AND kept.reason IS NULL
                     AND kept.done_at < :horizon AND kept.fact_at < :horizon)
        )
    LIMIT {_PURGE_BATCH}
)
"""  # noqa: S608 - a number of this module
_PURGE_ORDERS, _PURGE_REFUNDS = (
    f"""
DELETE FROM {table} WHERE mchid = :mchid AND {number} IN (
    SELECT {number} FROM {table} AS old WHERE mchid = :mchid AND settled_at < :horizon
        AND NOT EXISTS (
            SELECT 1 FROM claims
            WHERE claims.mchid = old.mchid AND claims.out_trade_no = old.out_trade_no
        )
    LIMIT {_PURGE_BATCH}
)
"""  # noqa: S608 - names of this module
    for table, number in (("orders", "out_trade_no"), ("refunds", "out_refund_no"))
)


class SqliteStore(SqliteRecords):
    """Orders, refunds and claims in one file; leased (docs/once.md says what that promises).

    ``lease`` is renewed at a third of it by a living owner, up to ``max_hold``; ``wait`` is the
    longest wait for the file's write lock; ``now`` takes the place of the machine's clock, in
    seconds. Needs SQLite 3.35 or newer.
    Connections open on first use, and again after a fork.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        lease: timedelta = LEASE,
        max_hold: timedelta = MAX_HOLD,
        wait: timedelta = WAIT,
        now: Callable[[], float] | None = None,
    ) -> None:
        if sqlite3.sqlite_version_info < _NEEDED_SQLITE:
            raise ConfigError(
                f"SqliteStore needs SQLite 3.35 or newer; this Python has {sqlite3.sqlite_version}"
            )
        name = os.fspath(path)
        if not name or ":memory:" in name or name.startswith("file:"):
            raise ConfigError("SqliteStore needs a file: money must outlive the process")
        schema = RECORDS_SCHEMA + _CLAIMS_SCHEMA
        super().__init__(
            SqliteFile(str(Path(name).absolute()), schema, _SCHEMA_VERSION, wait.total_seconds())
        )
        self._lease = lease.total_seconds()
        self._max_hold = max_hold.total_seconds()
        self._wait = wait.total_seconds()
        self._boot, self._now = LeaseClock("given", now) if now else machine_clock()
        self._keeper = PerProcess(self._new_keeper)

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
        longest = self._max_hold if hold is None else min(self._max_hold, hold.total_seconds())
        began = self._now()
        claim = self._done(fact) or self._take(fact, now, since, began + longest, patience)
        if claim.outcome is not ClaimOutcome.FRESH:
            yield claim
            return
        with self._keeper().keeping(claim):
            try:
                yield claim
            except BaseException as error:
                try:
                    self._release(claim, error)
                except StoreError as lost:  # what was raised first says more
                    error.add_note(f"and its claim was not released: {lost}; its lease will end")
                raise
            self._complete(claim, fact, now)

    def is_claimed(self, key: str) -> bool:
        with self._file.reading() as connection:
            row = _row(connection, key)
        return row is not None and (row["state"] == "done" or self._is_held(row))

    def unsettled(self, mchid: str) -> list[Unsettled]:
        with self._file.reading() as connection:
            rows = connection.execute(
                "SELECT * FROM claims WHERE mchid = ? AND state <> 'done' ORDER BY first_seen, key",
                (mchid,),
            ).fetchall()
        return [
            Unsettled(
                key=row["key"],
                fingerprint=row["fingerprint"],
                reason=row["reason"] or "failed",
                out_trade_no=row["out_trade_no"],
                first_seen=as_moment(row["first_seen"]),
                attempts=row["attempts"],
                last_error="its process died" if row["state"] == "held" else row["last_error"],
            )
            for row in rows
            if not self._is_held(row)
        ]

    def purge(self, mchid: str, before: datetime) -> int:
        horizon = before.timestamp()
        with self._file.writing() as connection:
            connection.execute(
                "INSERT INTO memory VALUES (?, ?) ON CONFLICT (mchid)"
                " DO UPDATE SET purged_before = max(purged_before, excluded.purged_before)",
                (mchid, horizon),
            )
        forgotten, _orders, _refunds = (
            self._in_batches(statement, {"mchid": mchid, "horizon": horizon})
            for statement in (_PURGE_CLAIMS, _PURGE_ORDERS, _PURGE_REFUNDS)
        )
        return forgotten

    def _in_batches(self, statement: str, parameters: dict[str, object]) -> int:
        """Delete a little at a time: deliveries wait for the same lock."""
        total = 0
        while True:
            with self._file.writing() as connection:
                deleted = connection.execute(statement, parameters).rowcount
            total += deleted
            if deleted < _PURGE_BATCH:
                return total

    def close(self) -> None:
        self._keeper().close()
        self._file.close()

    def __repr__(self) -> str:
        return f"SqliteStore({self._file.path!r})"

    # Taking a claim

    def _done(self, fact: Fact) -> _SqliteClaim | None:
        """Done is final, so it may be read without the write lock: duplicates never wait."""
        with self._file.reading() as connection:
            row = _row(connection, fact.key)
            if row is None or row["state"] != "done" or row["fingerprint"] != fact.fingerprint:
                return None
            is_behind = lags(connection, fact.record)
        if is_behind:
            with self._file.writing() as connection:
                write_settled(connection, fact.record)
        return _SqliteClaim(self, fact.key, ClaimOutcome.DONE, row)

    def _take(
        self,
        fact: Fact,
        now: datetime,
        since: datetime | None,
        keep_until: float,
        patience: float,
    ) -> _SqliteClaim:
        if keep_until <= self._now() or patience <= 0:
            raise StoreBusyError("no time is left to hold a claim; come again")
        with self._file.writing(patience) as connection:
            row = _row(connection, fact.key)
            outcome = self._outcome(connection, fact, row, since)
            if outcome is not ClaimOutcome.FRESH:
                if outcome is ClaimOutcome.DONE and row is not None:  # overtaken: not due again
                    connection.execute(
                        "UPDATE claims SET state = 'done', done_at = coalesce(done_at, ?)"
                        " WHERE key = ?",
                        (now.timestamp(), fact.key),
                    )
                return _SqliteClaim(self, fact.key, outcome, row)
            moment = self._now()
            if keep_until <= moment:
                raise StoreBusyError("the time to hold a claim is over; come again")
            connection.execute(
                "INSERT INTO claims (key, mchid, subject, fingerprint, state, fence, boot,"
                " lease_until, attempts, completed, out_trade_no, reason, fact_at, first_seen)"
                " VALUES (?, ?, ?, ?, 'held', 1, ?, ?, 1, '[]', ?, ?, ?, ?)"
                " ON CONFLICT (key) DO UPDATE SET state = 'held', fence = fence + 1,"
                " boot = excluded.boot, lease_until = excluded.lease_until,"
                " attempts = attempts + 1",
                (
                    fact.key,
                    fact.mchid,
                    fact.subject,
                    fact.fingerprint,
                    self._boot,
                    min(moment + self._lease, keep_until),
                    fact.out_trade_no,
                    fact.reason,
                    as_seconds(fact.at),
                    now.timestamp(),
                ),
            )
            row = _row(connection, fact.key)
        return _SqliteClaim(self, fact.key, outcome, row, keep_until)

    def _outcome(
        self,
        connection: sqlite3.Connection,
        fact: Fact,
        row: sqlite3.Row | None,
        since: datetime | None,
    ) -> ClaimOutcome:
        if row is None:
            if _is_expired(connection, fact, since):
                return ClaimOutcome.EXPIRED
        elif self._is_held(row):
            return ClaimOutcome.BUSY
        elif row["fingerprint"] != fact.fingerprint:
            return ClaimOutcome.CONFLICT
        elif row["state"] == "done":
            return ClaimOutcome.DONE
        if _is_superseded(connection, fact):
            return ClaimOutcome.DONE
        neighbours = connection.execute(
            "SELECT * FROM claims WHERE subject = ? AND key <> ?", (fact.subject, fact.key)
        ).fetchall()
        return ClaimOutcome.BUSY if any(map(self._is_held, neighbours)) else ClaimOutcome.FRESH

    def _is_held(self, row: sqlite3.Row) -> bool:
        is_of_this_boot = row["boot"] == self._boot
        return bool(row["state"] == "held" and is_of_this_boot and row["lease_until"] > self._now())

    # Owning a claim

    def _new_keeper(self) -> LeaseKeeper[_SqliteClaim]:
        return LeaseKeeper(self._renew, self._lease / 3)

    def _complete_plugin(self, claim: _SqliteClaim, name: str) -> None:
        completed = claim.completed | {name}
        with self._file.writing(self._left(claim)) as connection:
            self._update_owned(connection, claim, "completed = ?", json.dumps(sorted(completed)))
        claim.completed = completed

    def _complete(self, claim: _SqliteClaim, fact: Fact, now: datetime) -> None:
        with self._file.writing(self._left(claim)) as connection:
            self._update_owned(connection, claim, "state = 'done', done_at = ?", now.timestamp())
            connection.execute(
                "UPDATE claims SET state = 'done', done_at = ? WHERE key = ? AND state <> 'done'"
                " AND NOT (state = 'held' AND boot = ? AND lease_until > ?)",
                (now.timestamp(), fact.conflict_key, self._boot, self._now()),
            )
            write_settled(connection, fact.record)

    def _left(self, claim: _SqliteClaim) -> float:
        """As long as the lease runs: giving up earlier would make finished work run again."""
        return max(0.0, claim.lease_until - self._now())

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
        with self._file.writing(min(self._wait, self._left(claim))) as connection:
            connection.execute(
                "UPDATE claims SET state = 'released', lease_until = 0, last_error = ?"
                " WHERE key = ? AND fence = ? AND state = 'held'",
                (_text(error.__cause__ or error), claim.key, claim.fence),
            )

    def _renew(self, claim: _SqliteClaim) -> bool:
        with self._file.writing() as connection:
            moment = self._now()
            until = min(moment + self._lease, claim.keep_until)
            # A lease that ended stays ended: a successor may be at its subject already.
            renewed = connection.execute(
                "UPDATE claims SET lease_until = ? WHERE key = ? AND fence = ?"
                " AND state = 'held' AND lease_until > ?",
                (until, claim.key, claim.fence, moment),
            ).rowcount
        if renewed:
            claim.lease_until = until
        return bool(renewed)


class _SqliteClaim:
    def __init__(
        self,
        store: SqliteStore,
        key: str,
        outcome: ClaimOutcome,
        row: sqlite3.Row | None,
        keep_until: float = 0.0,
    ) -> None:
        self._store, self.key, self.outcome = store, key, outcome
        self.keep_until = keep_until
        self.lease_until: float = row["lease_until"] if row else 0.0
        self.fence: int | None = row["fence"] if row else None
        self.attempt: int = row["attempts"] if row else 1
        self.recorded: str | None = row["fingerprint"] if row else None
        self.completed = frozenset(json.loads(row["completed"])) if row else frozenset[str]()
        self.connection = None

    def complete_plugin(self, name: str) -> None:
        self._store._complete_plugin(self, name)  # noqa: SLF001 - one class in two parts


def _row(connection: sqlite3.Connection, key: str) -> sqlite3.Row | None:
    row: sqlite3.Row | None = connection.execute(
        "SELECT * FROM claims WHERE key = ?", (key,)
    ).fetchone()
    return row


def _is_expired(connection: sqlite3.Connection, fact: Fact, since: datetime | None) -> bool:
    row = connection.execute(
        "SELECT purged_before FROM memory WHERE mchid = ?", (fact.mchid,)
    ).fetchone()
    purged_before = row["purged_before"] if row else None
    if fact.at is None:
        return purged_before is not None
    horizons = (purged_before, as_seconds(since))
    return any(fact.at.timestamp() < horizon for horizon in horizons if horizon is not None)


def _text(error: BaseException) -> str:
    """For an operator; whatever the exception is made of, its claim must be released."""
    try:
        said = f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - its own __str__ raised
        said = type(error).__name__
    return said[:500].encode(errors="backslashreplace").decode()


def _is_superseded(connection: sqlite3.Connection, fact: Fact) -> bool:
    if not isinstance(fact.record, RefundRecord):
        return False
    held = find_refund(connection, fact.record.mchid, fact.record.out_refund_no)
    return (
        held is not None
        and held.state == "settled"
        and REFUND_RANK.get(fact.record.status, 0) <= REFUND_RANK.get(held.status, 0)
    )
