"""Refunds: their rules, their states and what is told of them."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from wechatpay_kit_sandbox import ControlError

QUERY = "/v3/refund/domestic/refunds/{}"


@pytest.fixture
def paid(shared_sandbox, shared_client, number):
    """The number of a paid order of 100 fen."""
    shared_client.place(number)
    shared_sandbox.pay(number, notify=False)
    return number


def refused(answer):
    return answer.status, answer.json["code"], answer.json["message"]


def test_refund_is_accepted_as_processing(shared_client, paid):
    answer = shared_client.refund(paid, f"R-{paid}", reason="冷了", funds_account="AVAILABLE")
    assert answer.status == 200
    refund = answer.json
    assert refund["status"] == "PROCESSING"
    assert "success_time" not in refund
    assert refund["amount"]["refund"] == 40
    assert refund["amount"]["currency"] == "CNY"
    assert (len(refund["refund_id"]), refund["refund_id"][:2]) == (29, "50")
    assert shared_client.get(QUERY.format(f"R-{paid}")).json == refund
    assert shared_client.query(paid).json["trade_state"] == "REFUND"


def test_refund_by_transaction_id(shared_client, paid):
    transaction_id = shared_client.query(paid).json["transaction_id"]
    answer = shared_client.refund(None, f"R-{paid}", transaction_id=transaction_id)
    assert answer.json["out_trade_no"] == paid
    other = shared_client.refund("T-nobody", f"R2-{paid}", transaction_id=transaction_id)
    assert other.json["code"] == "RESOURCE_NOT_EXISTS"


def test_same_refund_again_is_the_same_refund(shared_client, paid):
    first = shared_client.refund(paid, f"R-{paid}")
    again = shared_client.refund(paid, f"R-{paid}")
    assert (again.status, again.json) == (200, first.json)
    assert shared_client.refund(paid, f"R2-{paid}", refund=60).status == 200


@pytest.mark.parametrize("change", [{"refund": 41}, {"total": 101}])
def test_same_refund_number_with_other_amounts(shared_client, paid, change):
    shared_client.refund(paid, f"R-{paid}")
    assert refused(shared_client.refund(paid, f"R-{paid}", **change)) == (
        400,
        "INVALID_REQUEST",
        "订单金额或退款金额与之前请求不一致，请核实后再试",
    )


def test_refund_of_another_total_than_the_orders(shared_client, paid):
    answer = shared_client.refund(paid, f"R-{paid}", total=200)
    assert (answer.status, answer.json["code"]) == (400, "INVALID_REQUEST")


def test_refunds_beyond_the_order(shared_client, paid):
    assert shared_client.refund(paid, f"R1-{paid}", refund=60).status == 200
    answer = shared_client.refund(paid, f"R2-{paid}", refund=41)
    assert refused(answer) == (400, "INVALID_REQUEST", "订单已全额退款")
    assert shared_client.refund(paid, f"R2-{paid}", refund=40).status == 200


def test_closed_refund_gives_its_amount_free(shared_sandbox, shared_client, paid):
    shared_client.refund(paid, f"R1-{paid}", refund=100)
    shared_sandbox.finish_refund(f"R1-{paid}", "CLOSED")
    assert shared_client.refund(paid, f"R2-{paid}", refund=100).status == 200
    assert shared_client.refund(paid, f"R1-{paid}", refund=100).json["status"] == "CLOSED"


def test_refund_of_an_unpaid_or_unknown_order(shared_client, number):
    shared_client.place(number)
    for order in (number, "T-nobody"):
        answer = shared_client.refund(order, f"R-{number}")
        assert refused(answer) == (404, "RESOURCE_NOT_EXISTS", "订单不存在")


def test_refund_that_does_not_exist(shared_client):
    answer = shared_client.get(QUERY.format("R-nobody"))
    assert refused(answer) == (404, "RESOURCE_NOT_EXISTS", "退款单不存在")


@pytest.mark.parametrize(
    "change",
    [
        {"out_refund_no": "R 1"},
        {"out_refund_no": "R" * 65},
        {"out_trade_no": None},
        {"refund": 0},
        {"refund": 101},
        {"amount": {"refund": 1, "total": 100}},
        {"reason": "茶" * 27},
        {"notify_url": "https://shop.example/?a"},
        {"funds_account": "MINE"},
        {"sub_mchid": "1900000001"},
        {
            "amount": {
                "refund": 2,
                "total": 100,
                "currency": "CNY",
                "from": [{"account": "AVAILABLE", "amount": 1}],
            }
        },
        {"goods_detail": [{"merchant_goods_id": "g"}]},
    ],
)
def test_field_that_breaks_its_rule(shared_client, paid, change):
    answer = shared_client.refund(**{"out_trade_no": paid, "out_refund_no": f"R-{paid}"} | change)
    assert (answer.status, answer.json["code"]) == (400, "PARAM_ERROR")


def test_at_most_fifty_refunds_of_one_order(shared_client, paid):
    for count in range(50):
        assert shared_client.refund(paid, f"R{count}-{paid}", refund=1).status == 200
    answer = shared_client.refund(paid, f"R50-{paid}", refund=1)
    assert (answer.status, answer.json["code"]) == (400, "INVALID_REQUEST")


def test_refund_within_a_year_only(sandbox, client):
    client.place("T000001")
    sandbox.pay("T000001", notify=False)
    sandbox.advance(timedelta(days=366))
    assert client.refund("T000001", "R1").json["code"] == "INVALID_REQUEST"


def test_refund_succeeds_by_itself_after_the_delay(sandbox, client, receiver):
    sandbox.set_rate(0)
    client.place("T000001")
    sandbox.pay("T000001", notify=False)
    client.refund("T000001", "R1", notify_url=receiver.url)
    client.refund("T000001", "R1", notify_url=receiver.url)
    sandbox.advance(timedelta(minutes=4, seconds=59))
    assert client.get(QUERY.format("R1")).json["status"] == "PROCESSING"
    sandbox.advance(timedelta(seconds=1))
    refund = client.get(QUERY.format("R1")).json
    assert refund["status"] == "SUCCESS"
    assert refund["success_time"].endswith("+08:00")
    assert len(receiver.received) == 1


@pytest.mark.parametrize("status", ["SUCCESS", "ABNORMAL", "CLOSED"])
def test_finished_refund_is_notified(shared_sandbox, shared_client, paid, receiver, status):
    shared_client.refund(paid, f"R-{paid}", notify_url=receiver.url)
    result = shared_sandbox.finish_refund(f"R-{paid}", status)
    assert result.attempt.status == 204
    (received,) = receiver.received
    shared_client.verify(received.headers, received.body)
    envelope = received.json
    assert envelope["event_type"] == f"REFUND.{status}"
    assert envelope["resource"]["original_type"] == "refund"
    assert envelope["resource"]["associated_data"] == "refund"
    notice = json.loads(shared_client.decrypt(envelope["resource"]))
    assert notice["refund_status"] == status
    assert ("success_time" in notice) == (status == "SUCCESS")
    assert "status" not in notice
    assert notice["amount"] == {"total": 100, "refund": 40, "payer_total": 100, "payer_refund": 40}
    assert notice["mchid"] == shared_client.mchid


def test_refund_without_an_address_is_not_notified(shared_sandbox, shared_client, paid):
    shared_client.refund(paid, f"R-{paid}")
    result = shared_sandbox.finish_refund(f"R-{paid}")
    assert (result.notification, result.attempt) == (None, None)
    assert result.refund.status == "SUCCESS"


def test_abnormal_refund_may_still_succeed(shared_sandbox, shared_client, paid):
    shared_client.refund(paid, f"R-{paid}")
    shared_sandbox.finish_refund(f"R-{paid}", "ABNORMAL")
    shared_sandbox.finish_refund(f"R-{paid}", "SUCCESS")
    with pytest.raises(ControlError, match="is SUCCESS; it cannot become CLOSED"):
        shared_sandbox.finish_refund(f"R-{paid}", "CLOSED")


def test_unknown_refund_cannot_be_finished(shared_sandbox):
    with pytest.raises(ControlError, match="no refund R-nobody"):
        shared_sandbox.finish_refund("R-nobody")
