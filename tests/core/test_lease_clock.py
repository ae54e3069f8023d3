"""Leases run on a clock that nobody can set, and end with the boot that they were taken in."""

from __future__ import annotations

import sqlite3
import sys
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from core.facts_at_hand import BUSY, FRESH, claim, complete, conflicting, fail, outcome, paid
from wechatpay_kit import LeaseLostError, SqliteStore
from wechatpay_kit.store import lease_clock
from wechatpay_kit.store.lease_clock import machine_clock

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux names its boot")


def reboot(path, boot="another boot"):
    """Make all leases those of another boot, as the file looks after a restart of the machine."""
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute("UPDATE claims SET boot = ?", (boot,)).rowcount


@pytest.fixture
def path(tmp_path):
    return tmp_path / "wechatpay.db"


@pytest.fixture
def open_store(path):
    opened = []

    def make(**options):
        opened.append(SqliteStore(path, **options))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


@on_linux
def test_the_clock_of_leases_is_not_wall_time():
    clock = machine_clock()
    assert clock.boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert clock.now is not time.time
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= clock.now() <= time.clock_gettime(time.CLOCK_BOOTTIME)


@on_linux
@pytest.mark.parametrize("step", [timedelta(days=400), timedelta(days=-400)])
def test_a_step_of_the_wall_clock_changes_no_lease(open_store, monkeypatch, step):
    stepped = time.time() + step.total_seconds()
    with claim(open_store(), paid()) as held:
        monkeypatch.setattr(time, "time", lambda: stepped)
        assert outcome(open_store(), paid()) is BUSY
        held.complete_plugin("stock")
    assert open_store().is_claimed(paid().key)


def test_where_no_boot_is_named_leases_run_on_wall_time(tmp_path, monkeypatch):
    monkeypatch.setattr(lease_clock, "_BOOT_ID", tmp_path / "none")
    assert machine_clock() == ("wall time", time.time)


def test_an_empty_boot_id_names_no_boot(tmp_path, monkeypatch):
    (tmp_path / "boot_id").write_text("\n")
    monkeypatch.setattr(lease_clock, "_BOOT_ID", tmp_path / "boot_id")
    assert machine_clock().boot == "wall time"


def test_a_machine_without_such_a_clock_runs_on_wall_time(monkeypatch):
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    assert machine_clock() == ("wall time", time.time)


def test_a_lease_of_another_boot_is_over(open_store, path):
    """A seconds-old boot counts from near zero: the old lease would run for days by number."""
    died = claim(open_store(), paid())
    assert died.__enter__().outcome is FRESH
    assert outcome(open_store(), paid()) is BUSY
    reboot(path)
    store = open_store()
    assert not store.is_claimed(paid().key)
    (left,) = store.unsettled(paid().mchid)
    assert left.last_error == "its process died"
    with claim(store, paid()) as held:
        assert (held.outcome, held.attempt, held.fence) == (FRESH, 2, 2)
        assert outcome(open_store(), paid()) is BUSY  # it is of this boot again
    with pytest.raises(LeaseLostError):
        died.__exit__(None, None, None)


def test_a_conflicts_lease_of_another_boot_does_not_outlive_its_fact(open_store, path):
    """It is done with its fact, as any conflict that nobody is working on."""
    store = open_store()
    died = claim(store, conflicting(paid()))
    assert died.__enter__().outcome is FRESH
    reboot(path)
    complete(store, paid())
    assert store.unsettled(paid().mchid) == []
    with pytest.raises(LeaseLostError):
        died.__exit__(None, None, None)


def test_a_released_claim_is_free_in_every_boot(open_store, path):
    fail(open_store(), paid())
    reboot(path)
    assert outcome(open_store(), paid()) is FRESH
