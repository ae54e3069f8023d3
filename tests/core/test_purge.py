"""Forgetting: in small steps that let others in between, and never what may still be told."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta, timezone

import pytest

from core.facts_at_hand import EXPIRED, claim, complete, order, outcome, paid
from deliveries import MCHID, NOW, Clock, Recorder, delivery, receiving_kit, transaction
from wechatpay_kit import ConfigError, ParameterError
from wechatpay_kit.settlement import Terms
from wechatpay_kit.store import sqlite

LONG_AGO = NOW - timedelta(days=500)
HORIZON = NOW - timedelta(days=400)
MANY = 1200  # more than two batches


def fill(store, number=MANY):
    """Paid orders of long ago, at least three: two by the store's own way, the rest as copies."""
    for name in ("T0", "T1"):
        store.add_order(order(name))
        complete(store, paid(name, at=LONG_AGO, settled_at=LONG_AGO), now=LONG_AGO)
    with closing(sqlite3.connect(store._file.path)) as connection, connection:
        for table in ("claims", "orders"):
            names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            source = {"out_trade_no": "'T' || n", "key": "'order/' || mchid || '/T' || n"}
            source["subject"] = source["key"]
            columns = ", ".join(source.get(name, name) for name in names)
            connection.execute(
                "WITH RECURSIVE counter(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM counter"
                f" WHERE n < ? - 1) INSERT INTO {table} SELECT {columns}"
                f" FROM {table}, counter WHERE out_trade_no = 'T0'",
                (number,),
            )


def count(store, table):
    with closing(sqlite3.connect(store._file.path)) as connection:
        return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def test_a_purge_of_many_batches_forgets_all(store):
    fill(store)
    complete(store, paid("T-young"))
    assert (count(store, "claims"), count(store, "orders")) == (MANY + 1, MANY + 1)
    assert store.purge(MCHID, HORIZON) == MANY
    assert (count(store, "claims"), count(store, "orders")) == (1, 1)
    assert outcome(store, paid("T777", at=LONG_AGO)) is EXPIRED
    assert store.purge(MCHID, HORIZON) == 0


@pytest.mark.parametrize("number", [sqlite._PURGE_BATCH, sqlite._PURGE_BATCH + 1])
def test_a_batch_that_is_just_full_is_not_the_last_by_mistake(store, number):
    fill(store, number)
    assert store.purge(MCHID, HORIZON) == number
    assert (count(store, "claims"), count(store, "orders")) == (0, 0)


def test_another_writer_gets_in_between_the_batches(store, monkeypatch):
    """Each batch is a transaction of its own: a delivery need not wait for all of them."""
    fill(store)
    left = []
    deleted = store._file.writing

    def writing(*args):
        if not left or left[-1] != (seen := count(store, "claims")):
            with closing(sqlite3.connect(store._file.path, timeout=0)) as other, other:
                other.execute("UPDATE orders SET payer_total = 99 WHERE out_trade_no = 'T0'")
            left.append(seen if left else count(store, "claims"))
        return deleted(*args)

    monkeypatch.setattr(store._file, "writing", writing)
    assert store.purge(MCHID, HORIZON) == MANY
    assert left == [1200, 700, 200, 0]


def test_what_a_purge_has_begun_to_forget_is_expired_already(store, monkeypatch):
    """If it is interrupted: the horizon is written first, so nothing half forgotten fires."""
    fill(store)

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "_in_batches", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.purge(MCHID, HORIZON)
    monkeypatch.undo()
    assert outcome(store, paid("T-new", at=LONG_AGO)) is EXPIRED
    assert store.purge(MCHID, HORIZON) == MANY


# What comes afterwards


@pytest.fixture
def kit(store, recorder):
    return receiving_kit(store, recorder, business_clock=Clock())


def paid_at(moment):
    return delivery(transaction(success_time=moment and moment.isoformat()))


def delivery_lines(caplog):
    lines = [(r.levelno, r.wechatpay_kit) for r in caplog.records]
    return [(level, said["outcome"]) for level, said in lines if said["line"] == "delivery"]


def test_an_expired_delivery_fires_nothing_and_warns(kit, store, recorder, caplog):
    caplog.set_level(logging.INFO, "wechatpay_kit")
    store.add_order(order())
    store.purge(MCHID, HORIZON)
    assert kit.receiver.receive(*paid_at(LONG_AGO)).status == 204
    assert recorder.names() == []
    assert delivery_lines(caplog) == [(logging.WARNING, "expired")]


def test_a_payment_without_a_time_is_of_now(kit, store, recorder, caplog):
    caplog.set_level(logging.INFO, "wechatpay_kit")
    store.add_order(order())
    store.purge(MCHID, HORIZON)
    assert kit.receiver.receive(*paid_at(None)).status == 204
    assert recorder.names() == ["on_paid"]
    assert delivery_lines(caplog) == [(logging.INFO, "fired")]


def test_only_the_closing_of_an_order_nobody_knows_is_expired(kit, store, recorder):
    settlement = kit._settlement
    assert settlement.closed("T-stranger", Terms("close")).outcome == "fired"
    store.purge(MCHID, HORIZON)
    store.add_order(order())
    assert settlement.closed("T1001", Terms("close")).outcome == "fired"
    assert settlement.closed("T-other", Terms("close")).outcome == "expired"
    assert [event.out_trade_no for event in recorder.of("on_closed")] == ["T-stranger", "T1001"]


# The kit's own rule


@pytest.mark.parametrize(
    "before",
    [
        NOW + timedelta(days=1),
        NOW,
        NOW - timedelta(hours=25),
        NOW - timedelta(days=2) + timedelta(seconds=1),
        datetime(2020, 1, 1),  # noqa: DTZ001 - naive is what is refused
        (NOW - timedelta(hours=47)).astimezone(timezone(timedelta(hours=-12))),
    ],
    ids=str,
)
def test_a_moment_that_may_still_be_told_of_is_refused(kit, store, before):
    complete(store, paid())
    with pytest.raises(ParameterError, match="two days") as caught:
        kit.purge(before)
    assert caught.value.field == "before"
    with claim(store, paid()) as held:
        assert held.outcome.name == "DONE"
    assert count(store, "memory") == 0


def test_two_days_ago_is_the_latest_moment(kit, store):
    old = NOW - timedelta(days=3)
    store.add_order(order())
    complete(store, paid(at=old, settled_at=old), now=old)
    assert kit.purge(NOW - timedelta(days=2)) == 1


def test_without_a_moment_it_is_the_retention(kit, store):
    fill(store, 3)
    recent = NOW - timedelta(days=399)
    complete(store, paid("T-recent", at=recent, settled_at=recent), now=recent)
    assert kit.purge() == 3
    assert count(store, "claims") == 1


@pytest.mark.parametrize("retention", [timedelta(days=1), timedelta(0), timedelta(-400), 400])
def test_a_retention_that_would_forget_too_early_is_refused(store, retention):
    with pytest.raises(ConfigError, match="retention must be a timedelta of two days"):
        receiving_kit(store, Recorder(), retention=retention)
