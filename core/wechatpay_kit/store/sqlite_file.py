"""One SQLite file, used by many threads and processes.

Knows connections, locks and forks; knows nothing of what is in the tables. WAL mode with
``synchronous=FULL``: what was committed survives a power cut.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING

from wechatpay_kit.errors import StoreBusyError, StoreError
from wechatpay_kit.processes import PerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["SqliteFile"]


class SqliteFile:
    """Opens ``path`` on first use, and again after a fork; ``wait`` bounds every lock, in seconds.

    ``schema`` is the statements that make a new file, ``version`` theirs; a file of a newer
    version is refused rather than misread.
    """

    def __init__(self, path: str, schema: str, version: int, wait: float) -> None:
        self.path = path
        self._schema = schema
        self._known_version = version
        self._wait = wait
        self.pool = PerProcess(_Pool)
        _files.add(self)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection outside a transaction: each statement sees the latest commit."""
        with self._errors(), self.pool().connection(self._connect) as connection:
            yield connection

    @contextmanager
    def writing(self, wait: float | None = None) -> Iterator[sqlite3.Connection]:
        """A connection in a transaction that holds the file's write lock from its beginning.

        Leaving cleanly commits, an exception rolls back. :class:`StoreBusyError` where the lock
        is not free within ``wait`` seconds.
        """
        patience = self._wait if wait is None else wait
        deadline = time.monotonic() + patience
        # Threads queue on a lock of their own: SQLite's polls, and would let some starve.
        writer = self.pool().writer
        if not writer.acquire(timeout=max(0.0, patience)):
            raise StoreBusyError(f"the write lock of {self.path} was not free in {patience:.1f} s")
        try:
            with self.reading() as connection:
                left = max(0.0, deadline - time.monotonic())
                connection.execute(f"PRAGMA busy_timeout = {int(left * 1000)}")
                connection.execute("BEGIN IMMEDIATE")
                with _transaction(connection):
                    yield connection
        finally:
            writer.release()

    def close(self) -> None:
        """Close this process's idle connections."""
        self.pool().close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=self._wait, isolation_level=None, check_same_thread=False
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
        # Switching to WAL does not wait for a lock as other statements do, and another process
        # may be switching the same new file at this moment.
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
                    f"{self.path} cannot use WAL ({mode}); put it on a local disk, not a network "
                    "share"
                )
            return

    def _migrate(self, connection: sqlite3.Connection) -> None:
        if _version(connection) == 0:
            connection.execute("BEGIN IMMEDIATE")
            with _transaction(connection):
                if _version(connection) == 0:
                    for statement in self._schema.split(";\n"):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {self._known_version}")
        found = _version(connection)
        if found > self._known_version:
            raise StoreError(
                f"{self.path} was written by a newer wechatpay-kit (schema {found}, this one "
                f"knows {self._known_version}); upgrade"
            )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OverflowError) as error:  # SQLite's integers have 64 bits
            if _is_busy(error):
                raise StoreBusyError(
                    f"{self.path} is locked by another process; come again"
                ) from error
            raise StoreError(f"{self.path}: {error}") from error


class _Pool:
    """The connections of one process."""

    def __init__(self) -> None:
        self.writer = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._in_use = 0
        self._is_forking = False
        self._gate = threading.Condition()

    @contextmanager
    def connection(self, connect: Callable[[], sqlite3.Connection]) -> Iterator[sqlite3.Connection]:
        """An idle connection or a new one; one that an error went through is not used again."""
        with self._gate:
            self._gate.wait_for(lambda: not self._is_forking)
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
                if len(self._idle) > _IDLE_CONNECTIONS:
                    self._idle.pop(0).close()
                self._gate.notify_all()

    def close(self) -> None:
        with self._gate:
            self._close_idle()

    def before_fork(self) -> None:
        """SQLite's locks do not survive a fork: fork with nothing open, and let nothing open."""
        self._gate.acquire()
        self._is_forking = True
        self._gate.wait_for(lambda: not self._in_use, timeout=_FORK_PATIENCE)
        self._close_idle()

    def after_fork(self) -> None:
        self._is_forking = False
        self._gate.notify_all()
        self._gate.release()

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()


_IDLE_CONNECTIONS = 8  # kept open: more than that write in turn anyway
_FORK_PATIENCE = 4.0  # seconds: no statement of ours takes longer
_files: weakref.WeakSet[SqliteFile] = weakref.WeakSet()
_forking: list[_Pool] = []


def _before_fork() -> None:
    for file in list(_files):
        pool = file.pool()
        pool.before_fork()
        _forking.append(pool)


def _after_fork_in_parent() -> None:
    while _forking:
        _forking.pop().after_fork()


def _after_fork_in_child() -> None:
    _forking.clear()
    for file in list(_files):
        file.pool.forget_parents()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _is_busy(error: Exception) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
