"""Facts and records for tests of stores and settlement, ways to claim them, and a clock to turn."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from datetime import timedelta

import msgspec
import pytest

from deliveries import APPID, MCHID, NOW
from wechatpay_kit import LeaseLostError, OrderRecord, RefundRecord
from wechatpay_kit.facts import Fact, conflict_fact, order_key
from wechatpay_kit.store import ClaimOutcome

FRESH, DONE, BUSY = ClaimOutcome.FRESH, ClaimOutcome.DONE, ClaimOutcome.BUSY
CONFLICT, EXPIRED = ClaimOutcome.CONFLICT, ClaimOutcome.EXPIRED

ORDER = OrderRecord(
    mchid=MCHID,
    out_trade_no="T1001",
    appid=APPID,
    total=100,
    currency="CNY",
    state="open",
    created_at=NOW - timedelta(minutes=5),
)
REFUND = RefundRecord(
    mchid=MCHID,
    out_refund_no="R1",
    refund=30,
    total=100,
    state="accepted",
    created_at=NOW - timedelta(minutes=5),
    out_trade_no="T1001",
)


class StoreTime:
    """The Unix seconds that leases run on; call it for the time, ``advance`` to let it pass."""

    def __init__(self):
        self.seconds = NOW.timestamp()
        self._changed = threading.Condition()
        self._readings_elsewhere = 0
        self._home = threading.get_ident()

    def __call__(self):
        with self._changed:
            if threading.get_ident() != self._home:
                self._readings_elsewhere += 1
                self._changed.notify_all()
            return self.seconds

    def advance(self, seconds):
        with self._changed:
            self.seconds += seconds

    def wait_for_readings(self, number):
        """Wait until other threads, such as one that renews leases, have looked that often."""
        with self._changed:
            wanted = self._readings_elsewhere + number
            assert self._changed.wait_for(lambda: self._readings_elsewhere >= wanted, 10)


def order(number="T1001", **changes):
    return msgspec.structs.replace(ORDER, out_trade_no=number, **changes)


def refund_record(number="R1", **changes):
    return msgspec.structs.replace(REFUND, out_refund_no=number, **changes)


def paid(number="T1001", transaction_id="4200001", *, at=NOW, mchid=MCHID, **settled):
    """That an order of 100 fen is paid, with the record its completion writes."""
    key = order_key(mchid, number)
    record = order(
        number,
        mchid=mchid,
        **{
            "state": "paid",
            "transaction_id": transaction_id,
            "success_time": at,
            "payer_total": 100,
            "source": "notification",
            "settled_at": NOW,
        }
        | settled,
    )
    return Fact(
        mchid=mchid,
        key=key,
        subject=key,
        fingerprint=f"paid:{transaction_id}:100:CNY:{APPID}",
        out_trade_no=number,
        at=at,
        record=record,
    )


def closed(number="T1001", *, at=NOW):
    key = order_key(MCHID, number)
    record = order(number, state="closed", source="close", settled_at=NOW)
    return Fact(
        mchid=MCHID,
        key=key,
        subject=key,
        fingerprint="closed",
        out_trade_no=number,
        at=at,
        record=record,
    )


def refunded(status="SUCCESS", number="R1", *, at=NOW):
    subject = f"refund/{MCHID}/{number}"
    record = refund_record(
        number,
        state="settled",
        status=status,
        refund_id="50300001",
        transaction_id="4200001",
        success_time=at if status == "SUCCESS" else None,
        payer_refund=30,
        source="notification",
        settled_at=NOW,
    )
    return Fact(
        mchid=MCHID,
        key=f"{subject}/{status}",
        subject=subject,
        fingerprint="50300001:30:100",
        out_trade_no="T1001",
        at=at,
        record=record,
    )


def conflicting(fact, reason="mismatch"):
    return conflict_fact(fact, reason)


class HookFailed(Exception):  # noqa: N818 - what happened, not a class of errors
    """What a plugin raises."""


def claim(store, fact, **options):
    return store.claim(fact, **{"now": NOW} | options)


def complete(store, fact, **options):
    with claim(store, fact, **options) as held:
        assert held.outcome is FRESH


@contextmanager
def losing(store, fact, **options):
    """Work that ends too late: what raises LeaseLostError is its end, not what is done in it."""
    work = claim(store, fact, **options)
    held = work.__enter__()
    assert held.outcome is FRESH
    yield held
    with pytest.raises(LeaseLostError, match=fact.key):
        work.__exit__(None, None, None)


@contextmanager
def failing(store, fact, message="the printer is out of paper", **options):
    """Work that ends with a plugin's exception, which the store lets through."""
    work = claim(store, fact, **options)
    held = work.__enter__()
    assert held.outcome is FRESH
    yield held
    error = HookFailed(message)
    assert not work.__exit__(type(error), error, None)


def fail(store, fact, message="the printer is out of paper", **options):
    with failing(store, fact, message, **options):
        pass


def outcome(store, fact, **options):
    """What a claim finds; a fresh one is released again."""
    work = claim(store, fact, **options)
    held = work.__enter__()
    if held.outcome is FRESH:
        error = HookFailed("only looked")
        work.__exit__(type(error), error, None)
    else:
        work.__exit__(None, None, None)
    return held.outcome
