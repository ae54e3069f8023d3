"""What every store must do: a contract that each backend is run through by its factory."""

from __future__ import annotations

import sqlite3
import threading
import uuid
from contextlib import closing
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.facts_at_hand import (
    BUSY,
    CONFLICT,
    DONE,
    EXPIRED,
    FRESH,
    StoreTime,
    claim,
    closed,
    complete,
    conflicting,
    fail,
    failing,
    losing,
    order,
    outcome,
    paid,
    refund_record,
    refunded,
)
from deliveries import MCHID, NOW
from wechatpay_kit import LeaseLostError, StoreBusyError, StoreError
from wechatpay_kit.store.sqlite import SqliteStore

LEASE = timedelta(seconds=60)


def sqlite_backend(folder, store_time, **options):
    """Another handle on the one SQLite file in ``folder``, as another process would have."""
    return SqliteStore(folder / "store.db", now=store_time, **{"lease": LEASE} | options)


@pytest.fixture(params=[sqlite_backend])
def handle(request, tmp_path, store_time):
    """Opens handles on one store; each call is another process's."""
    opened = []

    def open_handle(**options):
        opened.append(request.param(tmp_path, store_time, **options))
        return opened[-1]

    yield open_handle
    for store in opened:
        store.close()


@pytest.fixture
def store_time():
    return StoreTime()


@pytest.fixture
def store(handle):
    return handle()


# Outcomes


def test_a_first_claim_is_fresh_and_the_first_attempt(store):
    with claim(store, paid()) as held:
        assert held.outcome is FRESH
        assert (held.attempt, held.completed, held.fence) == (1, frozenset(), 1)
        assert held.recorded == paid().fingerprint


def test_a_completed_fact_is_done_for_every_handle(store, handle):
    complete(store, paid())
    for reader in (store, handle()):
        with claim(reader, paid()) as held:
            assert held.outcome is DONE
            assert held.recorded == paid().fingerprint


def test_a_claim_in_work_is_busy_for_everybody_else(store, handle):
    with claim(store, paid()):
        assert outcome(handle(), paid()) is BUSY
        assert outcome(store, paid()) is BUSY


def test_another_fact_under_a_key_in_work_is_busy_first_and_a_conflict_afterwards(store, handle):
    other = handle()
    with claim(store, paid()):
        assert outcome(other, closed()) is BUSY
        assert outcome(other, paid(transaction_id="4200002")) is BUSY
    with claim(other, closed()) as held:
        assert held.outcome is CONFLICT
        assert held.recorded == paid().fingerprint


def test_a_busy_claim_changes_nothing(store, handle):
    with claim(store, paid()) as held:
        for _ in range(3):
            assert outcome(handle(), paid()) is BUSY
    with claim(store, paid()) as again:
        assert (again.fence, again.attempt) == (held.fence, held.attempt)


def test_the_first_fingerprint_sticks_after_a_failure(store):
    fail(store, paid())
    assert outcome(store, paid(transaction_id="4200002")) is CONFLICT
    assert outcome(store, closed()) is CONFLICT
    complete(store, paid())
    assert outcome(store, closed()) is CONFLICT


def test_a_conflict_found_leaves_the_fact_that_stands(store):
    complete(store, closed())
    assert outcome(store, paid()) is CONFLICT
    assert store.order(MCHID, "T1001").state == "closed"
    assert outcome(store, closed()) is DONE


def test_a_conflict_has_a_claim_of_its_own(store):
    complete(store, paid())
    second = paid(transaction_id="4200002")
    assert outcome(store, second) is CONFLICT
    complete(store, conflicting(second, "second_payment"))
    assert outcome(store, conflicting(second, "second_payment")) is DONE
    assert outcome(store, paid()) is DONE


def test_keys_do_not_touch_each_other(store):
    complete(store, paid("T1001"))
    complete(store, paid("T1002"))
    complete(store, paid("T1001", mchid="1900000009"))
    complete(store, refunded(number="R1"))
    complete(store, refunded(number="R2"))


def test_numbers_are_case_sensitive(store):
    complete(store, paid("abcDEF"))
    assert outcome(store, paid("ABCDEF")) is FRESH
    store.add_order(order("abcDEF"))
    assert store.order(MCHID, "abcdef") is None
    store.add_refund(refund_record("r1"))
    assert store.refund(MCHID, "R1") is None


