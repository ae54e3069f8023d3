"""Once, however many threads and processes are told at the same moment, and whoever dies."""

from __future__ import annotations

import base64
import json
import signal
import threading
import time
from contextlib import ExitStack, closing
from datetime import timedelta

import pytest

from core.facts_at_hand import order
from core.processes import Worker, as_job, receiving
from deliveries import MCHID, Clock, Recorder, delivery, receiving_kit, transaction
from deliveries import refund as refund_notice
from wechatpay_kit import hookimpl
from wechatpay_kit.models import Transaction, decode
from wechatpay_kit.settlement import Outcome, Settlement, Terms
from wechatpay_kit.store.sqlite import SqliteStore

THREADS = 64
PAID = delivery()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.db"


@pytest.fixture
def effects(tmp_path):
    """Reads what all workers and plugins did."""
    file = tmp_path / "effects"
    file.touch()
    return file


def at_once(*works):
    """Run ``works`` in threads that start together; their results in order."""
    results, start = [None] * len(works), threading.Barrier(len(works))

    def run(index, work):
        start.wait(30)
        results[index] = work()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def status(kit, made=PAID):
    return kit.receiver.receive(*made).status


# Threads


@pytest.mark.parametrize("known", [True, False])
def test_64_threads_deliver_one_notification_and_it_fires_once(path, known):
    with closing(SqliteStore(path)) as store:
        if known:
            store.add_order(order())
        kit = receiving_kit(store, shop := Recorder(), accept_unknown_orders=not known)
        answers = at_once(*[lambda: status(kit)] * THREADS)
        assert len(shop.of("on_paid")) == 1
        assert set(answers) <= {204, 503}
        assert 204 in answers
        assert [status(kit) for _ in range(3)] == [204] * 3
        assert len(shop.of("on_paid")) == 1
        assert shop.of("on_conflict") == []
        assert store.order(MCHID, "T1001").state == "paid"
        assert kit.unsettled() == []


def test_63_threads_are_asked_to_come_again_while_one_is_in_work(path):
    answered, all_others = [], threading.Event()

    class Shop(Recorder):
        @hookimpl
        def on_paid(self, event):
            super().on_paid(event)
            assert all_others.wait(30)

    with closing(SqliteStore(path)) as store:
        store.add_order(order())
        kit = receiving_kit(store, shop := Shop())

        def work():
            answered.append(status(kit))
            if len(answered) == THREADS - 1:
                all_others.set()

        at_once(*[work] * THREADS)
        assert sorted(answered) == [204] + [503] * (THREADS - 1)
        assert answered[-1] == 204
        assert [status(kit) for _ in range(3)] == [204] * 3
        assert shop.names() == ["on_paid", *["on_duplicate"] * 3]


def test_a_hook_that_fails_under_load_is_called_until_it_succeeds_and_no_more(path):
    class Shop(Recorder):
        def __init__(self):
            super().__init__()
            self.left, self.running, self.most = 5, 0, 0

        @hookimpl
        def on_paid(self, event):
            self.running += 1
            self.most = max(self.most, self.running)
            self.events.append(("on_paid", event))
            try:
                if self.left:
                    self.left -= 1
                    raise RuntimeError
            finally:
                self.running -= 1

    with closing(SqliteStore(path)) as store:
        store.add_order(order())
        kit = receiving_kit(store, shop := Shop())

        def until_done():
            while (answer := status(kit)) != 204:
                assert answer in {500, 503}

        at_once(*[until_done] * 8)
        assert [event.attempt for event in shop.of("on_paid")] == [1, 2, 3, 4, 5, 6]
        assert shop.most == 1


def test_many_orders_at_once_fire_once_each(path):
    numbers = [f"T{number}" for number in range(12)]
    made = [delivery(transaction(number)) for number in numbers] * 4
    with closing(SqliteStore(path)) as store:
        for number in numbers:
            store.add_order(order(number))
        kit = receiving_kit(store, shop := Recorder())
        answers = at_once(*[lambda one=one: status(kit, one) for one in made])
        assert set(answers) <= {204, 503}
        assert sorted(e.out_trade_no for e in shop.of("on_paid")) == sorted(numbers)
        assert [status(kit, one) for one in made] == [204] * len(made)
        assert len(shop.of("on_paid")) == len(numbers)


