"""Notifications: what is delivered, how it is judged, and when it comes again."""

from __future__ import annotations

import json
import threading
import time
from datetime import timedelta

import pytest

from sandbox.gateway_client import GatewayClient
from wechatpay_kit_sandbox import ControlError, Sandbox
from wechatpay_kit_sandbox.notifications import SCHEDULE

NOBODY = "http://127.0.0.1:1/notify"


def test_schedule_is_the_official_one():
    seconds = [delay.total_seconds() for delay in SCHEDULE]
    assert seconds[:7] == [15, 15, 30, 180, 600, 1200, 1800]
    assert seconds[7:] == [1800, 1800, 3600, 10800, 10800, 10800, 21600, 21600]
    assert sum(SCHEDULE, timedelta()) == timedelta(hours=24, minutes=4)


def test_payment_is_notified_signed_and_encrypted(shared_sandbox, shared_client, number, receiver):
    shared_client.place(number, notify_url=receiver.url, attach="a")
    result = shared_sandbox.pay(number)
    assert (result.attempt.status, result.notification.state) == (204, "delivered")
    (received,) = receiver.received
    assert shared_client.verify(received.headers, received.body) == shared_client.key_id
    assert received.headers["Content-Type"] == "application/json"
    assert received.headers["Wechatpay-Signature-Type"] == "WECHATPAY2-SHA256-RSA2048"
    assert received.headers["Request-ID"].startswith("08")
    assert abs(int(received.headers["Wechatpay-Timestamp"]) - time.time()) < 5
    envelope = received.json
    assert envelope["id"] == result.notification.id
    assert len(envelope["id"]) == 36
    assert envelope["event_type"] == "TRANSACTION.SUCCESS"
    assert envelope["resource_type"] == "encrypt-resource"
    assert envelope["summary"] == "支付成功"
    assert envelope["resource"]["original_type"] == "transaction"
    assert envelope["resource"]["algorithm"] == "AEAD_AES_256_GCM"
    content = json.loads(shared_client.decrypt(envelope["resource"]))
    assert content == shared_client.query(number).json


def test_notifications_can_be_signed_by_the_certificate(keys, receiver):
    with Sandbox(keys=keys, notifications_signed_by="certificate") as sandbox:
        client = GatewayClient(sandbox.environment())
        client.place("T000001", notify_url=receiver.url)
        sandbox.pay("T000001")
    (received,) = receiver.received
    assert client.verify(received.headers, received.body) == client.certificate_serial


@pytest.mark.parametrize("status", [200, 202, 204, 299])
def test_any_2xx_ends_the_deliveries(sandbox, client, receiver, status):
    receiver.statuses = [status]
    client.place("T000001", notify_url=receiver.url)
    sandbox.pay("T000001")
    sandbox.advance(timedelta(days=2))
    assert len(receiver.received) == 1


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 500, 503])
def test_any_other_status_is_tried_again_after_15_seconds(sandbox, client, receiver, status):
    sandbox.set_rate(0)
    receiver.statuses = [status]
    receiver.headers = {"Location": receiver.url}
    client.place("T000001", notify_url=receiver.url)
    result = sandbox.pay("T000001")
    assert (result.attempt.status, result.notification.state) == (status, "pending")
    assert result.notification.next_at == result.notification.created_at + timedelta(seconds=15)
    sandbox.advance_to(result.notification.next_at - timedelta(microseconds=1))
    assert len(receiver.received) == 1
    sandbox.advance(timedelta(microseconds=1))
    assert len(receiver.received) == 2
    assert sandbox.notifications()[0].state == "delivered"


def test_all_fifteen_retries_then_none(sandbox, client):
    sandbox.set_rate(0)
    client.place("T000001", notify_url=NOBODY)
    first = sandbox.pay("T000001").notification
    sandbox.advance(timedelta(hours=24, minutes=4))
    (notification,) = sandbox.notifications("T000001")
    moments = [attempt.at - first.created_at for attempt in notification.attempts]
    assert moments == [sum(SCHEDULE[:count], timedelta()) for count in range(16)]
    assert (notification.state, notification.next_at) == ("exhausted", None)
    sandbox.advance(timedelta(days=1))
    assert len(sandbox.notifications("T000001")[0].attempts) == 16


