"""From a verified delivery to an answer: every outcome, each once, by Receiver.receive."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from datetime import datetime, timedelta

import pytest

from core.facts_at_hand import StoreTime, order, refund_record
from deliveries import (
    APPID,
    BEIJING,
    KEYS,
    MCHID,
    NOW,
    Clock,
    Recorder,
    delivery,
    receiving_kit,
    transaction,
)
from deliveries import refund as refund_notice
from wechatpay_kit import ExpectedOrder, Kit, Merchant, StoreError, hookimpl
from wechatpay_kit.settlement import Outcome, Settlement, Terms
from wechatpay_kit.store.sqlite import SqliteStore
from wechatpay_kit_sandbox import Sandbox

PAID_KEY = f"order/{MCHID}/T1001"


@pytest.fixture
def store_time():
    return StoreTime()


@pytest.fixture
def store(tmp_path, store_time):
    store = SqliteStore(tmp_path / "store.db", now=store_time)
    yield store
    store.close()


@pytest.fixture
def shop():
    return Recorder()


@pytest.fixture
def kit(store, shop):
    store.add_order(order())
    return receiving_kit(store, shop)


def deliver(kit, plaintext=None, event_type="TRANSACTION.SUCCESS", **options):
    """The status of one delivery."""
    return kit.receiver.receive(*delivery(plaintext, event_type), **options).status


def deliver_refund(kit, status="SUCCESS", **changes):
    return deliver(kit, refund_notice(status=status, **changes), f"REFUND.{status}")


class Failing:
    """A plugin that raises the first ``times`` times, then has its effect."""

    def __init__(self, times=0):
        self.times = times
        self.attempts = []
        self.effects = 0

    @hookimpl
    def on_paid(self, event):
        self.attempts.append(event.attempt)
        if self.times:
            self.times -= 1
            raise RuntimeError("out of paper")
        self.effects += 1


class Paying:
    """A plugin that only listens for payments, by a function."""

    def __init__(self, act=lambda event: None):
        self.act = act

    @hookimpl
    def on_paid(self, event):
        return self.act(event)


# Paid, once


def test_a_payment_fires_on_paid_and_is_recorded(kit, shop, store):
    assert deliver(kit) == 204
    (event,) = shop.of("on_paid")
    assert (event.mchid, event.out_trade_no, event.source) == (MCHID, "T1001", "notification")
    assert (event.attempt, event.key) == (1, PAID_KEY)
    assert event.order.total == event.transaction.amount.total == 100
    held = store.order(MCHID, "T1001")
    assert (held.state, held.source, held.payer_total) == ("paid", "notification", 100)
    assert held.transaction_id == event.transaction.transaction_id
    assert held.success_time == datetime.fromisoformat(BEIJING)
    assert held.settled_at == NOW
    assert kit.unsettled() == []


def test_the_same_notification_again_fires_only_on_duplicate(kit, shop):
    assert [deliver(kit) for _ in range(4)] == [204] * 4
    assert shop.names() == ["on_paid", *["on_duplicate"] * 3]
    event = shop.of("on_duplicate")[0]
    assert (event.fact, event.key, event.out_trade_no) == ("paid", PAID_KEY, "T1001")
    assert event.transaction.out_trade_no == "T1001"


def test_another_notification_of_the_same_payment_is_a_duplicate(kit, shop):
    assert deliver(kit) == 204
    later = delivery(transaction(), id="another-notification", summary="again")
    assert kit.receiver.receive(*later).status == 204
    assert shop.names() == ["on_paid", "on_duplicate"]


def test_a_second_delivery_one_second_later_fires_nothing(store, store_time):
    kit = receiving_kit(store, shop := Recorder(), clock=(clock := Clock()))
    store.add_order(order())
    assert deliver(kit) == 204
    clock.advance(seconds=1)
    store_time.advance(1)
    assert deliver(kit) == 204
    assert shop.names() == ["on_paid", "on_duplicate"]


def test_a_duplicate_after_a_restart_fires_nothing(kit, shop, store):
    assert deliver(kit) == 204
    again = receiving_kit(SqliteStore(store._file.path), other := Recorder())
    assert deliver(again) == 204
    again.close()
    assert other.names() == ["on_duplicate"]


def test_on_duplicate_that_raises_changes_nothing(store):
    class Nervous(Recorder):
        @hookimpl
        def on_duplicate(self, event):
            super().on_duplicate(event)
            raise RuntimeError("metrics are down")

    store.add_order(order())
    kit = receiving_kit(store, shop := Nervous())
    assert [deliver(kit) for _ in range(3)] == [204] * 3
    assert shop.names() == ["on_paid", "on_duplicate", "on_duplicate"]
    assert kit.unsettled() == []


def test_nobody_listening_for_payments_is_500_until_somebody_does(store):
    store.add_order(order())

    class OnlyDuplicates:
        @hookimpl
        def on_duplicate(self, event):
            pass

    assert deliver(receiving_kit(store, OnlyDuplicates())) == 500
    assert deliver(receiving_kit(store)) == 500
    assert store.order(MCHID, "T1001").state == "open"
    assert deliver(receiving_kit(store, shop := Recorder())) == 204
    assert shop.names() == ["on_paid"]


def test_a_wrapper_alone_is_nobody_listening(store):
    class Tracing:
        @hookimpl(wrapper=True)
        def on_paid(self, event):
            return (yield)

    store.add_order(order())
    assert deliver(receiving_kit(store, Tracing())) == 500


def test_nobody_listening_for_refunds_is_500(store):
    store.add_order(order())
    kit = receiving_kit(store, Paying())
    assert deliver(kit) == 204
    assert deliver_refund(kit) == 500
    assert store.refund(MCHID, "R1") is None


# Failures


def test_a_hook_that_raises_is_500_and_is_called_again(store):
    store.add_order(order())
    kit = receiving_kit(store, failing := Failing(times=3))
    assert [deliver(kit) for _ in range(5)] == [500, 500, 500, 204, 204]
    assert failing.attempts == [1, 2, 3, 4]
    assert failing.effects == 1


def test_event_key_is_the_same_in_every_attempt(store):
    keys = []

    def act(event):
        keys.append(event.key)
        if len(keys) < 3:
            raise RuntimeError

    store.add_order(order())
    kit = receiving_kit(store, Paying(act))
    assert [deliver(kit) for _ in range(3)] == [500, 500, 204]
    assert keys == [PAID_KEY] * 3


def test_a_failed_payment_is_what_an_operator_sees(store):
    store.add_order(order())
    kit = receiving_kit(store, Failing(times=1))
    deliver(kit)
    (left,) = kit.unsettled()
    assert (left.key, left.reason, left.out_trade_no) == (PAID_KEY, "failed", "T1001")
    assert left.last_error == "RuntimeError: out of paper"
    assert store.order(MCHID, "T1001").state == "open"


@pytest.mark.parametrize("failing_first", [True, False])
def test_one_plugin_that_raises_three_times_does_not_make_the_other_run_again(store, failing_first):
    store.add_order(order())
    steady, failing = Failing(), Failing(times=3)
    plugins = [failing, steady] if failing_first else [steady, failing]
    kit = receiving_kit(store, *plugins)
    assert [deliver(kit) for _ in range(5)] == [500, 500, 500, 204, 204]
    assert steady.effects == failing.effects == 1
    assert len(steady.attempts) == 1
    assert failing.attempts == [1, 2, 3, 4]


@pytest.mark.parametrize("restarts", [1, 2, 3])
def test_what_a_plugin_completed_is_known_to_the_next_process(tmp_path, restarts):
    path, steady, failing = tmp_path / "store.db", Failing(), Failing(times=restarts)
    statuses = []
    for _ in range(restarts + 1):
        store = SqliteStore(path)
        store.add_order(order())
        statuses.append(deliver(receiving_kit(store, failing, steady)))
        store.close()
    assert statuses == [*[500] * restarts, 204]
    assert steady.effects == failing.effects == 1


def test_the_plugins_left_run_in_the_same_order(store):
    ran, broken = [], {"b", "c"}

    class Named:
        def __init__(self, name):
            self.name = name

        @hookimpl
        def on_paid(self, event):
            ran.append(self.name)
            if self.name in broken:
                broken.remove(self.name)
                raise RuntimeError

    store.add_order(order())
    kit = receiving_kit(store, *map(Named, "abcd"))
    statuses = [deliver(kit) for _ in range(4)]
    assert statuses == [500, 500, 204, 204]
    assert ran == ["d", "c", "c", "b", "b", "a"]


@pytest.mark.parametrize("inner_fails", [True, False])
def test_a_wrapper_runs_around_every_attempt_and_counts_for_nothing(store, inner_fails):
    attempts = []

    class Wrapper:
        @hookimpl(wrapper=True)
        def on_paid(self, event):
            attempts.append(event.attempt)
            result = yield
            if not inner_fails and event.attempt < 3:
                raise RuntimeError("the wrapper fails after the others have run")
            return result

    store.add_order(order())
    steady, failing = Failing(), Failing(times=2 if inner_fails else 0)
    kit = receiving_kit(store, Wrapper(), failing, steady)
    assert [deliver(kit) for _ in range(4)] == [500, 500, 204, 204]
    assert attempts == [1, 2, 3]
    assert steady.effects == failing.effects == 1
    assert len(steady.attempts) == 1


def test_an_async_hook_runs_to_its_end_and_counts_like_a_plain_one(store):
    class Slow(Failing):
        @hookimpl
        async def on_paid(self, event):
            import asyncio  # noqa: PLC0415 - the kit's loop is not this thread's

            await asyncio.sleep(0)
            super().on_paid(event)

    store.add_order(order())
    slow, steady = Slow(times=2), Slow()
    kit = receiving_kit(store, slow, steady)
    assert [deliver(kit) for _ in range(4)] == [500, 500, 204, 204]
    assert slow.effects == steady.effects == 1
    assert kit.unsettled() == []


def test_an_async_hook_runs_by_the_callers_runner(store):
    ran = []

    class Hook:
        @hookimpl
        async def on_paid(self, event):
            ran.append(threading.current_thread().name)

    def run_async(function, *args):
        import asyncio  # noqa: PLC0415 - only this test brings a loop of its own

        return asyncio.run(function(*args))

    store.add_order(order())
    assert deliver(receiving_kit(store, Hook()), run_async=run_async) == 204
    assert ran == [threading.current_thread().name]


def test_an_async_hook_that_is_cancelled_is_a_failure_not_a_success(store):
    class Hook:
        @hookimpl
        async def on_paid(self, event):
            import asyncio  # noqa: PLC0415 - as above

            raise asyncio.CancelledError

    store.add_order(order())
    kit = receiving_kit(store, Hook())
    assert deliver(kit) == 500
    assert len(kit.unsettled()) == 1


def test_event_connection_says_that_there_is_no_transaction_to_join(store):
    raised = []

    def act(event):
        with pytest.raises(StoreError, match=r"lease.*event\.key") as caught:
            _ = event.connection
        raised.append(caught.value)

    store.add_order(order())
    assert deliver(receiving_kit(store, Paying(act))) == 204
    assert raised


# The order's gate, and conflicts

SECOND = "4200002026112400000000000002"
MISMATCHES = {
    "less": transaction(total=1),
    "more": transaction(total=101),
    "currency": transaction(amount={"total": 100, "payer_total": 100, "currency": "USD"}),
    "appid": transaction(appid="wx0000000000000000"),
}


@pytest.mark.parametrize("name", MISMATCHES)
def test_a_payment_that_is_not_the_orders_is_a_mismatch(kit, shop, store, name):
    assert deliver(kit, MISMATCHES[name]) == 204
    (event,) = shop.of("on_conflict")
    assert (event.reason, event.out_trade_no) == ("mismatch", "T1001")
    assert event.order.total == 100  # both versions
    assert event.transaction.amount.total == MISMATCHES[name]["amount"]["total"]
    assert shop.of("on_paid") == []
    assert store.order(MCHID, "T1001").state == "open"


@pytest.mark.parametrize("name", MISMATCHES)
def test_a_mismatch_after_the_payment_is_still_a_mismatch(kit, shop, store, name):
    assert deliver(kit) == 204
    assert deliver(kit, MISMATCHES[name]) == 204
    assert shop.names() == ["on_paid", "on_conflict"]
    assert shop.of("on_conflict")[0].reason == "mismatch"
    assert store.order(MCHID, "T1001").payer_total == 100


def test_the_right_payment_after_a_mismatch_fires(kit, shop):
    assert deliver(kit, MISMATCHES["less"]) == 204
    assert deliver(kit) == 204
    assert shop.names() == ["on_conflict", "on_paid"]


def test_a_payment_of_an_order_nobody_knows_is_a_conflict(kit, shop, store):
    assert deliver(kit, transaction("T404")) == 204
    (event,) = shop.of("on_conflict")
    assert (event.reason, event.order) == ("unknown_order", None)
    assert store.order(MCHID, "T404") is None


def test_a_second_payment_of_an_order_is_a_conflict(kit, shop, store):
    assert deliver(kit) == 204
    first = store.order(MCHID, "T1001")
    assert deliver(kit, transaction(transaction_id=SECOND)) == 204
    (event,) = shop.of("on_conflict")
    assert event.reason == "second_payment"
    assert first.transaction_id in event.recorded
    assert event.transaction.transaction_id == SECOND
    assert shop.names() == ["on_paid", "on_conflict"]
    assert store.order(MCHID, "T1001") == first


def settlement(kit, store):
    return Settlement(
        mchid=MCHID, store=store, plugins=kit._plugins, business_clock=Clock(), query=None
    )


def test_a_payment_after_the_order_was_closed_is_a_conflict(kit, shop, store):
    assert settlement(kit, store).closed("T1001", Terms("close")).outcome is Outcome.FIRED
    assert deliver(kit) == 204
    (event,) = shop.of("on_conflict")
    assert (event.reason, event.recorded) == ("paid_after_closed", "closed")
    assert shop.names() == ["on_closed", "on_conflict"]
    assert store.order(MCHID, "T1001").state == "closed"


def test_closing_after_the_order_was_paid_is_a_conflict(kit, shop, store):
    assert deliver(kit) == 204
    settled = settlement(kit, store).closed("T1001", Terms("close"))
    assert settled.outcome is Outcome.CONFLICT
    assert shop.names() == ["on_paid", "on_conflict"]
    assert store.order(MCHID, "T1001").state == "paid"


def test_a_close_that_failed_and_a_payment_are_a_conflict(kit, shop, store):
    """The close is established although its hook raised: the payment has no place."""

    class Broken:
        @hookimpl
        def on_closed(self, event):
            raise RuntimeError

    broken = receiving_kit(store, Broken(), Paying())
    with pytest.raises(Exception, match="on_closed"):
        settlement(broken, store).closed("T1001", Terms("close"))
    assert deliver(kit) == 204
    assert shop.of("on_conflict")[0].reason == "paid_after_closed"
    assert settlement(kit, store).closed("T1001", Terms("close")).outcome is Outcome.FIRED


def conflicts(kit, store):
    """One delivery for each reason, ready to be made again and again."""
    for number in ("T-paid", "T-closed", "T-open"):
        store.add_order(order(number))
    assert deliver(kit, transaction("T-paid")) == 204
    settlement(kit, store).closed("T-closed", Terms("close"))
    return {
        "mismatch": (transaction("T-open", total=1), "TRANSACTION.SUCCESS"),
        "unknown_order": (transaction("T404"), "TRANSACTION.SUCCESS"),
        "second_payment": (transaction("T-paid", transaction_id=SECOND), "TRANSACTION.SUCCESS"),
        "paid_after_closed": (transaction("T-closed"), "TRANSACTION.SUCCESS"),
        "refunded_before_paid": (refund_notice(out_trade_no="T-open"), "REFUND.SUCCESS"),
    }


REASONS = (
    "mismatch",
    "unknown_order",
    "second_payment",
    "paid_after_closed",
    "refunded_before_paid",
)


@pytest.mark.parametrize("reason", REASONS)
def test_a_conflict_is_told_until_it_is_handled_and_then_never_again(kit, shop, store, reason):
    plaintext, event_type = conflicts(kit, store)[reason]
    shop.events.clear()
    for unhandled in (None, False, "yes"):
        shop.conflicts_handled = unhandled
        assert deliver(kit, plaintext, event_type) == 500
        (left,) = kit.unsettled()
        assert left.reason == reason
    shop.conflicts_handled = True
    assert [deliver(kit, plaintext, event_type) for _ in range(3)] == [204] * 3
    assert [event.reason for event in shop.of("on_conflict")] == [reason] * 4
    assert [event.attempt for event in shop.of("on_conflict")] == [1, 2, 3, 4]
    assert len({event.key for event in shop.of("on_conflict")}) == 1
    assert [event.fact for event in shop.of("on_duplicate")] == ["conflict"] * 2
    assert shop.of("on_paid") == shop.of("on_refund") == []
    assert kit.unsettled() == []


def test_a_conflict_that_no_plugin_hears_is_500(store):
    store.add_order(order())
    kit = receiving_kit(store, Paying())
    assert deliver(kit, transaction(total=1)) == 500
    assert kit.unsettled()[0].reason == "mismatch"


def test_on_conflict_that_raises_is_500_and_told_again(store):
    told = []

    class Hook(Paying):
        @hookimpl
        def on_conflict(self, event):
            told.append(event.reason)
            if len(told) == 1:
                raise RuntimeError("no operator")
            return True

    store.add_order(order())
    kit = receiving_kit(store, Hook())
    assert [deliver(kit, transaction(total=1)) for _ in range(3)] == [500, 204, 204]
    assert told == ["mismatch"] * 2


def test_two_conflicts_of_one_order_are_handled_each(kit, shop):
    for total in (1, 2, 1, 2):
        assert deliver(kit, transaction(total=total)) == 204
    assert [e.transaction.amount.total for e in shop.of("on_conflict")] == [1, 2]
    assert len({event.key for event in shop.of("on_conflict")}) == 2


# Orders kept elsewhere


class Elsewhere(Recorder):
    def __init__(self, expected=None):
        super().__init__()
        self.expected = expected
        self.asked = []

    @hookimpl
    def expected_order(self, out_trade_no):
        self.asked.append(out_trade_no)
        if isinstance(self.expected, Exception):
            raise self.expected
        return self.expected


EXPECTED = ExpectedOrder(total=100, appid=APPID)


def test_an_order_the_shop_expects_is_accepted_and_recorded(store):
    kit = receiving_kit(store, shop := Elsewhere(EXPECTED))
    assert [deliver(kit), deliver(kit)] == [204, 204]
    assert shop.names() == ["on_paid", "on_duplicate"]
    assert shop.of("on_paid")[0].order.total == 100
    held = store.order(MCHID, "T1001")
    assert (held.state, held.total, held.appid, held.payer_total) == ("paid", 100, APPID, 100)
    assert shop.asked == ["T1001"]  # then the store knows it


@pytest.mark.parametrize(
    "expected",
    [
        ExpectedOrder(total=99, appid=APPID),
        ExpectedOrder(total=100, appid="wx0"),
        ExpectedOrder(total=100, appid=APPID, currency="USD"),
    ],
)
def test_the_shops_word_is_a_gate_too(store, expected):
    kit = receiving_kit(store, shop := Elsewhere(expected))
    assert deliver(kit) == 204
    assert shop.of("on_conflict")[0].reason == "mismatch"
    assert shop.of("on_paid") == []


def test_an_order_the_shop_does_not_expect_is_unknown(store):
    kit = receiving_kit(store, shop := Elsewhere(None))
    assert deliver(kit) == 204
    assert shop.of("on_conflict")[0].reason == "unknown_order"


@pytest.mark.parametrize("wrong", [RuntimeError("database is down"), {"total": 100}, True, 100])
def test_an_expected_order_that_is_no_answer_is_500_and_asked_again(store, wrong):
    kit = receiving_kit(store, shop := Elsewhere(wrong))
    assert deliver(kit) == 500
    shop.expected = EXPECTED
    assert deliver(kit) == 204
    assert shop.names() == ["on_paid"]


def test_a_known_order_is_never_asked_for(kit, store):
    elsewhere = Elsewhere(ExpectedOrder(total=1, appid=APPID))
    other = receiving_kit(store, elsewhere)
    assert deliver(other) == 204
    assert elsewhere.asked == []
    assert elsewhere.names() == ["on_paid"]


def test_unknown_orders_may_be_accepted_where_the_shop_checks_the_amount(store):
    kit = receiving_kit(store, shop := Recorder(), accept_unknown_orders=True)
    assert [deliver(kit, transaction(total=7)) for _ in range(2)] == [204, 204]
    (event,) = shop.of("on_paid")
    assert event.order is None
    assert event.transaction.amount.total == 7
    assert shop.names() == ["on_paid", "on_duplicate"]


def test_accepting_unknown_orders_gates_the_known_and_the_second_payment(store):
    store.add_order(order())
    kit = receiving_kit(store, shop := Recorder(), accept_unknown_orders=True)
    assert deliver(kit, transaction(total=1)) == 204
    assert deliver(kit, transaction("T2")) == 204
    assert deliver(kit, transaction("T2", transaction_id=SECOND)) == 204
    assert [e.reason for e in shop.of("on_conflict")] == ["mismatch", "second_payment"]
    assert [e.out_trade_no for e in shop.of("on_paid")] == ["T2"]


# Refunds


@pytest.fixture
def paid_kit(kit, shop):
    assert deliver(kit) == 204
    shop.events.clear()
    return kit


def test_a_refund_fires_once_and_is_recorded(paid_kit, shop, store):
    assert [deliver_refund(paid_kit) for _ in range(3)] == [204] * 3
    assert shop.names() == ["on_refund", "on_duplicate", "on_duplicate"]
    event = shop.of("on_refund")[0]
    assert (event.out_refund_no, event.out_trade_no) == ("R1", "T1001")
    assert event.key == f"refund/{MCHID}/R1/SUCCESS"
    assert event.order.state == "paid"
    held = store.refund(MCHID, "R1")
    assert (held.state, held.status, held.refund, held.total) == ("settled", "SUCCESS", 30, 100)
    assert held.success_time == datetime.fromisoformat(BEIJING)


def test_every_status_of_a_refund_fires_once(paid_kit, shop, store):
    for _ in range(2):
        assert deliver_refund(paid_kit, "ABNORMAL", success_time=None) == 204
    for _ in range(2):
        assert deliver_refund(paid_kit, "SUCCESS") == 204
    assert [event.refund.status for event in shop.of("on_refund")] == ["ABNORMAL", "SUCCESS"]
    assert store.refund(MCHID, "R1").status == "SUCCESS"


@pytest.mark.parametrize("last", ["SUCCESS", "CLOSED"])
def test_a_status_that_is_no_step_forward_is_a_duplicate(paid_kit, shop, store, last):
    assert deliver_refund(paid_kit, last) == 204
    assert deliver_refund(paid_kit, "ABNORMAL") == 204
    assert shop.names() == ["on_refund", "on_duplicate"]
    assert store.refund(MCHID, "R1").status == last


def test_a_status_that_failed_and_was_overtaken_is_a_duplicate(paid_kit, shop, store):
    """ABNORMAL's hook raised, SUCCESS was handled, and then ABNORMAL is delivered again."""

    class Broken(Recorder):
        @hookimpl
        def on_refund(self, event):
            raise RuntimeError

    assert deliver_refund(receiving_kit(store, Broken()), "ABNORMAL") == 500
    assert deliver_refund(paid_kit, "SUCCESS") == 204
    assert deliver_refund(paid_kit, "ABNORMAL") == 204
    assert [event.refund.status for event in shop.of("on_refund")] == ["SUCCESS"]
    assert store.refund(MCHID, "R1").status == "SUCCESS"
    assert paid_kit.unsettled() == []