def test_every_character_of_a_number_counts(store):
    for number in ("A_B-C|D*E", "A_B-C|D*", "A_B-C", "A%B-C"):
        complete(store, paid(number))
    assert {n: store.order(MCHID, n).state for n in ("A_B-C", "A%B-C")} == {
        "A_B-C": "paid",
        "A%B-C": "paid",
    }


# Failure and retry


def test_an_exception_releases_the_claim_with_its_error(store):
    fail(store, paid(), "no paper")
    (left,) = store.unsettled(MCHID)
    assert (left.key, left.fingerprint) == (paid().key, paid().fingerprint)
    assert (left.reason, left.attempts, left.out_trade_no) == ("failed", 1, "T1001")
    assert "HookFailed" in left.last_error
    assert "no paper" in left.last_error


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_no_exception_releases_it_too(store, kind):
    with pytest.raises(kind), claim(store, paid()):
        raise kind
    assert outcome(store, paid()) is FRESH


def test_a_retry_is_fresh_with_the_next_attempt_and_a_higher_fence(store):
    fences = []
    for attempt in (1, 2, 3):
        with failing(store, paid()) as held:
            assert (held.outcome, held.attempt) == (FRESH, attempt)
            fences.append(held.fence)
    assert fences == sorted(set(fences))


def test_a_retry_knows_which_plugins_completed(store, handle):
    with failing(store, paid()) as held:
        held.complete_plugin("mail")
        held.complete_plugin("stock")
        held.complete_plugin("stock")
    with claim(handle(), paid()) as again:
        assert again.completed == {"mail", "stock"}


def test_a_failure_writes_no_order(store):
    fail(store, paid())
    assert store.order(MCHID, "T1001") is None
    store.add_order(order())
    fail(store, paid())
    assert store.order(MCHID, "T1001").state == "open"


def test_a_long_error_is_kept_short(store):
    fail(store, paid(), "x" * 100_000)
    assert len(store.unsettled(MCHID)[0].last_error) < 1000


# Leases and fences


def test_a_lease_that_ends_lets_the_next_one_in(store, handle, store_time):
    successor = handle()
    with losing(store, paid()) as stale:
        store_time.advance(59.9)
        assert outcome(successor, paid()) is BUSY
        store_time.advance(0.2)
        with claim(successor, paid()) as held:
            assert (held.outcome, held.attempt) == (FRESH, 2)
            assert held.fence > stale.fence


def test_a_hold_shorter_than_the_lease_bounds_it(store, handle, store_time):
    with losing(store, paid(), hold=timedelta(seconds=5)):
        store_time.advance(4.9)
        assert outcome(handle(), paid()) is BUSY
        store_time.advance(0.2)
        assert outcome(handle(), paid()) is FRESH


@pytest.mark.parametrize("limit", ["hold", "wait"])
@pytest.mark.parametrize("seconds", [0, -1])
def test_no_time_left_is_busy_without_a_claim(store, limit, seconds):
    with (
        pytest.raises(StoreBusyError),
        claim(store, paid(), **{limit: timedelta(seconds=seconds)}),
    ):
        pytest.fail("claimed")
    assert store.unsettled(MCHID) == []
    assert outcome(store, paid()) is FRESH


def test_work_past_its_lease_is_lost_even_without_a_successor(store, store_time):
    with losing(store, paid()):
        store_time.advance(61)
    assert store.order(MCHID, "T1001") is None
    assert outcome(store, paid()) is FRESH


def test_a_stale_owner_completes_nothing(store, handle, store_time):
    first = paid(source="query", settled_at=NOW - timedelta(days=1))
    with losing(store, first):
        store_time.advance(61)
        complete(handle(), paid(source="notification"))
    assert store.order(MCHID, "T1001").source == "notification"
    assert store.order(MCHID, "T1001").settled_at == NOW


def test_a_stale_owner_completes_no_plugin(store, handle, store_time):
    successor = handle()
    with losing(store, paid()) as stale:
        store_time.advance(61)
        with failing(successor, paid()) as held:
            held.complete_plugin("stock")
            with pytest.raises(LeaseLostError):
                stale.complete_plugin("mail")
        with pytest.raises(LeaseLostError):
            stale.complete_plugin("mail")
    with claim(successor, paid()) as held:
        assert held.completed == {"stock"}


