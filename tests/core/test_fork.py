"""A kit that was used before a fork, used on in parent and children: no hang, no harm, once."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from core.facts_at_hand import order
from core.processes import Worker, as_job, receiving
from core.relay import Relay
from deliveries import KEYS, MCHID, transaction
from wechatpay_kit.store.sqlite import SqliteStore
from wechatpay_kit_sandbox import Sandbox

NUMBERS = [f"T{number}" for number in range(16)]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "store.db"
    with closing(SqliteStore(path)) as store:
        for number in NUMBERS:
            store.add_order(order(number))
    return path


@pytest.fixture
def effects(tmp_path):
    file = tmp_path / "effects"
    file.touch()
    return file


def forked(**job):
    """What a worker that forks says in the end."""
    with Worker("forking", **job) as worker:
        said = worker.hear()
        assert worker.wait() == 0
        return said


def receiving_job(path, effects, **more):
    return receiving(receive_only=True, store=str(path), effects=str(effects), **more)


def assert_unharmed(path):
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    with closing(SqliteStore(path)) as store:
        assert {store.order(MCHID, number).state for number in NUMBERS} == {"paid"}
        assert store.unsettled(MCHID) == []


@pytest.mark.parametrize("is_async", [False, True], ids=["plain hooks", "async hooks"])
def test_parent_and_children_deliver_at_once_and_each_order_fires_once(path, effects, is_async):
    answers = forked(
        mode="idle",
        is_async=is_async,
        **receiving_job(path, effects, deliveries=as_job(*map(transaction, NUMBERS))),
    )
    assert set(answers) <= {204, 503}
    assert answers.count(204) == 1 + 5 * len(NUMBERS)
    assert sorted(effects.read_text().splitlines()) == sorted(f"on_paid {n} 1" for n in NUMBERS)
    assert_unharmed(path)


def test_a_fork_in_the_middle_of_deliveries_waits_for_them_and_lets_none_begin(path, effects):
    """Threads read all the time. A fork that waits for a pause waits for ever; one that does not
    wait for a write to end leaves its child a lock that nobody will ever release."""
    deliveries = as_job(*map(transaction, NUMBERS))
    said = forked(
        mode="at_work",
        longest_fork=(longest := 1.5),
        **receiving_job(path, effects, deliveries=deliveries[:4], late=deliveries[4:]),
    )
    assert said["slowest"] < longest
    assert [answers[-1] for answers in said["answers"]] == [204] * 12
    assert {status for answers in said["answers"] for status in answers} <= {204, 503}
    assert sorted(effects.read_text().splitlines()) == sorted(f"on_paid {n} 1" for n in NUMBERS)
    assert_unharmed(path)


def test_parent_and_children_place_orders_over_connections_of_their_own(tmp_path, effects):
    """One connection shared by two processes would mix up their answers."""
    notify_url = "https://shop.example/wechatpay/notify"
    with Sandbox(keys=KEYS, notify_url=notify_url) as sandbox, Relay(sandbox) as relay:
        said = forked(
            mode="calls",
            environ=relay.environment(),
            store=str(tmp_path / "store.db"),
            effects=str(effects),
        )
        prepaid = {o.out_trade_no: f"prepay_id={o.prepay_id}" for o in sandbox.orders()}
    numbers = [f"T-fork-{index}" for index in (4, 0, 1, 2, 3)]
    assert said == [["open", prepaid[number], number] for number in numbers]


def test_a_process_in_certificate_mode_fetches_keys_after_a_fork_too(tmp_path, effects):
    """Keys are fetched by a thread; one that was forked away fetches nothing."""
    notify_url = "https://shop.example/wechatpay/notify"
    with Sandbox(keys=KEYS, notify_url=notify_url) as sandbox, Relay(sandbox) as relay:
        environ = {
            name: value
            for name, value in relay.environment().items()
            if "PUBLIC_KEY" not in name and "PLATFORM_CERT" not in name
        }
        said = forked(
            mode="calls",
            environ=environ,
            store=str(tmp_path / "store.db"),
            effects=str(effects),
        )
        assert [state for state, *_ in said] == ["open"] * 5
        assert "/v3/certificates" in [passed.target for passed in relay.passed]


def test_a_fork_while_a_thread_makes_the_client_does_not_hang_the_child(path, effects):
    """“Sessions, connections and pools open on first use and again after a fork.”"""
    job = receiving(store=str(path), effects=str(effects), mode="first_use")
    assert forked(**job) == "made"