def test_a_conflict_at_once_is_handled_once(path):
    wrong = delivery(transaction(total=1))
    with closing(SqliteStore(path)) as store:
        store.add_order(order())
        kit = receiving_kit(store, shop := Recorder())
        answers = at_once(*[lambda: status(kit, wrong)] * 16)
        assert set(answers) <= {204, 503}
        assert len(shop.of("on_conflict")) == 1
        assert status(kit, wrong) == 204
        assert shop.of("on_paid") == []


def test_the_first_messages_of_a_process_may_come_at_once():
    """What decodes them is made on first use: half made, it must not be used by another thread."""
    amount = {"total": 100, "refund": 30, "payer_total": 100, "payer_refund": 30}
    refund = {"refund_id": "5", "out_refund_no": "R1", "transaction_id": "4", "status": "SUCCESS"}
    messages = {
        "Envelope": PAID[1],
        "Transaction": json.dumps(transaction()).encode(),
        "RefundNotice": json.dumps(refund_notice()).encode(),
        "Refund": json.dumps(refund | {"out_trade_no": "T1001", "amount": amount}).encode(),
        "OrderReply": b'{"prepay_id": "wx1"}',
    }
    as_text = [(kind, base64.b64encode(body).decode()) for kind, body in messages.items()]
    with ExitStack() as stack:  # several, for what goes wrong goes wrong now and then
        workers = [stack.enter_context(Worker("first", messages=as_text)) for _ in range(10)]
        assert [worker.wait() for worker in workers] == [0] * 10


# Paid and closed exclude each other


def paid_and_closed(store, *plugins):
    """Two calls that settle one order, as paid and as closed."""
    kit = receiving_kit(store, *plugins)
    settlement = Settlement(
        mchid=MCHID, store=store, plugins=kit._plugins, business_clock=Clock(), query=None
    )
    return (
        lambda number: settlement.paid(_paid(number), Terms("query")).outcome,
        lambda number: settlement.closed(number, Terms("close")).outcome,
    )


def _paid(number):
    return decode(json.dumps(transaction(number)).encode(), Transaction)


def test_paid_and_closed_at_once_settle_one_of_them_in_every_round(path):
    with closing(SqliteStore(path)) as store:
        paid, closed = paid_and_closed(store, shop := Recorder())
        for round_number in range(60):
            number = f"T{round_number}"
            store.add_order(order(number))
            shop.events.clear()
            outcomes = at_once(lambda n=number: paid(n), lambda n=number: closed(n))
            fired = [name for name in shop.names() if name in {"on_paid", "on_closed"}]
            assert len(fired) == 1
            assert outcomes.count(Outcome.FIRED) == 1
            assert set(outcomes) <= {Outcome.FIRED, Outcome.BUSY, Outcome.CONFLICT}
            winner, loser = (paid, closed) if fired == ["on_paid"] else (closed, paid)
            assert winner(number) is Outcome.DUPLICATE
            assert loser(number) is Outcome.CONFLICT
            state = "paid" if winner is paid else "closed"
            assert store.order(MCHID, number).state == state
            assert len(shop.of("on_conflict")) == 1


@pytest.mark.parametrize("first", ["paid", "closed"])
def test_while_one_runs_the_other_is_busy_and_afterwards_a_conflict(path, first):
    met = []

    class Shop(Recorder):
        @hookimpl
        def on_paid(self, event):
            met.append(closed(event.out_trade_no))

        @hookimpl
        def on_closed(self, event):
            met.append(paid(event.out_trade_no))

    with closing(SqliteStore(path)) as store:
        store.add_order(order())
        paid, closed = paid_and_closed(store, shop := Shop())
        one, other = (paid, closed) if first == "paid" else (closed, paid)
        assert one("T1001") is Outcome.FIRED
        assert met == [Outcome.BUSY]
        assert other("T1001") is Outcome.CONFLICT
        assert shop.names() == ["on_conflict"]
        reason = "closed_after_paid" if first == "paid" else "paid_after_closed"
        assert shop.of("on_conflict")[0].reason == reason


# Processes