def test_a_refund_hook_that_raises_is_called_again_and_only_it(store):
    calls = []

    class Shop(Paying):
        def __init__(self, name, times=0):
            super().__init__()
            self.name, self.times = name, times

        @hookimpl
        def on_refund(self, event):
            calls.append(self.name)
            if self.times:
                self.times -= 1
                raise RuntimeError

    store.add_order(order())
    kit = receiving_kit(store, Shop("failing", 2), Shop("steady"))
    assert deliver(kit) == 204
    assert [deliver_refund(kit) for _ in range(4)] == [500, 500, 204, 204]
    assert calls == ["steady", "failing", "failing", "failing"]


@pytest.mark.parametrize(
    "changes",
    [
        {"refund": 31},
        {"amount": {"total": 101, "refund": 30, "payer_total": 101, "payer_refund": 30}},
        {"amount": {"total": 100, "refund": 101, "payer_total": 100, "payer_refund": 101}},
    ],
    ids=["another refund", "another total", "more than the total"],
)
def test_a_refund_that_is_not_ours_is_a_mismatch(paid_kit, shop, store, changes):
    store.add_refund(refund_record("R1"))
    assert deliver_refund(paid_kit, **changes) == 204
    (event,) = shop.of("on_conflict")
    assert event.reason == "mismatch"
    assert event.refund.out_refund_no == "R1"
    assert shop.of("on_refund") == []
    assert store.refund(MCHID, "R1").state == "accepted"


