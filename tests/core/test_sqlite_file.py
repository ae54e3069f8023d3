"""What is the SQLite store's own: paths, files, locks and versions."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import closing
from datetime import timedelta

import pytest

from core.facts_at_hand import (
    DONE,
    FRESH,
    HookFailed,
    claim,
    complete,
    order,
    outcome,
    paid,
    refund_record,
)
from deliveries import MCHID, NOW
from wechatpay_kit import ConfigError, StoreBusyError, StoreError
from wechatpay_kit.store import open_store
from wechatpay_kit.store.sqlite import SqliteStore


def test_a_store_in_memory_is_refused():
    for path in (":memory:", "file::memory:?cache=shared", ""):
        with pytest.raises(ConfigError, match="file"):
            SqliteStore(path)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///shop.db",
        "sqlite:///data/shop.db",
        "sqlite://",
        "sqlite://host/shop.db",
        "postgresql://shop",
        "/var/lib/shop.db",
        "",
    ],
)
def test_an_address_that_is_no_absolute_sqlite_path_is_refused(url):
    with pytest.raises(ConfigError, match="sqlite:////"):
        open_store(url)


def test_an_absolute_address_opens_that_file(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/shop.db")
    complete(store, paid())
    store.close()
    assert (tmp_path / "shop.db").exists()


def test_a_relative_path_is_one_memory_whatever_the_working_directory(tmp_path, monkeypatch):
    """A server that changes its directory after the first delivery must not forget it."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    store = SqliteStore("shop.db")
    try:
        complete(store, paid())
        store.close()  # "the next use opens them again"
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert outcome(store, paid()) is DONE
    finally:
        store.close()


def test_a_missing_directory_is_a_store_error_that_names_the_path(tmp_path):
    path = tmp_path / "missing" / "shop.db"
    with pytest.raises(StoreError, match="missing"):
        complete(SqliteStore(path), paid())


def test_a_file_that_is_no_database_is_a_store_error_and_stays_as_it_was(tmp_path):
    path = tmp_path / "shop.db"
    path.write_bytes(b"out_trade_no,total\n" * 200)
    with pytest.raises(StoreError, match=r"shop\.db"):
        complete(SqliteStore(path), paid())
    assert path.read_bytes() == b"out_trade_no,total\n" * 200


def test_a_directory_is_a_store_error(tmp_path):
    with pytest.raises(StoreError):
        complete(SqliteStore(tmp_path), paid())


def test_a_schema_of_a_newer_version_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "shop.db"
    store = SqliteStore(path)
    complete(store, paid())
    store.close()
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version = 99")
    for act in (
        lambda s: s.order(MCHID, "T1001"),
        lambda s: outcome(s, paid("T2")),
        lambda s: s.unsettled(MCHID),
    ):
        with pytest.raises(StoreError, match="newer"):
            act(SqliteStore(path))
    with closing(sqlite3.connect(path)) as newer:
        assert newer.execute("PRAGMA user_version").fetchone() == (99,)


@pytest.fixture
def read_only_folder(tmp_path):
    """A folder and a file in it that this process may not write, root or not."""
    path = tmp_path / "shop.db"
    store = SqliteStore(path)
    complete(store, paid())
    store.close()
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    user = os.geteuid()
    parents = list(tmp_path.parents)[:3]
    modes = [(p, p.stat().st_mode) for p in parents if p.stat().st_uid == user]
    if user == 0:
        for parent, mode in modes:
            parent.chmod(mode | 0o011)
        os.seteuid(65534)
    yield path
    if user == 0:
        os.seteuid(0)
        for parent, mode in modes:
            parent.chmod(mode)
    tmp_path.chmod(0o755)


def test_a_read_only_file_is_a_store_error(read_only_folder):
    store = SqliteStore(read_only_folder)
    try:
        with pytest.raises(StoreError, match=r"shop\.db"):
            complete(store, paid("T2"))
        with pytest.raises(StoreError, match=r"shop\.db"):
            store.add_order(order("T3"))
    finally:
        store.close()