@pytest.mark.parametrize("exists", [True, False], ids=["a file", "no file yet"])
def test_four_processes_fire_once_each_order(path, effects, exists):
    numbers = [f"T{number}" for number in range(8)]
    if exists:
        with closing(SqliteStore(path)) as store:
            for number in numbers:
                store.add_order(order(number))
    job = receiving(
        receive_only=True,
        store=str(path),
        effects=str(effects),
        threads=4,
        deliveries=as_job(*map(transaction, numbers)),
    )
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker("deliver", **job)) for _ in range(4)]
        assert [worker.hear() for worker in workers] == ["ready"] * 4
        for worker in workers:
            worker.tell("go")
        answers = [answer for worker in workers for answer in worker.hear()]
        assert [worker.wait() for worker in workers] == [0] * 4
    assert len(answers) == 4 * 4 * 8
    assert set(answers) <= {204, 503}
    # Without a file the orders are unknown: then it is the conflict that is told once.
    what, extra = ("on_paid", "1") if exists else ("on_conflict", "unknown_order")
    assert sorted(effects.read_text().splitlines()) == [f"{what} {n} {extra}" for n in numbers]
    with closing(SqliteStore(path)) as store:
        kit = receiving_kit(store, shop := Recorder())
        assert [status(kit, delivery(transaction(n))) for n in numbers] == [204] * 8
        assert set(shop.names()) == {"on_duplicate"}
        with store._file.reading() as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def holding(path, effects, **more):
    """A worker that stands inside on_paid."""
    job = receiving(
        receive_only=True,
        store=str(path),
        effects=str(effects),
        deliveries=as_job(transaction()),
        **more,
    )
    return Worker("hold", **job)


@pytest.fixture
def known_order(path):
    with closing(SqliteStore(path)) as store:
        store.add_order(order())


def later():
    """The time when every lease of 60 s that runs now has ended."""
    return time.time() + 61


@pytest.mark.usefixtures("known_order")
def test_a_process_killed_inside_on_paid_lets_go_when_its_lease_ends(path, effects):
    now, after = SqliteStore(path), SqliteStore(path, now=later)
    with holding(path, effects) as worker, closing(now), closing(after):
        assert worker.hear() == "inside"
        worker.signal(signal.SIGKILL)
        assert worker.wait() == -signal.SIGKILL
        kit = receiving_kit(now, shop := Recorder())
        assert [status(kit), status(kit)] == [503, 503]
        assert kit.unsettled() == []  # it may be in work, for all that we know
        successor = receiving_kit(after, shop)
        (left,) = successor.unsettled()
        assert (left.out_trade_no, left.reason, left.attempts) == ("T1001", "failed", 1)
        assert status(successor) == 204
        assert [event.attempt for event in shop.of("on_paid")] == [2]
        assert [status(kit), status(successor)] == [204, 204]
        assert shop.names() == ["on_paid", "on_duplicate", "on_duplicate"]
    assert effects.read_text().splitlines() == ["before T1001 1", "on_paid T1001 1"]


@pytest.mark.usefixtures("known_order")
def test_a_killed_process_lets_go_by_real_time_too(path, effects):
    terms = {"lease": 0.5}
    with holding(path, effects, terms=terms) as worker, closing(SqliteStore(path)) as store:
        assert worker.hear() == "inside"
        worker.signal(signal.SIGKILL)
        worker.wait()
        kit = receiving_kit(store, shop := Recorder())
        deadline = time.monotonic() + 10
        while (answer := status(kit)) != 204:
            assert answer == 503
            assert time.monotonic() < deadline
        assert shop.names() == ["on_paid"]


@pytest.mark.usefixtures("known_order")
def test_a_living_process_keeps_its_lease_longer_than_the_lease(path, effects):
    terms = {"lease": 1.5}
    with holding(path, effects, terms=terms) as worker, closing(SqliteStore(path)) as store:
        assert worker.hear() == "inside"
        kit = receiving_kit(store, shop := Recorder())
        end = time.monotonic() + 2
        while time.monotonic() < end:
            assert status(kit) == 503
        worker.tell("return")
        assert worker.hear() == 204
        assert status(kit) == 204
        assert shop.names() == ["on_duplicate"]
    assert effects.read_text().splitlines() == ["before T1001 1", "on_paid T1001 1"]


