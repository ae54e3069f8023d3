"""What WeChat Pay answered stands, whether or not the store can note it; and what a refusal says.

Over real HTTP against the sandbox; the store fails between the gateway's answer and its record.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from datetime import timedelta

import pytest

from core.relay import Relay
from deliveries import KEYS, MCHID, Recorder
from wechatpay_kit import (
    ApiError,
    HookError,
    Kit,
    Merchant,
    OrderClosedError,
    OrderPaidError,
    OutcomeUnknownError,
    SqliteStore,
    hookimpl,
)
from wechatpay_kit_sandbox import Sandbox

NUMBER = "T100100"
ORDER = {"out_trade_no": NUMBER, "total": 100, "description": "Plush QQ", "openid": "oPayer"}
REFUND = {"out_trade_no": NUMBER, "out_refund_no": "R1", "refund": 30, "total": 100}
ATTEMPTS = 3


@pytest.fixture
def sandbox():
    with Sandbox(keys=KEYS, notify_url="https://shop.example/wechatpay/notify") as sandbox:
        yield sandbox


@pytest.fixture
def relay(sandbox):
    with Relay(sandbox) as relay:
        yield relay


@pytest.fixture
def shop():
    return Recorder()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "wechatpay.db"


@pytest.fixture
def make_kit(sandbox, relay, path):
    made = []

    def make(*plugins):
        store = SqliteStore(path, wait=timedelta(seconds=0.05))
        merchant = Merchant.from_env(environ=relay.environment())
        made.append(Kit(merchant, plugins=plugins, store=store, business_clock=sandbox.now))
        return made[-1]

    yield make
    for kit in made:
        kit.close()


@pytest.fixture
def kit(make_kit, shop):
    return make_kit(shop)


@pytest.fixture
def lock(path):
    """Somebody who takes the file's write lock, as an event of the relay, until it is ended."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:

        def event(_request, answer):
            other.execute("BEGIN IMMEDIATE")
            return answer

        event.end = lambda: other.execute("ROLLBACK")
        yield event


@pytest.fixture
def unrecorded(caplog):
    """The numbers of which the log says that their answer could not be noted."""
    caplog.set_level(logging.INFO, "wechatpay_kit")

    def numbers():
        lines = [(r.levelno, r.wechatpay_kit) for r in caplog.records]
        said = [(level, line) for level, line in lines if line["line"] == "unrecorded_answer"]
        assert all(
            level == logging.WARNING and line["detail"] and line["advice"] for level, line in said
        )
        return [line["number"] for _, line in said]

    return numbers


# The store fails after the answer


def test_an_order_that_could_not_be_noted_is_returned_and_logged(
    kit, relay, lock, unrecorded, sandbox
):
    relay.events.append(lock)
    order = kit.create_order(**ORDER)
    assert (order.state, order.prepay_id) == ("open", sandbox.order(NUMBER).prepay_id)
    assert order.request_payment()["package"] == f"prepay_id={order.prepay_id}"
    assert unrecorded() == [NUMBER]
    lock.end()
    assert kit.order(NUMBER).state == "placing"
    assert kit.create_order(**ORDER).prepay_id == sandbox.order(NUMBER).prepay_id
    assert (kit.order(NUMBER).state, len(set(relay.posted()))) == ("open", 1)
    assert unrecorded() == [NUMBER]


def test_an_order_that_could_not_be_noted_is_put_right_by_its_payment(
    kit, relay, lock, sandbox, shop
):
    relay.events.append(lock)
    kit.create_order(**ORDER)
    lock.end()
    sandbox.pay(NUMBER, notify=False)
    assert kit.query_order(out_trade_no=NUMBER).settlement == "fired"
    assert shop.names() == ["on_paid"]
    assert kit.order(NUMBER).state == "paid"


def test_a_refusal_that_could_not_be_noted_is_raised_as_it_is(kit, relay, lock, unrecorded):
    refuse = relay.refuse(403, "NO_AUTH")
    relay.events.append(lambda request, answer: refuse(request, lock(request, answer)))
    with pytest.raises(ApiError) as caught:
        kit.create_order(**ORDER)
    assert caught.value.code == "NO_AUTH"
    assert unrecorded() == [NUMBER]
    lock.end()
    assert kit.order(NUMBER).state == "placing"
    assert kit.create_order(**ORDER).state == "open"


@pytest.fixture
def paid(kit, sandbox, shop):
    """A kit with an order that is paid and settled."""
    kit.create_order(**ORDER)
    sandbox.pay(NUMBER, notify=False)
    kit.query_order(out_trade_no=NUMBER)
    shop.events.clear()
    return kit


def test_a_refund_that_could_not_be_noted_is_returned_and_logged(
    paid, relay, lock, unrecorded, sandbox
):
    relay.events.append(lock)
    assert paid.create_refund(**REFUND).status == "PROCESSING"
    assert unrecorded() == ["R1"]
    lock.end()
    assert paid.store.refund(MCHID, "R1").state == "placing"
    assert paid.create_refund(**REFUND).status == "PROCESSING"
    assert paid.store.refund(MCHID, "R1").state == "accepted"
    assert len(sandbox.refunds(NUMBER)) == 1


