"""What happens, in order: each step does it, checks it, and yields what it has seen.

Knows the story and what must be true after each step; the actors are the stage's.
"""

from __future__ import annotations

import base64
import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256

from wechatpay_kit.bills import parse_trade_bill
from wechatpay_kit_sandbox.sealing import Seal

from .stage import OPENID, TOTAL, StoryError, check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wechatpay_kit.bills import BillRow
    from wechatpay_kit_sandbox.delivery import Delivery
    from wechatpay_kit_sandbox.gateway import Payment
    from wechatpay_kit_sandbox.notifications import Notification

    from .stage import Stage

    Lines = Iterator[tuple[str, object]]

__all__ = ["STORY"]

REFUND = 3000  # fen
STALE = 600.0  # seconds; twice what a receiver tolerates
_NO_CONTENT, _UNAUTHORIZED = 204, 401
_PARAMETERS = ("timeStamp", "nonceStr", "package", "signType", "paySign")


def _place(stage: Stage) -> Lines:
    placed = stage.place(stage.first)
    order = stage.kit.order(stage.first)
    check(order.state == "open", f"the shop's record of the order says {order.state}")
    stage.payment = placed["payment"]
    yield "out_trade_no", order.out_trade_no
    yield "total", _money(order.record.total)
    yield "prepay_id", order.prepay_id


def _parameters(stage: Stage) -> Lines:
    payment, merchant = stage.payment, stage.sandbox.keys.merchant
    prepay_id = stage.kit.order(stage.first).prepay_id
    check(payment["package"] == f"prepay_id={prepay_id}", "they are for another prepay_id")
    signed = [merchant.appid, payment["timeStamp"], payment["nonceStr"], payment["package"], ""]
    try:
        merchant.private_key.public_key().verify(
            base64.b64decode(payment["paySign"]), "\n".join(signed).encode(), PKCS1v15(), SHA256()
        )
    except InvalidSignature:
        raise StoryError("paySign does not verify with the merchant's public key") from None
    yield from ((name, payment[name]) for name in _PARAMETERS)
    yield "checked", "paySign verifies with the merchant's public key"


def _pay(stage: Stage) -> Lines:
    paid = stage.sandbox.pay(stage.first, openid=OPENID)
    yield "trade_state", paid.order.trade_state
    yield "transaction_id", paid.order.transaction_id
    stage.notification = _delivered(paid)
    yield "delivered to", _delivery_line(stage.notification)


def _verify(stage: Stage) -> Lines:
    said = stage.log.last("delivery")
    (event,) = stage.told.only("on_paid")
    paid = stage.sandbox.order(stage.first)
    transaction = event.transaction
    check(said.get("event_type") == "TRANSACTION.SUCCESS", f"the shop's log says {said}")
    check(transaction.transaction_id == paid.transaction_id, "it is another transaction")
    check(transaction.amount.total == TOTAL, f"it is about {transaction.amount.total} fen")
    yield "id", said["notification_id"]
    yield "signed by", said["serial"]
    yield "event_type", said["event_type"]
    yield "transaction_id", transaction.transaction_id
    yield "amount.total", _money(transaction.amount.total)


def _fulfil(stage: Stage) -> Lines:
    (event,) = stage.told.only("on_paid")
    state = stage.kit.order(stage.first).state
    check(state == "paid", f"the shop's record of the order says {state}")
    yield "on_paid", f"{stage.told.count('on_paid')} time, for {event.out_trade_no}"
    yield "event.key", event.key
    yield "order", state


def _deliver_twice(stage: Stage) -> Lines:
    together = Barrier(2)

    def deliver(number: str) -> int | str | None:
        together.wait(10)
        attempt = stage.sandbox.resend(number)
        return attempt.status or attempt.error

    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(deliver, [stage.notification.id] * 2))
    check(answers == [_NO_CONTENT] * 2, f"they were answered {answers}")
    duplicates = stage.told.count("on_duplicate")
    check(duplicates == len(answers), f"on_duplicate fired {duplicates} times")
    stage.told.only("on_paid")
    yield "answers", " and ".join(map(str, answers))
    yield "on_duplicate", f"{duplicates} times"
    yield "on_paid", "still 1 time: nothing is shipped twice"


def _refuse(stage: Stage) -> Lines:
    for name, delivery, reason in _bad_deliveries(stage):
        answer = stage.http.post(
            delivery.url, data=delivery.body, headers=delivery.headers, timeout=10
        )
        check(answer.status_code == _UNAUTHORIZED, f"{name}: answered {answer.status_code}")
        told = [event.reason for event in stage.told.of("on_rejected")]
        check(told[-1:] == [reason], f"{name}: on_rejected was told {told}, not {reason}")
        yield name, f"{answer.status_code} {answer.json()['message']}"
    stage.told.only("on_paid")
    yield "on_rejected", f"{stage.told.count('on_rejected')} times"