def test_a_refund_that_the_store_does_not_know_is_recorded(paid_kit, shop, store):
    """It was made in the merchant platform, by hand."""
    assert store.refund(MCHID, "R-by-hand") is None
    assert deliver_refund(paid_kit, out_refund_no="R-by-hand") == 204
    assert shop.names() == ["on_refund"]
    assert store.refund(MCHID, "R-by-hand").status == "SUCCESS"
    assert [r.out_refund_no for r in store.refunds(MCHID, "T1001")] == ["R-by-hand"]


def test_a_refund_of_an_order_nobody_knows_is_a_conflict(kit, shop):
    assert deliver_refund(kit, out_trade_no="T404") == 204
    assert shop.of("on_conflict")[0].reason == "unknown_order"


def test_a_refund_of_an_order_kept_elsewhere_is_gated_by_the_shops_word(store):
    kit = receiving_kit(store, shop := Elsewhere(EXPECTED))
    assert deliver(kit) == 204
    assert deliver_refund(kit) == 204
    assert shop.names() == ["on_paid", "on_refund"]


# A refund that comes before its payment's notice


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(keys=KEYS, notify_url="https://shop.example/notify") as sandbox:
        yield sandbox


def full_kit(sandbox, store, *plugins, **options):
    merchant = Merchant.from_env(environ=sandbox.environment())
    return Kit(merchant, plugins=plugins, store=store, business_clock=sandbox.now, **options)