def test_a_plugin_that_ends_past_the_lease_is_not_completed(store, store_time):
    with losing(store, paid()) as held:
        held.complete_plugin("stock")
        store_time.advance(61)
        with pytest.raises(LeaseLostError):
            held.complete_plugin("mail")
    with claim(store, paid()) as again:
        assert again.completed == {"stock"}


def test_a_stale_owner_that_fails_leaves_its_successor_in_work(handle, store_time):
    stale, successor, third = handle(), handle(), handle()
    work = failing(stale, paid())
    work.__enter__()
    store_time.advance(61)
    with claim(successor, paid()) as held:
        assert held.outcome is FRESH
        work.__exit__(None, None, None)
        assert outcome(third, paid()) is BUSY
        held.complete_plugin("stock")
    assert outcome(third, paid()) is DONE
    assert third.unsettled(MCHID) == []


def test_a_stale_owner_that_fails_leaves_its_successor_done(handle, store_time):
    stale, successor = handle(), handle()
    with failing(stale, paid()):
        store_time.advance(61)
        complete(successor, paid())
    assert outcome(successor, paid()) is DONE
    assert successor.unsettled(MCHID) == []


def test_a_living_owner_keeps_its_lease_up_to_max_hold(handle, store_time):
    options = {"lease": timedelta(seconds=0.3), "max_hold": timedelta(seconds=1)}
    owner, other = handle(**options), handle(**options)
    with losing(owner, paid()):
        for _ in range(3):
            store_time.advance(0.25)
            store_time.wait_for_readings(2)  # the second begins when the first is written
            store_time.advance(0.04)
            assert outcome(other, paid()) is BUSY
        store_time.advance(0.14)
        assert outcome(other, paid()) is FRESH  # 1.01 s: nobody may hold it that long


def test_a_lease_is_not_renewed_past_a_hold(handle, store_time):
    options = {"lease": timedelta(seconds=0.3)}
    owner, other = handle(**options), handle(**options)
    with losing(owner, paid(), hold=timedelta(seconds=0.4)):
        store_time.advance(0.25)
        store_time.wait_for_readings(2)
        store_time.advance(0.14)
        assert outcome(other, paid()) is BUSY
        store_time.advance(0.02)
        assert outcome(other, paid()) is FRESH


def test_a_renewed_owner_completes(handle, store_time):
    owner = handle(lease=timedelta(seconds=0.3))
    with claim(owner, paid()) as held:
        for _ in range(2):
            store_time.advance(0.25)
            store_time.wait_for_readings(2)
        held.complete_plugin("stock")
    assert outcome(owner, paid()) is DONE


def test_an_owner_that_lost_its_lease_does_not_renew_it(handle, store_time):
    options = {"lease": timedelta(seconds=0.3)}
    stale, successor = handle(**options), handle(lease=LEASE)
    with losing(stale, paid()):
        store_time.advance(1)
        with claim(successor, paid()) as held:
            store_time.wait_for_readings(1)
            held.complete_plugin("stock")
        assert outcome(successor, paid()) is DONE


def test_of_many_claims_at_once_one_is_fresh(store):
    outcomes, start = [], threading.Barrier(16)
    done = threading.Event()

    def work():
        start.wait(10)
        with claim(store, paid()) as held:
            outcomes.append(held.outcome)
            if held.outcome is FRESH:
                assert done.wait(10)
        if len(outcomes) == 16:
            done.set()

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(outcomes) == [BUSY] * 15 + [FRESH]


# Claims with no record, and is_claimed


def test_is_claimed_says_whether_a_fact_is_done_or_in_work(store, handle, store_time):
    key = paid().key
    assert not store.is_claimed(key)
    with losing(store, paid()):
        assert handle().is_claimed(key)
        store_time.advance(61)
        assert not handle().is_claimed(key)
    fail(store, paid())
    assert not store.is_claimed(key)
    complete(store, paid())
    assert store.is_claimed(key)


# Orders


def test_completing_writes_what_settlement_knows_and_keeps_what_placing_wrote(store):
    placed = order(body=b'{"amount":1}', fingerprint="f", prepay_id="wx1", prepay_at=NOW)
    store.add_order(placed)
    complete(store, paid(source="query"))
    held = store.order(MCHID, "T1001")
    assert (held.state, held.transaction_id, held.success_time) == ("paid", "4200001", NOW)
    assert (held.payer_total, held.source, held.settled_at) == (100, "query", NOW)
    assert (held.body, held.fingerprint, held.prepay_id) == (b'{"amount":1}', "f", "wx1")
    assert held.created_at == placed.created_at


