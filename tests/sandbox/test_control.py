"""The control calls under /_sandbox/, as curl and tests in other languages use them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest


def test_clock_can_be_read_and_turned(client):
    before = client.control("GET", "/clock").json
    assert before["rate"] == 1
    assert before["now"].endswith("+08:00")
    after = client.control("POST", "/clock", {"advance": 86400}).json
    moved = datetime.fromisoformat(after["now"]) - datetime.fromisoformat(before["now"])
    assert timedelta(days=1) <= moved < timedelta(days=1, minutes=1)
    to = (datetime.fromisoformat(after["now"]) + timedelta(days=1)).replace(
        hour=10, minute=0, second=0
    )
    client.control("POST", "/clock", {"rate": 0})
    assert client.control("POST", "/clock", {"to": to.isoformat()}).json == {
        "now": to.isoformat(),
        "rate": 0,
    }


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "give one of"),
        ({"advance": 1, "rate": 1}, "give one of"),
        ({"advance": -1}, "never goes back"),
        ({"advance": 1e300}, "beyond"),
        ({"to": "2020-01-01T00:00:00+08:00"}, "never goes back"),
        ({"to": "2099-01-01T00:00:00"}, "must have an offset"),
        ({"rate": -1}, "rate must be"),
        ({"foward": 1}, "does not fit"),
        ({"advance": "1"}, "does not fit"),
    ],
)
def test_clock_that_cannot_be_turned_so(shared_client, asked, message):
    answer = shared_client.control("POST", "/clock", asked)
    assert answer.status == 400
    assert message in answer.json["error"]


def test_turning_answers_when_all_that_was_due_was_delivered(client, receiver):
    receiver.statuses = [500, 500]
    client.place("T000001", notify_url=receiver.url)
    client.control("POST", "/orders/T000001/pay")
    client.control("POST", "/clock", {"advance": 3600})
    assert len(receiver.received) == 3


def test_pay_answers_with_the_first_attempt(shared_client, number, receiver):
    shared_client.place(number, notify_url=receiver.url)
    answer = shared_client.control("POST", f"/orders/{number}/pay", {"openid": "oPayer"})
    assert answer.status == 200
    assert answer.json["order"]["trade_state"] == "SUCCESS"
    assert answer.json["attempt"]["status"] == 204
    assert answer.json["refund"] is None
    notification = answer.json["notification"]
    assert notification["state"] == "delivered"
    assert notification["attempts"] == [answer.json["attempt"]]
    assert notification["body"] == receiver.received[0].body.decode()


def test_pay_without_notifying(shared_client, number, receiver):
    shared_client.place(number, notify_url=receiver.url)
    answer = shared_client.control("POST", f"/orders/{number}/pay", {"notify": False})
    assert (answer.json["attempt"], answer.json["notification"]["state"]) == (None, "lost")
    assert receiver.received == []


def test_wrong_user_cannot_pay(shared_client, number):
    shared_client.place(number)
    answer = shared_client.control("POST", f"/orders/{number}/pay", {"openid": "oOther"})
    assert (answer.status, shared_client.query(number).json["trade_state"]) == (409, "NOTPAY")


def test_order_is_paid_once(shared_client, number):
    shared_client.place(number)
    shared_client.control("POST", f"/orders/{number}/pay", {"notify": False})
    answer = shared_client.control("POST", f"/orders/{number}/pay")
    assert (answer.status, answer.json) == (
        409,
        {"error": f"order {number} is SUCCESS, not NOTPAY"},
    )


def test_failed_attempt_leaves_the_order_unpaid(shared_client, number):
    shared_client.place(number)
    answer = shared_client.control("POST", f"/orders/{number}/fail")
    assert answer.json["failed_attempts"] == 1
    assert shared_client.query(number).json["trade_state"] == "NOTPAY"
    assert shared_client.control("POST", f"/orders/{number}/pay", {"notify": False}).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/orders/T-nobody"),
        ("POST", "/orders/T-nobody/pay"),
        ("POST", "/orders/T-nobody/fail"),
        ("POST", "/refunds/R-nobody/finish"),
        ("POST", "/notifications/nobody/resend"),
    ],
)
def test_what_does_not_exist_is_404_with_a_reason(shared_client, method, path):
    answer = shared_client.control(method, path)
    assert answer.status == 404
    assert answer.json["error"].startswith("no ")


def test_orders_are_listed_with_their_refunds(client):
    for number in ("T000001", "T000002"):
        client.place(number)
    client.control("POST", "/orders/T000002/pay", {"notify": False})
    client.refund("T000002", "R1")
    finished = client.control("POST", "/refunds/R1/finish", {"status": "ABNORMAL"}).json
    assert finished["refund"]["status"] == "ABNORMAL"
    listed = client.control("GET", "/orders").json["orders"]
    assert [(order["out_trade_no"], order["trade_state"]) for order in listed] == [
        ("T000001", "NOTPAY"),
        ("T000002", "REFUND"),
    ]
    shown = client.control("GET", "/orders/T000002").json
    assert [(refund["out_refund_no"], refund["status"]) for refund in shown["refunds"]] == [
        ("R1", "ABNORMAL")
    ]


@pytest.mark.parametrize("asked", [{"status": "PROCESSING"}, {"status": "DONE"}])
def test_refund_finishes_in_a_final_status_only(shared_client, asked):
    assert shared_client.control("POST", "/refunds/R1/finish", asked).status == 400


def test_refund_finishes_once(client):
    client.place("T000001")
    client.control("POST", "/orders/T000001/pay", {"notify": False})
    client.refund("T000001", "R1")
    assert client.control("POST", "/refunds/R1/finish").status == 200
    assert client.control("POST", "/refunds/R1/finish").status == 409


def test_notifications_are_listed_and_resent(client, receiver):
    client.place("T000001", notify_url=receiver.url)
    client.control("POST", "/orders/T000001/pay", {"notify": False})
    (listed,) = client.control("GET", "/notifications").json["notifications"]
    answer = client.control("POST", f"/notifications/{listed['id']}/resend")
    assert answer.json["status"] == 204
    (listed,) = client.control("GET", "/notifications").json["notifications"]
    assert listed["state"] == "delivered"


def test_payments_at_once_pay_one_order_once(sandbox, client):
    client.place("T000001")
    with ThreadPoolExecutor(8) as pool:
        statuses = list(
            pool.map(
                lambda _: client.control("POST", "/orders/T000001/pay", {"notify": False}).status,
                range(8),
            )
        )
    assert sorted(statuses) == [200] + [409] * 7