def deliver_by(kit, sandbox, payment):
    """Hand the notification of what happened in the sandbox to the kit; the status."""
    made = sandbox.delivery(payment.notification.id)
    return kit.receiver.receive(made.headers.items(), made.body).status


def refunded_order(sandbox, kit, number):
    """An order, paid and half refunded; neither notice has been delivered."""
    kit.create_order(out_trade_no=number, total=100, description="Plush QQ", openid="oPayer")
    paid = sandbox.pay(number, notify=False)
    kit.create_refund(out_trade_no=number, out_refund_no=f"R-{number}", refund=50, total=100)
    # A refund without notify_url has no notice; the merchant's own is sent with it.
    return paid, sandbox.finish_refund(f"R-{number}", notify=False)


def test_a_refund_before_its_payments_notice_settles_the_payment_first(sandbox, store):
    with closing(full_kit(sandbox, store, shop := Recorder())) as kit:
        paid, refunded = refunded_order(sandbox, kit, "T-first")
        assert deliver_by(kit, sandbox, refunded) == 204
        assert shop.names() == ["on_paid", "on_refund"]
        assert shop.of("on_paid")[0].source == "query"
        assert shop.of("on_refund")[0].source == "notification"
        assert shop.of("on_refund")[0].order.state == "paid"
        assert deliver_by(kit, sandbox, paid) == 204
        assert shop.names() == ["on_paid", "on_refund", "on_duplicate"]