@pytest.mark.usefixtures("known_order")
@pytest.mark.parametrize("end", ["return", "raise"])
def test_a_process_stopped_past_its_lease_changes_nothing_when_it_goes_on(path, effects, end):
    with holding(path, effects) as worker, closing(SqliteStore(path, now=later)) as store:
        assert worker.hear() == "inside"
        worker.stop()
        successor = receiving_kit(store, shop := Recorder())
        assert status(successor) == 204
        settled = store.order(MCHID, "T1001")
        worker.signal(signal.SIGCONT)
        worker.tell(end)
        assert worker.hear() == (503 if end == "return" else 500)
        assert worker.wait() == 0
        assert store.order(MCHID, "T1001") == settled
        assert successor.unsettled() == []
        assert status(successor) == 204
        assert shop.names() == ["on_paid", "on_duplicate"]


@pytest.mark.usefixtures("known_order")
@pytest.mark.parametrize("end", ["return", "raise"])
def test_a_process_that_goes_on_does_not_disturb_its_successor_in_work(path, effects, end):
    with holding(path, effects) as worker, closing(SqliteStore(path, now=later)) as store:
        assert worker.hear() == "inside"
        worker.stop()

        class Shop(Recorder):
            @hookimpl
            def on_paid(self, event):
                super().on_paid(event)
                worker.signal(signal.SIGCONT)
                worker.tell(end)
                assert worker.hear() == (503 if end == "return" else 500)
                assert status(third) == 503

        successor = receiving_kit(store, shop := Shop())
        third = receiving_kit(SqliteStore(path, now=later), other := Recorder())
        assert status(successor) == 204
        assert status(third) == 204
        assert shop.names() == ["on_paid"]
        assert other.names() == ["on_duplicate"]
        third.close()


@pytest.mark.usefixtures("known_order")
def test_a_process_stopped_past_its_real_lease_loses_it(path, effects):
    """As above, by real time: its own renewals start again at the moment it goes on."""
    terms = {"lease": 0.4}
    with holding(path, effects, terms=terms) as worker, closing(SqliteStore(path)) as store:
        assert worker.hear() == "inside"
        worker.stop()
        kit = receiving_kit(store, shop := Recorder())
        deadline = time.monotonic() + 10
        while status(kit) != 204:
            assert time.monotonic() < deadline
        worker.signal(signal.SIGCONT)
        worker.tell("return")
        assert worker.hear() == 503
        assert shop.names() == ["on_paid"]
        assert status(kit) == 204


class Named(Recorder):
    """A plugin whose name is that of one in the worker."""

    def __init__(self, name, ran):
        super().__init__()
        self.name, self.ran = name, ran

    @hookimpl
    def on_paid(self, event):
        self.ran.append((self.name, event.attempt))


@pytest.mark.usefixtures("known_order")
def test_what_a_killed_process_completed_does_not_run_again(path, effects):
    """It died inside its second plugin; the first had its effect, and that is remembered."""
    with holding(path, effects) as worker, closing(SqliteStore(path, now=later)) as store:
        assert worker.hear() == "inside"
        worker.signal(signal.SIGKILL)
        worker.wait()
        ran, kit = [], receiving_kit(store)
        for name in ("holding", "before"):
            kit.register(Named(name, ran), name=name)
        assert [status(kit), status(kit)] == [204, 204]
        assert ran == [("holding", 2)]
    assert effects.read_text().splitlines() == ["before T1001 1", "on_paid T1001 1"]


def test_a_hold_is_never_longer_than_max_hold(path):
    """A living process whose hook hangs lets go at max_hold, and answers 503 if it ever ends."""
    inside, go_on, answers = threading.Event(), threading.Event(), []

    class Hanging(Recorder):
        @hookimpl
        def on_paid(self, event):
            super().on_paid(event)
            inside.set()
            assert go_on.wait(30)

    short = {"lease": timedelta(seconds=0.3), "max_hold": timedelta(seconds=0.6)}
    with closing(SqliteStore(path, **short)) as store, closing(SqliteStore(path)) as other:
        store.add_order(order())
        hanging = receiving_kit(store, Hanging())
        worker = threading.Thread(target=lambda: answers.append(status(hanging)))
        worker.start()
        assert inside.wait(10)
        kit = receiving_kit(other, shop := Recorder())
        deadline = time.monotonic() + 10
        while status(kit) != 204:
            assert time.monotonic() < deadline
        go_on.set()
        worker.join(10)
        assert answers == [503]
        assert shop.names() == ["on_paid"]