def test_retries_carry_the_same_message_under_a_fresh_signature(sandbox, client, receiver):
    receiver.statuses = [500]
    client.place("T000001", notify_url=receiver.url)
    sandbox.pay("T000001")
    sandbox.advance(timedelta(days=1))
    first, second = receiver.received
    assert first.body == second.body
    assert first.headers["Wechatpay-Nonce"] != second.headers["Wechatpay-Nonce"]
    client.verify(second.headers, second.body)
    # a day passed in business, not on the wall
    assert abs(int(second.headers["Wechatpay-Timestamp"]) - time.time()) < 5


def test_deliveries_of_several_orders_come_in_the_order_they_fall_due(sandbox, client, receiver):
    sandbox.set_rate(0)
    receiver.statuses = [500, 500, 500]
    first, second = "T000001", "T000002"
    for number in (first, second):
        client.place(number, notify_url=receiver.url)
    sandbox.pay(first)
    sandbox.advance(timedelta(seconds=10))
    sandbox.pay(second)
    sandbox.advance(timedelta(minutes=5))
    orders = [
        json.loads(client.decrypt(received.json["resource"]))["out_trade_no"]
        for received in receiver.received
    ]
    assert orders == [first, second, first, second, first]


def test_receiver_that_hangs_is_given_up_on(keys, receiver):
    receiver.hold = threading.Event()
    with Sandbox(keys=keys, notify_timeout=0.05) as sandbox:
        client = GatewayClient(sandbox.environment())
        client.place("T000001", notify_url=receiver.url)
        attempt = sandbox.pay("T000001").attempt
    receiver.hold.set()
    assert attempt.status is None
    assert attempt.error == "no answer within 0.05 s"
    assert attempt.latency_ms >= 50


def test_address_that_refuses_is_recorded(shared_sandbox, shared_client, number):
    shared_client.place(number, notify_url=NOBODY)
    attempt = shared_sandbox.pay(number).attempt
    assert attempt.status is None
    assert "refused" in attempt.error


def test_lost_notification_never_comes_by_itself(sandbox, client, receiver):
    client.place("T000001", notify_url=receiver.url)
    result = sandbox.pay("T000001", notify=False)
    assert (result.attempt, result.notification.state) == (None, "lost")
    sandbox.advance(timedelta(days=2))
    assert receiver.received == []
    assert client.query("T000001").json["trade_state"] == "SUCCESS"


def test_resend_is_one_more_delivery_of_the_same(sandbox, client, receiver):
    client.place("T000001", notify_url=receiver.url)
    notification = sandbox.pay("T000001").notification
    receiver.statuses = [503]
    assert sandbox.resend(notification.id).status == 503
    assert sandbox.notifications()[0].state == "delivered"
    assert [r.json["id"] for r in receiver.received] == [notification.id] * 2


def test_resend_that_succeeds_ends_the_schedule(sandbox, client, receiver):
    receiver.statuses = [500]
    client.place("T000001", notify_url=receiver.url)
    notification = sandbox.pay("T000001").notification
    sandbox.resend(notification.id)
    sandbox.advance(timedelta(days=2))
    assert len(receiver.received) == 2


def test_delivery_can_be_had_without_being_sent(shared_sandbox, shared_client, number, receiver):
    shared_client.place(number, notify_url=receiver.url)
    notification = shared_sandbox.pay(number, notify=False).notification
    first, second = (shared_sandbox.delivery(notification.id) for _ in range(2))
    assert first.url == receiver.url
    assert first.body == second.body == notification.body
    assert first.headers["Wechatpay-Nonce"] != second.headers["Wechatpay-Nonce"]
    shared_client.verify(first.headers, first.body)
    assert receiver.received == []


def test_unknown_notification(shared_sandbox):
    for call in (shared_sandbox.resend, shared_sandbox.delivery):
        with pytest.raises(ControlError, match="no notification"):
            call("nobody")


def test_receiver_may_call_the_gateway_while_it_is_notified(sandbox, client, receiver):
    """A shop queries, or refunds, in its hook; the gateway must not wait for itself."""
    asked = []

    class Asking(threading.Event):
        def wait(self, timeout=None):
            asked.append(client.query("T000001").status)
            asked.append(client.refund("T000001", "R1").status)
            return True

    receiver.hold = Asking()
    receiver.statuses = [500]
    client.place("T000001", notify_url=receiver.url)
    sandbox.pay("T000001")
    sandbox.advance(timedelta(seconds=15))
    assert asked == [200, 200, 200, 200]