def test_a_payment_that_fails_keeps_its_refund_waiting(sandbox, store):
    class Shop(Recorder):
        broken = True

        @hookimpl
        def on_paid(self, event):
            if self.broken:
                raise RuntimeError
            super().on_paid(event)

    with closing(full_kit(sandbox, store, shop := Shop())) as kit:
        _, refunded = refunded_order(sandbox, kit, "T-waits")
        assert deliver_by(kit, sandbox, refunded) == 500
        shop.broken = False
        assert deliver_by(kit, sandbox, refunded) == 204
        assert shop.names() == ["on_paid", "on_refund"]


def test_a_refund_waits_while_its_payment_is_in_work(sandbox, store):
    inside, go_on = threading.Event(), threading.Event()

    class Shop(Recorder):
        @hookimpl
        def on_paid(self, event):
            inside.set()
            assert go_on.wait(10)
            super().on_paid(event)

    with closing(full_kit(sandbox, store, shop := Shop())) as kit:
        paid, refunded = refunded_order(sandbox, kit, "T-in-work")
        statuses = []
        worker = threading.Thread(target=lambda: statuses.append(deliver_by(kit, sandbox, paid)))
        worker.start()
        assert inside.wait(10)
        assert deliver_by(kit, sandbox, refunded) == 503
        go_on.set()
        worker.join(10)
        assert statuses == [204]
        assert deliver_by(kit, sandbox, refunded) == 204
        assert shop.names() == ["on_paid", "on_refund"]


