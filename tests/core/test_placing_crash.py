"""Placing is killed at every step: the order is known, gated, and repeated with the same bytes."""

from __future__ import annotations

import signal
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from core.processes import Worker
from core.relay import Relay
from deliveries import KEYS, MCHID, Recorder, delivery, transaction
from deliveries import refund as refund_notice
from wechatpay_kit import Kit, Merchant, OrderMismatchError
from wechatpay_kit_sandbox import Sandbox

STEPS = ("before sending", "before the answer", "before recording")
NUMBER = "T100100"
ORDER = {"out_trade_no": NUMBER, "total": 100, "description": "Plush QQ", "openid": "oPayer"}
REFUND = {"out_trade_no": NUMBER, "out_refund_no": "R1", "refund": 30, "total": 100}


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
def kit(sandbox, relay, shop, tmp_path):
    """The next process of the shop, on the same store."""
    merchant = Merchant.from_env(environ=relay.environment())
    store = f"sqlite:///{tmp_path}/store.db"
    with closing(Kit(merchant, plugins=[shop], store=store, business_clock=sandbox.now)) as kit:
        yield kit


def kill(relay, tmp_path, call, arguments, step):
    """A process makes ``call`` and is killed at ``step``."""
    job = {
        "environ": relay.environment(),
        "store": str(tmp_path / "store.db"),
        "dies": step,
        "call": call,
        "arguments": arguments,
    }
    with Worker("place", **job) as worker:
        if step == "before the answer":
            relay.events.append(lambda request, answer: worker.signal(signal.SIGKILL))
        assert worker.wait() == -signal.SIGKILL


def deliver(kit, plaintext, event_type="TRANSACTION.SUCCESS"):
    made = delivery(plaintext, event_type, at=datetime.now(UTC))
    return kit.receiver.receive(*made).status


@pytest.fixture(params=STEPS)
def killed(request, relay, tmp_path):
    """An order whose placing was killed."""
    kill(relay, tmp_path, "create_order", ORDER, request.param)
    assert len(relay.posted()) == (0 if request.param == "before sending" else 1)
    return request.param


def test_the_order_is_recorded_with_the_very_bytes(kit, relay, killed):
    record = kit.order(NUMBER).record
    assert (record.state, record.total, record.prepay_id) == ("placing", 100, None)
    assert record.expires_at - record.created_at <= timedelta(minutes=30)
    assert record.notify_url == "https://shop.example/wechatpay/notify"
    if relay.posted():
        assert relay.posted() == [record.body]


def test_its_payment_is_accepted(kit, shop, killed):
    assert deliver(kit, transaction(NUMBER)) == 204
    assert shop.names() == ["on_paid"]
    assert kit.order(NUMBER).state == "paid"


def test_its_amount_gate_holds(kit, shop, killed):
    assert deliver(kit, transaction(NUMBER, total=101)) == 204
    assert deliver(kit, transaction(NUMBER, appid="wx0000000000000000")) == 204
    assert [event.reason for event in shop.of("on_conflict")] == ["mismatch"] * 2
    assert shop.of("on_paid") == []
    assert kit.order(NUMBER).state == "placing"


def test_a_repeat_sends_the_same_bytes(kit, relay, sandbox, shop, killed):
    recorded = kit.order(NUMBER).record
    sandbox.advance(timedelta(minutes=5))  # a defaulted time_expire would be another one now
    order = kit.create_order(**ORDER)
    assert (order.state, order.prepay_id) == ("open", sandbox.order(NUMBER).prepay_id)
    assert set(relay.posted()) == {recorded.body}
    assert kit.order(NUMBER).record.created_at == recorded.created_at
    assert order.request_payment()["package"] == f"prepay_id={order.prepay_id}"
    payment = sandbox.pay(NUMBER, notify=False)
    made = sandbox.delivery(payment.notification.id)
    assert kit.receiver.receive(made.headers.items(), made.body).status == 204
    assert shop.names() == ["on_paid"]


def test_other_parameters_are_refused_without_a_call(kit, relay, killed):
    before = list(relay.passed)
    for other in ({"total": 101}, {"description": "Tea"}, {"openid": "oOther"}, {"attach": "x"}):
        with pytest.raises(OrderMismatchError, match=NUMBER):
            kit.create_order(**ORDER | other)
    assert relay.passed == before
    assert kit.order(NUMBER).record.total == 100


def test_an_order_can_be_asked_for_and_closed(kit, shop, killed):
    """What stays placing is closed like any other order: nothing is left that could be paid."""
    assert kit.close_order(NUMBER) == "fired"
    assert shop.names() == ["on_closed"]
    assert kit.order(NUMBER).state == "closed"


# Refunds


@pytest.fixture(params=STEPS)
def killed_refund(request, kit, relay, sandbox, tmp_path, shop):
    """A paid order, and a refund of it whose placing was killed."""
    kit.create_order(**ORDER)
    sandbox.pay(NUMBER, notify=False)
    kit.query_order(out_trade_no=NUMBER)
    relay.passed.clear()
    shop.events.clear()
    kill(relay, tmp_path, "create_refund", REFUND, request.param)
    assert len(relay.posted("refunds")) == (0 if request.param == "before sending" else 1)
    return sandbox.order(NUMBER).transaction_id


def notice(transaction_id, **changes):
    return refund_notice(out_trade_no=NUMBER, transaction_id=transaction_id, **changes)


def test_the_refund_is_recorded_and_its_result_accepted(kit, relay, shop, killed_refund):
    record = kit.store.refund(MCHID, "R1")
    assert (record.state, record.refund, record.total) == ("placing", 30, 100)
    if relay.posted("refunds"):
        assert relay.posted("refunds") == [record.body]
    assert deliver(kit, notice(killed_refund), "REFUND.SUCCESS") == 204
    assert shop.names() == ["on_refund"]
    assert kit.store.refund(MCHID, "R1").status == "SUCCESS"


def test_the_refunds_gate_holds(kit, shop, killed_refund):
    assert deliver(kit, notice(killed_refund, refund=31), "REFUND.SUCCESS") == 204
    assert [event.reason for event in shop.of("on_conflict")] == ["mismatch"]
    assert shop.of("on_refund") == []
    assert kit.store.refund(MCHID, "R1").state == "placing"


def test_a_repeated_refund_sends_the_same_bytes_and_pays_once(kit, relay, sandbox, killed_refund):
    recorded = kit.store.refund(MCHID, "R1")
    sandbox.advance(timedelta(minutes=1))
    assert kit.create_refund(**REFUND).status == "PROCESSING"
    assert set(relay.posted("refunds")) == {recorded.body}
    assert kit.store.refund(MCHID, "R1").state == "accepted"
    assert len(sandbox.refunds(NUMBER)) == 1


def test_another_refund_under_the_number_is_refused_without_a_call(kit, relay, killed_refund):
    before = list(relay.passed)
    for other in ({"refund": 31}, {"total": 101}, {"reason": "broken"}):
        with pytest.raises(OrderMismatchError, match="R1"):
            kit.create_refund(**REFUND | other)
    assert relay.passed == before