def test_an_order_kept_elsewhere_is_recorded_when_it_is_settled(store):
    complete(store, paid())
    assert store.order(MCHID, "T1001") == paid().record


def test_a_fact_whose_record_cannot_be_written_is_not_done_either(store, store_time):
    """One transaction: a claim that is done without its order would lose the order for ever."""
    unwritable = msgspec.structs.replace(paid(), record=order(total=None))
    with pytest.raises(StoreError), claim(store, unwritable):
        pass
    store_time.advance(61)
    assert outcome(store, paid()) is FRESH


def test_a_done_outcome_repairs_an_order_that_lags(store, tmp_path):
    store.add_order(order())
    complete(store, paid())
    with closing(sqlite3.connect(tmp_path / "store.db")) as other:  # as a restored backup would
        other.execute("UPDATE orders SET state = 'open', settled_at = NULL, source = NULL")
        other.commit()
    assert store.order(MCHID, "T1001").state == "open"
    assert outcome(store, paid()) is DONE
    assert store.order(MCHID, "T1001").state == "paid"
    assert store.order(MCHID, "T1001").transaction_id == "4200001"


def test_a_done_outcome_repairs_a_refund_that_is_missing(store, tmp_path):
    complete(store, refunded())
    with closing(sqlite3.connect(tmp_path / "store.db")) as other:
        other.execute("DELETE FROM refunds")
        other.commit()
    assert outcome(store, refunded()) is DONE
    assert store.refund(MCHID, "R1").status == "SUCCESS"


def test_a_done_outcome_changes_no_order_that_is_settled(store):
    complete(store, paid(source="notification"))
    assert outcome(store, paid(source="query", settled_at=NOW + timedelta(days=1))) is DONE
    assert store.order(MCHID, "T1001") == paid().record


def test_add_order_never_overwrites_and_says_what_is_held(store, handle):
    first = order(total=100, body=b"one", fingerprint="a")
    assert store.add_order(first) == first
    assert handle().add_order(order(total=999, body=b"two", fingerprint="b")) == first
    assert store.order(MCHID, "T1001") == first


def test_add_order_does_not_undo_a_settled_one(store):
    complete(store, paid())
    assert store.add_order(order(state="placing")).state == "paid"


def test_an_unknown_order_is_none(store):
    assert store.order(MCHID, "T1001") is None
    store.add_order(order())
    assert store.order("1900000009", "T1001") is None


def test_an_answer_to_placing_is_recorded(store):
    store.add_order(order(state="placing"))
    later = NOW + timedelta(seconds=1)
    store.order_answered(MCHID, "T1001", state="open", prepay_id="wx1", at=later)
    held = store.order(MCHID, "T1001")
    assert (held.state, held.prepay_id, held.prepay_at) == ("open", "wx1", later)


def test_a_refusal_keeps_the_prepay_id_of_an_earlier_answer(store):
    store.add_order(order(state="open", prepay_id="wx1", prepay_at=NOW))
    store.order_answered(MCHID, "T1001", state="refused", at=NOW + timedelta(hours=1))
    held = store.order(MCHID, "T1001")
    assert (held.state, held.prepay_id, held.prepay_at) == ("refused", "wx1", NOW)


@pytest.mark.parametrize("fact", [paid(), closed()], ids=["paid", "closed"])
@pytest.mark.parametrize("state", ["open", "refused"])
def test_an_answer_never_undoes_a_settled_state(store, fact, state):
    store.add_order(order(state="placing"))
    complete(store, fact)
    settled = store.order(MCHID, "T1001")
    store.order_answered(MCHID, "T1001", state=state, prepay_id="wx9", at=NOW)
    assert store.order(MCHID, "T1001") == settled


def test_an_answer_to_an_order_nobody_knows_changes_nothing(store):
    store.order_answered(MCHID, "T404", state="open", prepay_id="wx1", at=NOW)
    assert store.order(MCHID, "T404") is None