def test_a_refund_whose_payment_cannot_be_asked_for_comes_again(store):
    """The gateway does not answer: 503, nothing fires, and nothing is lost."""
    from deliveries import merchant  # noqa: PLC0415 - points at a port where nobody listens

    store.add_order(order())
    kit = Kit(merchant(), plugins=[shop := Recorder()], store=store, clock=Clock())
    with closing(kit):
        assert deliver_refund(kit) == 503
        assert shop.names() == []


def test_a_refund_of_an_order_the_gateway_says_is_unpaid_is_a_conflict(sandbox, store):
    with closing(full_kit(sandbox, store, shop := Recorder())) as kit:
        kit.create_order(out_trade_no="T-unpaid", total=100, description="Tea", openid="oPayer")
        notice = refund_notice(out_trade_no="T-unpaid")
        made = delivery(notice, "REFUND.SUCCESS", at=datetime.now(NOW.tzinfo))
        assert kit.receiver.receive(*made).status == 204
        assert shop.of("on_conflict")[0].reason == "refunded_before_paid"


# Memory


def test_a_payment_from_before_the_shop_adopted_the_kit_fires_nothing(store):
    store.add_order(order())
    since = datetime.fromisoformat(BEIJING) + timedelta(seconds=1)
    kit = receiving_kit(store, shop := Recorder(), settle_since=since)
    assert [deliver(kit), deliver(kit), deliver(kit, transaction("T404"))] == [204] * 3
    assert deliver_refund(kit, out_trade_no="T404") == 204
    assert shop.names() == []
    assert store.order(MCHID, "T1001").state == "open"