def test_a_refund_that_could_not_be_settled_is_returned_and_told_later(
    paid, relay, lock, unrecorded, sandbox, shop
):
    paid.create_refund(**REFUND)
    sandbox.finish_refund("R1", notify=False)
    relay.events.append(lock)
    assert paid.create_refund(**REFUND).status == "SUCCESS"
    assert unrecorded() == ["R1", "R1"]  # neither the answer nor the settlement
    assert shop.names() == []
    lock.end()
    assert paid.create_refund(**REFUND).status == "SUCCESS"
    assert shop.names() == ["on_refund"]
    assert paid.store.refund(MCHID, "R1").state == "settled"


def test_a_refused_refund_that_could_not_be_noted_is_raised_as_it_is(paid, relay, lock, unrecorded):
    refuse = relay.refuse(403, "NOT_ENOUGH")
    relay.events.append(lambda request, answer: refuse(request, lock(request, answer)))
    with pytest.raises(ApiError) as caught:
        paid.create_refund(**REFUND)
    assert caught.value.code == "NOT_ENOUGH"
    assert unrecorded() == ["R1"]
    lock.end()
    assert paid.store.refund(MCHID, "R1").state == "placing"


def test_a_hook_that_raises_at_a_refunds_answer_is_told_with_the_refund(make_kit, sandbox):
    class Books:
        is_open = False

        @hookimpl
        def on_paid(self, event):
            pass

        @hookimpl
        def on_refund(self, event):
            if not self.is_open:
                raise RuntimeError("the books are closed")

    kit = make_kit(books := Books())
    kit.create_order(**ORDER)
    sandbox.pay(NUMBER, notify=False)
    kit.query_order(out_trade_no=NUMBER)
    kit.create_refund(**REFUND)
    sandbox.finish_refund("R1", notify=False)
    with pytest.raises(HookError, match="on_refund") as caught:
        kit.create_refund(**REFUND)
    refund = caught.value.transaction
    assert (refund.out_refund_no, refund.status) == ("R1", "SUCCESS")
    assert kit.store.refund(MCHID, "R1").state == "accepted"
    books.is_open = True
    assert kit.query_refund("R1").settlement == "fired"


# What a refusal proves


def test_a_first_refusal_is_refused_and_so_is_that_of_a_refused_one(kit, relay):
    for _ in range(2):
        relay.events.append(relay.refuse(400, "PARAM_ERROR"))
        with pytest.raises(ApiError):
            kit.create_order(**ORDER)
        assert kit.order(NUMBER).state == "refused"


def test_a_repeats_refusal_says_nothing_of_the_first_sending(kit, relay, sandbox):
    relay.events += [*[relay.hang_up] * ATTEMPTS, relay.refuse(400, "PARAM_ERROR")]
    with pytest.raises(OutcomeUnknownError):
        kit.create_order(**ORDER)
    with pytest.raises(ApiError):
        kit.create_order(**ORDER)
    assert sandbox.order(NUMBER).trade_state == "NOTPAY"  # it can be paid
    assert kit.order(NUMBER).state == "placing"


def test_a_refusal_leaves_an_order_that_was_open_open(kit, relay):
    prepay_id = kit.create_order(**ORDER).prepay_id
    relay.events.append(relay.refuse(403, "NO_AUTH"))
    with pytest.raises(ApiError):
        kit.create_order(**ORDER)
    assert (kit.order(NUMBER).state, kit.order(NUMBER).prepay_id) == ("open", prepay_id)


def test_a_first_refusal_of_a_refund_is_refused(paid, relay):
    for _ in range(2):
        relay.events.append(relay.refuse(403, "NOT_ENOUGH"))
        with pytest.raises(ApiError):
            paid.create_refund(**REFUND)
        assert paid.store.refund(MCHID, "R1").state == "refused"


def test_a_repeats_refusal_says_nothing_of_the_refunds_first_sending(paid, relay, sandbox):
    relay.events += [*[relay.hang_up] * ATTEMPTS, relay.refuse(403, "NOT_ENOUGH")]
    with pytest.raises(OutcomeUnknownError):
        paid.create_refund(**REFUND)
    with pytest.raises(ApiError):
        paid.create_refund(**REFUND)
    assert len(sandbox.refunds(NUMBER)) == 1
    assert paid.store.refund(MCHID, "R1").state == "placing"


# An order that has ended


def test_a_paid_order_has_nothing_left_to_sign(paid, relay):
    before = len(relay.passed)
    with pytest.raises(OrderPaidError, match=NUMBER) as caught:
        paid.order(NUMBER).request_payment()
    assert (caught.value.code, caught.value.verified) == ("ORDERPAID", False)
    assert len(relay.passed) == before


def test_a_closed_order_has_nothing_left_to_sign(kit, relay):
    kit.create_order(**ORDER)
    kit.close_order(NUMBER)
    before = len(relay.passed)
    with pytest.raises(OrderClosedError, match=NUMBER):
        kit.order(NUMBER).request_payment()
    assert len(relay.passed) == before