def _bad_deliveries(stage: Stage) -> Iterator[tuple[str, Delivery, str]]:
    genuine = stage.sandbox.delivery(stage.notification.id)
    keys, now = stage.sandbox.keys, time.time
    impostor = generate_private_key(public_exponent=65537, key_size=2048)
    forger = keys._replace(public_key=keys.public_key._replace(private_key=impostor))

    def signed_by(keys: Any, wall: Callable[[], float]) -> Delivery:
        seal = Seal(keys, stage.sandbox.numbers, wall)
        signature = seal.headers(genuine.body, keys.public_key.serial)
        return genuine._replace(headers=genuine.headers | signature)

    yield "forged", signed_by(forger, now), "bad_signature"
    yield "stale", signed_by(keys, lambda: now() - STALE), "clock"
    middle = len(genuine.body) // 2
    tampered = bytearray(genuine.body)
    tampered[middle] ^= 1
    yield "tampered", genuine._replace(body=bytes(tampered)), "bad_signature"


def _refund(stage: Stage) -> Lines:
    number = f"{stage.first}-R1"
    asked = stage.kit.create_refund(
        out_trade_no=stage.first, out_refund_no=number, refund=REFUND, total=TOTAL
    )
    check(asked.status == "PROCESSING", f"the gateway accepted it as {asked.status}")
    yield "out_refund_no", number
    yield "refund_id", asked.refund_id
    yield "amount", f"{_money(REFUND)} of {_money(TOTAL)}"
    yield "accepted as", asked.status
    finished = stage.sandbox.finish_refund(number)
    yield "delivered to", _delivery_line(_delivered(finished))
    (event,) = stage.told.only("on_refund")
    check(event.refund.status == "SUCCESS", f"on_refund was told {event.refund.status}")
    check(event.refund.amount.refund == REFUND, f"of {event.refund.amount.refund} fen")
    yield "on_refund", f"1 time, {event.refund.status}, for {event.out_refund_no}"


def _close(stage: Stage) -> Lines:
    stage.place(stage.second)
    found = stage.kit.query_order(out_trade_no=stage.second)
    check(found.trade_state == "NOTPAY", f"the query says {found.trade_state}")
    yield "out_trade_no", stage.second
    yield "queried", found.trade_state
    outcome = stage.kit.close_order(stage.second)
    (event,) = stage.told.only("on_closed")
    check(event.out_trade_no == stage.second, f"on_closed was told of {event.out_trade_no}")
    closed = stage.sandbox.order(stage.second).trade_state
    check(closed == "CLOSED", f"the gateway says {closed}")
    yield "closed", f"{closed} at the gateway, settlement {outcome}"
    yield "on_closed", f"1 time, for {event.out_trade_no}"


def _read_bill(stage: Stage) -> Lines:
    before = stage.sandbox.now()
    day = before.date()
    tomorrow = before.replace(hour=10, minute=0, second=0, microsecond=0) + timedelta(days=1)
    after = stage.sandbox.advance_to(tomorrow)
    yield "clock", f"{before:%Y-%m-%d %H:%M:%S} turned to {after:%Y-%m-%d %H:%M:%S}, Beijing"
    # The kit compares the hash with the one announced before the file gets its name.
    path = stage.kit.trade_bill(day).download(stage.folder / f"{day}.csv")
    content = path.read_bytes()
    yield "bill of", f"{day}, {len(content)} bytes"
    yield "SHA-1", f"{hashlib.sha1(content, usedforsecurity=False).hexdigest()}, as announced"
    with path.open("rb") as lines:
        rows = list(parse_trade_bill(lines))
    found = {(row.trade_state, row.out_trade_no, row.refund or row.total) for row in rows}
    expected = {("SUCCESS", stage.first, TOTAL), ("REFUND", stage.first, REFUND)}
    check(len(rows) == len(expected) and found == expected, f"its rows are {found}")
    yield from (("row", _bill_row(row)) for row in rows)


def _delivered(payment: Payment) -> Notification:
    """The notification, if the shop has acknowledged it."""
    notification, attempt = payment.notification, payment.attempt
    if notification is None or attempt is None:
        raise StoryError("no notification was sent")
    answer = attempt.error or f"status {attempt.status}"
    check(
        attempt.status == _NO_CONTENT,
        f"the notification to {notification.notify_url} was not acknowledged: {answer}",
    )
    return notification


def _delivery_line(notification: Notification) -> str:
    attempt = notification.attempts[-1]
    return f"{notification.notify_url}, answered {attempt.status} in {attempt.latency_ms:.0f} ms"


def _money(fen: int) -> str:
    return f"{fen} fen (¥{fen // 100}.{fen % 100:02})"


def _bill_row(row: BillRow) -> str:
    number = row.out_refund_no if row.refund else row.out_trade_no
    moved = _money(row.refund or row.total or 0)
    return f"{row.trade_time:%H:%M:%S}  {row.trade_state:7}  {number:22}  {moved}"


STORY: tuple[tuple[str, Callable[[Stage], Lines]], ...] = (
    ("An order is placed", _place),
    ("Parameters for wx.requestPayment", _parameters),
    ("The user pays", _pay),
    ("The notification, verified and decrypted by the shop", _verify),
    ("on_paid fired once", _fulfil),
    ("The same notification again, twice at once", _deliver_twice),
    ("A forged, a stale and a tampered notification", _refuse),
    ("Part of the money is refunded", _refund),
    ("A second order, never paid", _close),
    ("Tomorrow, 10:00: the day's bill", _read_bill),
)