def test_another_process_that_holds_the_write_lock_is_waited_for_no_longer_than_said(tmp_path):
    path = tmp_path / "shop.db"
    store = SqliteStore(path, wait=timedelta(seconds=0.2))
    complete(store, paid("T1"))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        acts = (
            lambda: outcome(store, paid("T2")),
            lambda: store.add_order(order("T2")),
            lambda: store.order_answered(MCHID, "T1", state="open", at=NOW),
            lambda: store.add_refund(refund_record()),
            lambda: store.purge(MCHID, NOW),
        )
        for act in acts:
            began = time.monotonic()
            with pytest.raises(StoreBusyError, match=r"shop\.db"):
                act()
            assert time.monotonic() - began < 1
        assert outcome(store, paid("T1")) is DONE  # duplicates need no lock
        assert store.order(MCHID, "T1").state == "paid"
        other.execute("ROLLBACK")
    assert outcome(store, paid("T2")) is FRESH
    store.close()


def test_a_shorter_wait_of_the_caller_is_kept(tmp_path):
    path = tmp_path / "shop.db"
    store = SqliteStore(path, wait=timedelta(seconds=5))
    complete(store, paid("T1"))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        with pytest.raises(StoreBusyError):
            outcome(store, paid("T2"), wait=timedelta(seconds=0.2))
        assert time.monotonic() - began < 2
        other.execute("ROLLBACK")
    store.close()


@pytest.mark.parametrize("step", ["complete_plugin", "complete", "release"])
def test_the_wait_of_the_caller_bounds_every_lock_of_its_claim(tmp_path, step):
    """“Leases and lock waits are cut to the deadline”: not only the first of them."""
    path = tmp_path / "shop.db"
    store = SqliteStore(path, wait=timedelta(seconds=2))
    short = timedelta(seconds=0.3)
    work = claim(store, paid(), hold=short, wait=short)
    held = work.__enter__()
    failed = HookFailed("no paper")
    steps = {
        "complete_plugin": lambda: held.complete_plugin("stock"),
        "complete": lambda: work.__exit__(None, None, None),
        "release": lambda: work.__exit__(HookFailed, failed, None),
    }
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        if step == "release":  # what the hook raised goes on, and says what else went wrong
            assert not steps[step]()
            assert "was not released" in failed.__notes__[0]
        else:
            with pytest.raises(StoreError):
                steps[step]()
        elapsed = time.monotonic() - began
        other.execute("ROLLBACK")
    if step == "complete_plugin":
        work.__exit__(HookFailed, failed, None)
    store.close()
    assert elapsed < 1


def test_a_file_in_exclusive_use_is_busy_within_time(tmp_path):
    path = tmp_path / "shop.db"
    store = SqliteStore(path, wait=timedelta(seconds=0.2))
    complete(store, paid("T1"))
    store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        with pytest.raises(StoreBusyError):
            store.order(MCHID, "T1")
        assert time.monotonic() - began < 1.5
        other.execute("ROLLBACK")


def test_of_many_connections_at_once_eight_stay_open(tmp_path):
    """A burst of threads must not leave a file handle for each of them behind."""
    store = SqliteStore(tmp_path / "shop.db")
    threads, opened = 50, []
    all_open = threading.Barrier(threads)

    def read():
        with store._file.reading() as connection:
            opened.append(connection)
            all_open.wait(30)

    complete(store, paid())
    burst = [threading.Thread(target=read) for _ in range(threads)]
    for thread in burst:
        thread.start()
    for thread in burst:
        thread.join(30)
    assert len(set(opened)) == threads
    assert sum(map(is_open, opened)) == 8
    assert outcome(store, paid()) is DONE
    store.close()
    assert not any(map(is_open, opened))


def is_open(connection):
    try:
        connection.execute("SELECT 1")
    except sqlite3.ProgrammingError:
        return False
    return True


def test_after_an_error_the_store_works_again(tmp_path):
    path = tmp_path / "later" / "shop.db"
    store = SqliteStore(path)
    with pytest.raises(StoreError):
        store.order(MCHID, "T1")
    path.parent.mkdir()
    complete(store, paid())
    store.close()


def test_what_is_acknowledged_survives_a_power_cut(tmp_path):
    """WAL and synchronous=FULL, on every connection that the store opens."""
    store = SqliteStore(tmp_path / "shop.db")
    complete(store, paid())
    with store._file.reading() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2
    store.close()


def test_a_closed_store_opens_again(tmp_path):
    store = SqliteStore(tmp_path / "shop.db")
    complete(store, paid())
    store.close()
    store.close()
    assert outcome(store, paid()) is DONE
    store.close()


def test_a_sqlite_that_is_too_old_is_refused_with_both_versions(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.34.1")
    with pytest.raises(ConfigError, match=r"3\.35.*3\.34\.1"):
        SqliteStore(tmp_path / "shop.db")