def test_a_payment_of_the_very_second_of_adoption_fires(store):
    store.add_order(order())
    kit = receiving_kit(store, shop := Recorder(), settle_since=datetime.fromisoformat(BEIJING))
    assert deliver(kit) == 204
    assert shop.names() == ["on_paid"]


def test_a_payment_that_was_purged_is_expired(store):
    store.add_order(order())
    kit = receiving_kit(store, shop := Recorder(), clock=(clock := Clock()))
    assert deliver(kit) == 204
    shop.events.clear()
    clock.advance(days=401)
    assert kit.purge() == 1
    again = delivery(at=clock.now)
    assert kit.receiver.receive(*again).status == 204
    assert shop.names() == []


# Time


@pytest.mark.parametrize("deadline", [timedelta(0), timedelta(seconds=-1)])
def test_no_time_left_is_503_without_a_hook(kit, shop, store, deadline):
    assert deliver(kit, deadline=deadline) == 503
    assert shop.names() == []
    assert kit.unsettled() == []
    assert deliver(kit) == 204
    assert shop.names() == ["on_paid"]


def test_a_deadline_shorter_than_the_lease_ends_it(store, store_time):
    """The process is gone at its deadline; the next delivery need not wait out a whole lease."""
    second = []

    def act(event):
        if event.attempt == 1:
            store_time.advance(5.1)
            second.append(deliver(kit))

    store.add_order(order())
    kit = receiving_kit(store, Paying(act))
    assert deliver(kit, deadline=timedelta(seconds=5)) == 503
    assert second == [204]


def test_within_the_deadline_the_claim_is_held(store, store_time):
    second = []

    def act(event):
        store_time.advance(4)
        second.append(deliver(kit))

    store.add_order(order())
    kit = receiving_kit(store, Paying(act))
    assert deliver(kit, deadline=timedelta(seconds=5)) == 204
    assert second == [503]


def test_a_hook_past_its_lease_answers_503_and_the_next_delivery_fires_again(store, store_time):
    store.add_order(order())
    overruns = [700, 0]

    def act(event):
        store_time.advance(overruns.pop(0))

    kit = receiving_kit(store, Paying(act))
    assert [deliver(kit) for _ in range(3)] == [503, 204, 204]
    assert overruns == []