MOMENTS = st.datetimes(datetime(2010, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds the zone


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    number=st.text("abcXYZ019_-|*", min_size=6, max_size=32),
    total=st.integers(1, 2**53),
    created=MOMENTS,
    expires=st.none() | MOMENTS,
    body=st.binary(max_size=200),
    text=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
)
def test_a_record_comes_back_as_it_was_kept(store, number, total, created, expires, body, text):
    record = order(
        number,
        mchid=uuid.uuid4().hex,
        total=total,
        created_at=created,
        expires_at=expires,
        body=body,
        notify_url=text,
        serial=text,
    )
    assert store.add_order(record) == record
    assert store.order(record.mchid, number) == record


# Refunds


def test_a_refund_is_kept_once_and_listed_with_its_order(store):
    first = refund_record("R1", body=b"one", fingerprint="a")
    second = refund_record("R2", created_at=NOW)
    assert store.add_refund(first) == first
    assert store.add_refund(second) == second
    assert store.add_refund(refund_record("R1", refund=99, fingerprint="b")) == first
    assert store.refunds(MCHID, "T1001") == [first, second]
    assert store.refunds(MCHID, "T1002") == []
    assert store.refunds("1900000009", "T1001") == []


def test_completing_a_refund_writes_amount_status_and_time(store):
    store.add_refund(refund_record(body=b"sent", fingerprint="f"))
    complete(store, refunded())
    held = store.refund(MCHID, "R1")
    assert (held.state, held.status, held.success_time) == ("settled", "SUCCESS", NOW)
    assert (held.refund, held.payer_refund, held.refund_id) == (30, 30, "50300001")
    assert (held.source, held.settled_at, held.body) == ("notification", NOW, b"sent")


def test_an_answer_never_undoes_a_settled_refund(store):
    store.add_refund(refund_record(state="placing"))
    complete(store, refunded())
    settled = store.refund(MCHID, "R1")
    store.refund_answered(refund_record(state="accepted", status="PROCESSING"))
    store.refund_answered(refund_record(state="refused"))
    assert store.refund(MCHID, "R1") == settled


def test_abnormal_after_success_is_no_step_forward(store):
    complete(store, refunded("SUCCESS"))
    assert outcome(store, refunded("ABNORMAL")) is DONE
    assert store.refund(MCHID, "R1").status == "SUCCESS"


def test_success_after_abnormal_is_a_step_forward(store):
    complete(store, refunded("ABNORMAL"))
    complete(store, refunded("SUCCESS"))
    assert store.refund(MCHID, "R1").status == "SUCCESS"
    assert outcome(store, refunded("ABNORMAL")) is DONE


@pytest.mark.parametrize("last", ["SUCCESS", "CLOSED"])
def test_a_status_that_failed_and_was_overtaken_is_done(store, last):
    """Its hook raised, the next status came and was handled: a repeat is no step forward."""
    fail(store, refunded("ABNORMAL"))
    complete(store, refunded(last))
    assert outcome(store, refunded("ABNORMAL")) is DONE
    assert store.refund(MCHID, "R1").status == last


def test_two_statuses_of_one_refund_are_not_worked_on_at_once(store, handle, store_time):
    other = handle()
    with losing(store, refunded("ABNORMAL")):
        assert outcome(other, refunded("SUCCESS")) is BUSY
        assert outcome(other, refunded("SUCCESS", "R2")) is FRESH
        store_time.advance(61)
        assert outcome(other, refunded("SUCCESS")) is FRESH


def test_an_owner_that_stalled_does_not_come_back_beside_its_successor(handle, store_time):
    """SUCCESS is taken over while ABNORMAL's owner sleeps; when it wakes, it is too late."""
    sleeper = handle(lease=timedelta(seconds=0.3))
    successor = handle()
    with losing(sleeper, refunded("ABNORMAL")):
        store_time.advance(1)
        with claim(successor, refunded("SUCCESS")) as held:
            assert held.outcome is FRESH
            store_time.wait_for_readings(1)  # the sleeper's renewal
    assert successor.refund(MCHID, "R1").status == "SUCCESS"


# What an operator must see


def test_unsettled_lists_what_failed_the_oldest_first(store):
    fail(store, paid("T2"), "second")
    fail(store, paid("T1"), "first", now=NOW - timedelta(hours=1))
    fail(store, paid("T2"), "again")
    first, second = store.unsettled(MCHID)
    assert (first.out_trade_no, first.attempts) == ("T1", 1)
    assert (second.out_trade_no, second.attempts) == ("T2", 2)
    assert second.first_seen == NOW
    assert "again" in second.last_error


def test_unsettled_lists_what_died_but_not_what_is_in_work(store, handle, store_time):
    with losing(store, paid()):
        assert handle().unsettled(MCHID) == []
        store_time.advance(61)
        (left,) = handle().unsettled(MCHID)
        assert (left.out_trade_no, left.reason) == ("T1001", "failed")
        assert left.last_error


def test_unsettled_lists_open_conflicts_by_their_reason(store):
    complete(store, paid())
    fail(store, conflicting(paid(transaction_id="4200002"), "second_payment"))
    (left,) = store.unsettled(MCHID)
    assert (left.reason, left.out_trade_no) == ("second_payment", "T1001")


def test_unsettled_forgets_what_was_dealt_with(store):
    fail(store, paid())
    complete(store, paid())
    fail(store, conflicting(paid(transaction_id="4200002")))
    complete(store, conflicting(paid(transaction_id="4200002")))
    assert store.unsettled(MCHID) == []


def test_unsettled_is_of_one_merchant(store):
    fail(store, paid(mchid="1900000009"))
    assert store.unsettled(MCHID) == []
    assert len(store.unsettled("1900000009")) == 1


# Memory

OLD = NOW - timedelta(days=500)
HORIZON = NOW - timedelta(days=400)


def complete_then(store, fact):
    with claim(store, fact, now=OLD) as held:
        assert held.outcome is FRESH


def test_what_is_purged_is_expired_and_never_fresh(store):
    complete_then(store, paid(at=OLD, settled_at=OLD))
    assert store.purge(MCHID, HORIZON) == 1
    assert outcome(store, paid(at=OLD)) is EXPIRED
    assert outcome(store, paid("T1002", at=OLD)) is EXPIRED  # it may have been done and forgotten
    assert outcome(store, paid("T1003", at=HORIZON + timedelta(seconds=1))) is FRESH


def test_purging_forgets_the_settled_order_and_refund_too(store):
    store.add_order(order())
    complete_then(store, paid(at=OLD, settled_at=OLD))
    complete_then(store, refunded(at=OLD))
    store.purge(MCHID, HORIZON)
    assert store.order(MCHID, "T1001") is None


def test_what_is_young_or_was_done_lately_is_kept(store):
    complete(store, paid("T1", at=OLD))  # an old payment, dealt with today
    complete(store, paid("T2", at=NOW))
    assert store.purge(MCHID, HORIZON) == 0
    assert outcome(store, paid("T1", at=OLD)) is DONE
    assert outcome(store, paid("T2", at=NOW)) is DONE
    assert store.order(MCHID, "T1").state == "paid"


def test_what_is_unsettled_is_never_purged(store):
    fail(store, paid(at=OLD), now=OLD)
    store.purge(MCHID, NOW)
    assert len(store.unsettled(MCHID)) == 1
    assert outcome(store, paid(at=OLD)) is FRESH


def test_what_is_in_work_is_never_purged(store, handle):
    with claim(store, paid(at=OLD), now=OLD):
        assert handle().purge(MCHID, NOW) == 0
    assert outcome(store, paid(at=OLD)) is DONE


def test_a_conflict_is_never_purged_open_or_handled(store):
    second = paid(transaction_id="4200002", at=OLD)
    complete_then(store, conflicting(second, "second_payment"))
    third = paid(transaction_id="4200003", at=OLD)
    fail(store, conflicting(third), now=OLD)
    store.purge(MCHID, NOW)
    assert outcome(store, conflicting(second, "second_payment")) is DONE
    assert outcome(store, conflicting(third)) is FRESH
    assert len(store.unsettled(MCHID)) == 1


def test_a_horizon_never_moves_back(store):
    store.purge(MCHID, HORIZON)
    store.purge(MCHID, HORIZON - timedelta(days=100))
    assert outcome(store, paid(at=HORIZON - timedelta(days=1))) is EXPIRED


def test_an_order_that_is_not_settled_is_never_purged(store):
    store.add_order(order(created_at=OLD))
    store.purge(MCHID, NOW)
    assert store.order(MCHID, "T1001") is not None


def test_facts_from_before_the_shop_adopted_the_kit_are_expired(store):
    since = NOW - timedelta(days=1)
    assert outcome(store, paid(at=since - timedelta(seconds=1)), since=since) is EXPIRED
    assert outcome(store, paid(at=since), since=since) is FRESH
    assert store.order(MCHID, "T1001") is None


def test_a_fact_that_was_claimed_before_stays_claimed_whatever_since_says(store):
    complete(store, paid())
    assert outcome(store, paid(), since=NOW + timedelta(days=1)) is DONE