# The store fails


def test_a_store_that_is_locked_is_503_and_fires_nothing(kit, shop, store):
    with closing(sqlite3.connect(store._file.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert deliver(kit, deadline=timedelta(seconds=0.2)) == 503
        other.execute("ROLLBACK")
    assert shop.names() == []
    assert deliver(kit) == 204


def test_a_store_that_cannot_be_opened_is_503(tmp_path):
    kit = receiving_kit(SqliteStore(tmp_path / "missing" / "store.db"), shop := Recorder())
    assert deliver(kit) == 503
    assert shop.names() == []


@pytest.mark.parametrize("moment", ["the plugin returns", "all have returned"])
def test_finished_work_is_recorded_however_long_the_lock_is_held(tmp_path, moment):
    """Longer than a write waits, shorter than the lease: to give up is to ship twice."""
    store = SqliteStore(tmp_path / "store.db", wait=timedelta(seconds=0.05))
    store.add_order(order())
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None, check_same_thread=False)
    attempts, held = [], 10 * 0.05
    free = threading.Timer(held, other.execute, ["ROLLBACK"])

    def lock():
        other.execute("BEGIN IMMEDIATE")
        free.start()

    class Locking:
        @hookimpl
        def on_paid(self, event):
            attempts.append(event.attempt)
            if moment == "the plugin returns":
                lock()

    class LockingAfter:
        @hookimpl(wrapper=True)
        def on_paid(self, event):
            result = yield
            if moment == "all have returned":
                lock()
            return result

    kit = receiving_kit(store, Locking(), LockingAfter())
    began = time.monotonic()
    with closing(other), closing(store):
        assert deliver(kit) == 204
        assert time.monotonic() - began >= held
        free.join()
        assert kit.unsettled() == []
        assert store.order(MCHID, "T1001").state == "paid"
        assert deliver(kit) == 204
        assert attempts == [1]


@pytest.mark.parametrize("mode", ["plain", "async"])
def test_a_store_that_is_lost_while_a_hook_runs_is_503_not_the_hooks_fault(tmp_path, mode):
    """“Store unreachable, lock wait over: 503”; what did not get recorded runs again."""
    store = SqliteStore(tmp_path / "store.db", wait=timedelta(seconds=0.2))
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    store.add_order(order())
    attempts = []

    def lock(event):
        attempts.append(event.attempt)
        if event.attempt == 1:
            other.execute("BEGIN IMMEDIATE")

    class AsyncPaying:
        @hookimpl
        async def on_paid(self, event):
            attempts.append(event.attempt)

    class Unlocking:  # registered first, so it ends last, when the plugin's end was refused
        @hookimpl(wrapper=True)
        def on_paid(self, event):
            if mode == "async":
                lock(event)
                attempts.pop()
            try:
                return (yield)
            finally:
                if other.in_transaction:
                    other.execute("ROLLBACK")

    plugin = Paying(lock) if mode == "plain" else AsyncPaying()
    with closing(other), closing(store):
        kit = receiving_kit(store, plugin, Unlocking())
        assert deliver(kit) == 503
        assert deliver(kit) == 204
    assert attempts == [1, 2]


NO_TIME = [None, "", "2026-11-24 09:59:30", "yesterday"]


@pytest.mark.parametrize("told_at", NO_TIME)
@pytest.mark.parametrize("status", ["ABNORMAL", "CLOSED"])
def test_a_refund_told_without_a_time_is_not_lost_after_a_purge(kit, shop, status, told_at):
    """“2xx means durable: WeChat Pay will never tell us again.” These carry no success_time."""
    assert deliver(kit) == 204
    kit.purge(NOW - timedelta(days=400))
    notice = refund_notice(status=status, success_time=None)
    made = delivery(notice, f"REFUND.{status}", create_time=told_at)
    answer = kit.receiver.receive(*made).status
    assert answer != 204 or [event.refund.status for event in shop.of("on_refund")] == [status]


def test_a_payment_told_without_a_time_is_not_lost_after_a_purge(kit, shop):
    kit.purge(NOW - timedelta(days=400))
    answer = deliver(kit, transaction(success_time=None))
    assert answer != 204 or shop.names() == ["on_paid"]


def test_a_refund_of_a_second_payment_is_no_refund_of_the_order(kit, store, shop):
    """What was paid twice is given back; a shop that is told so would call the parcel back."""
    store.add_order(order())
    assert deliver(kit) == 204
    of_another = refund_notice(transaction_id="4200002026112499999999999999")
    assert deliver(kit, of_another, "REFUND.SUCCESS") == 204
    assert shop.names() == ["on_paid", "on_conflict"]
    (conflict,) = shop.of("on_conflict")
    assert conflict.reason == "second_payment"
