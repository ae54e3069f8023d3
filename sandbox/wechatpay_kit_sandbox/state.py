"""The gateway's orders and refunds: what may happen to them, and when.

A state machine over moments and amounts; knows nothing of HTTP, signatures, notifications or
threads (whoever calls holds the gateway's lock). Rules: APIv3 JSAPI order, close and refund pages;
NOTPAY → SUCCESS → REFUND, NOTPAY → CLOSED; PROCESSING → SUCCESS | CLOSED | ABNORMAL → SUCCESS.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from .errors import (
    APPID_NOT_OF_MERCHANT,
    MERCHANT_DIFFERS,
    ORDER_CLOSED,
    ORDER_EXPIRED,
    ORDER_MISSING,
    ORDER_PAID,
    REENTRY_DIFFERS,
    REFUND_BEYOND_REST,
    REFUND_DIFFERS,
    REFUND_MISSING,
    REFUND_OF_UNPAID,
    REFUND_TOO_LATE,
    REFUND_TOO_MANY,
    ControlError,
    Refusal,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .keys import MerchantAccount
    from .numbers import Numbers

__all__ = ["Ledger", "Order", "Refund", "RefundStatus", "RefundStep"]

ORDER_LIFE = timedelta(days=7)  # then an unpaid order closes by itself
SHORTEST_EXPIRY = timedelta(minutes=1)
REFUND_WINDOW = timedelta(days=365)
MOST_REFUNDS = 50

RefundStatus = Literal["PROCESSING", "SUCCESS", "CLOSED", "ABNORMAL"]
TradeState = Literal["NOTPAY", "SUCCESS", "REFUND", "CLOSED"]

_REFUND_STEPS: dict[str, frozenset[str]] = {
    "PROCESSING": frozenset({"SUCCESS", "CLOSED", "ABNORMAL"}),
    "ABNORMAL": frozenset({"SUCCESS"}),
    "SUCCESS": frozenset(),
    "CLOSED": frozenset(),
}


class Order(Struct, frozen=True, kw_only=True):
    """An order at the gateway; amounts in fen, times in Beijing time."""

    mchid: str
    appid: str
    out_trade_no: str
    description: str
    total: int
    currency: str
    openid: str
    notify_url: str
    time_expire: datetime
    created_at: datetime
    prepay_id: str
    prepay_at: datetime
    parameters: dict[str, Any]  # of the first request: what a re-entry must repeat
    trade_state: TradeState = "NOTPAY"
    attach: str | None = None
    device_id: str | None = None
    transaction_id: str | None = None
    paid_at: datetime | None = None
    closed_at: datetime | None = None
    failed_attempts: int = 0

    @property
    def is_paid(self) -> bool:
        return self.paid_at is not None


class RefundStep(Struct, frozen=True):
    """A status and since when."""

    status: RefundStatus
    at: datetime


class Refund(Struct, frozen=True, kw_only=True):
    """A refund at the gateway; amounts in fen."""

    mchid: str
    out_refund_no: str
    refund_id: str
    out_trade_no: str
    transaction_id: str
    refund: int
    total: int
    currency: str
    created_at: datetime
    steps: tuple[RefundStep, ...]
    reason: str | None = None
    notify_url: str | None = None
    funds_account: str = "AVAILABLE"

    @property
    def status(self) -> RefundStatus:
        return self.steps[-1].status

    def status_at(self, moment: datetime) -> RefundStatus:
        """What it was then: a bill keeps the status of its day."""
        return next(step.status for step in reversed(self.steps) if step.at <= moment)

    @property
    def success_time(self) -> datetime | None:
        return next((step.at for step in self.steps if step.status == "SUCCESS"), None)


_Key = tuple[str, str]  # mchid and the merchant's number


class Ledger:
    """All orders and refunds of all merchants. Not thread-safe by itself."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers
        self._orders: dict[_Key, Order] = {}
        self._burnt: set[_Key] = set()
        self._by_transaction: dict[_Key, _Key] = {}
        self._refunds: dict[_Key, Refund] = {}
        self._refunds_of: dict[_Key, list[_Key]] = {}

    # Orders

    def place(
        self,
        merchant: MerchantAccount,
        parameters: dict[str, Any],
        time_expire: datetime | None,
        now: datetime,
    ) -> Order:
        """A new order, or the old one with a new prepay_id where the same is asked again.

        ``parameters`` passed validation. ``time_expire`` counts on the first call only.
        """
        if parameters["mchid"] != merchant.mchid:
            raise Refusal(MERCHANT_DIFFERS)
        if parameters["appid"] != merchant.appid:
            raise Refusal(APPID_NOT_OF_MERCHANT)
        key = (merchant.mchid, parameters["out_trade_no"])
        parameters = _comparable(parameters)
        if key in self._burnt:
            raise Refusal(REENTRY_DIFFERS)
        known = self._current(key, now)
        order = (
            _new_order(parameters, time_expire, now)
            if known is None
            else _reentered(known, parameters, now)
        )
        return self._keep(replace(order, prepay_id=self._numbers.prepay_id(now), prepay_at=now))

    def order(self, mchid: str, out_trade_no: str, now: datetime) -> Order:
        order = self._current((mchid, out_trade_no), now)
        if order is None:
            raise Refusal(ORDER_MISSING)
        return order

    def order_by_transaction(self, mchid: str, transaction_id: str, now: datetime) -> Order:
        key = self._by_transaction.get((mchid, transaction_id))
        if key is None:
            raise Refusal(ORDER_MISSING)
        return self.order(*key, now)

    def close(self, mchid: str, out_trade_no: str, now: datetime) -> None:
        """Close an unpaid order; closing a number that was never ordered burns it."""
        key = (mchid, out_trade_no)
        order = self._current(key, now)
        if order is None:
            self._burnt.add(key)
        elif order.is_paid:
            raise Refusal(ORDER_PAID)
        elif order.trade_state == "NOTPAY":
            self._keep(replace(order, trade_state="CLOSED", closed_at=now))

    def pay(self, mchid: str, out_trade_no: str, openid: str | None, now: datetime) -> Order:
        """The payer pays; :class:`ControlError` where WeChat would not let them."""
        order = self._payable(mchid, out_trade_no, now)
        if openid is not None and openid != order.openid:
            raise ControlError(409, f"order {out_trade_no} is for another payer than {openid}")
        paid = replace(
            order,
            trade_state="SUCCESS",
            transaction_id=self._numbers.transaction_id(now),
            paid_at=now,
        )
        self._by_transaction[mchid, str(paid.transaction_id)] = (mchid, out_trade_no)
        return self._keep(paid)

    def fail(self, mchid: str, out_trade_no: str, now: datetime) -> Order:
        """An attempt to pay fails; the order stays NOTPAY, as at the real gateway."""
        order = self._payable(mchid, out_trade_no, now)
        return self._keep(replace(order, failed_attempts=order.failed_attempts + 1))

    def orders(self, now: datetime) -> Iterator[Order]:
        """All orders, the oldest first."""
        for key in list(self._orders):
            order = self._current(key, now)
            if order is not None:
                yield order

    # Refunds

    def create_refund(self, mchid: str, parameters: dict[str, Any], now: datetime) -> Refund:
        """A new refund in PROCESSING, or the existing one where the same is asked again."""
        amount = parameters["amount"]
        order = self._refundable(mchid, parameters, now)
        key = (mchid, parameters["out_refund_no"])
        known = self._refunds.get(key)
        if known is not None:
            _same_refund(known, order, amount)
            return known
        if amount["total"] != order.total:
            raise Refusal(REFUND_DIFFERS)
        self._check_rest(order, amount["refund"], now)
        refund = Refund(
            mchid=mchid,
            out_refund_no=parameters["out_refund_no"],
            refund_id=self._numbers.refund_id(now),
            out_trade_no=order.out_trade_no,
            transaction_id=str(order.transaction_id),
            refund=amount["refund"],
            total=amount["total"],
            currency=amount["currency"],
            created_at=now,
            steps=(RefundStep("PROCESSING", now),),
            reason=parameters.get("reason"),
            notify_url=parameters.get("notify_url"),
            funds_account=parameters.get("funds_account", "AVAILABLE"),
        )
        self._refunds[key] = refund
        self._refunds_of.setdefault((mchid, order.out_trade_no), []).append(key)
        self._keep(replace(order, trade_state="REFUND"))
        return refund

    def refund(self, mchid: str, out_refund_no: str) -> Refund:
        refund = self._refunds.get((mchid, out_refund_no))
        if refund is None:
            raise Refusal(REFUND_MISSING)
        return refund

    def finish_refund(
        self, mchid: str, out_refund_no: str, status: RefundStatus, now: datetime
    ) -> Refund:
        """Move a refund one step; :class:`ControlError` if there is no such step."""
        refund = self.refund(mchid, out_refund_no)
        if status not in _REFUND_STEPS[refund.status]:
            raise ControlError(
                409, f"refund {out_refund_no} is {refund.status}; it cannot become {status}"
            )
        finished = replace(refund, steps=(*refund.steps, RefundStep(status, now)))
        self._refunds[mchid, out_refund_no] = finished
        return finished

    def refunds(self) -> Iterator[Refund]:
        """All refunds, the oldest first."""
        yield from list(self._refunds.values())

    # What the rules above rest on

    def _current(self, key: _Key, now: datetime) -> Order | None:
        order = self._orders.get(key)
        if order is None or order.trade_state != "NOTPAY" or now < order.created_at + ORDER_LIFE:
            return order
        return self._keep(
            replace(order, trade_state="CLOSED", closed_at=order.created_at + ORDER_LIFE)
        )

    def _keep(self, order: Order) -> Order:
        self._orders[order.mchid, order.out_trade_no] = order
        return order

    def _payable(self, mchid: str, out_trade_no: str, now: datetime) -> Order:
        order = self._current((mchid, out_trade_no), now)
        if order is None:
            raise ControlError(404, f"no order {out_trade_no}")
        if order.trade_state != "NOTPAY":
            raise ControlError(409, f"order {out_trade_no} is {order.trade_state}, not NOTPAY")
        if now >= order.time_expire:
            raise ControlError(409, f"order {out_trade_no} expired at {order.time_expire}")
        return order

    def _refundable(self, mchid: str, parameters: dict[str, Any], now: datetime) -> Order:
        try:
            if "transaction_id" in parameters:
                order = self.order_by_transaction(mchid, parameters["transaction_id"], now)
            else:
                order = self.order(mchid, parameters["out_trade_no"], now)
        except Refusal:
            raise Refusal(REFUND_OF_UNPAID) from None
        named = parameters.get("out_trade_no", order.out_trade_no)
        if not order.is_paid or named != order.out_trade_no:
            raise Refusal(REFUND_OF_UNPAID)
        return order

    def _check_rest(self, order: Order, refund: int, now: datetime) -> None:
        keys = self._refunds_of.get((order.mchid, order.out_trade_no), [])
        earlier = [self._refunds[key] for key in keys]
        if refund + sum(r.refund for r in earlier if r.status != "CLOSED") > order.total:
            raise Refusal(REFUND_BEYOND_REST)
        if order.paid_at is not None and now > order.paid_at + REFUND_WINDOW:
            raise Refusal(REFUND_TOO_LATE)
        if len(earlier) >= MOST_REFUNDS:
            raise Refusal(REFUND_TOO_MANY)


def _comparable(parameters: dict[str, Any]) -> dict[str, Any]:
    """What a re-entry must repeat: the default spelt out, time_expire left out."""
    amount = {"currency": "CNY"} | parameters["amount"]
    return {k: v for k, v in parameters.items() if k != "time_expire"} | {"amount": amount}


def _new_order(parameters: dict[str, Any], time_expire: datetime | None, now: datetime) -> Order:
    return Order(
        mchid=parameters["mchid"],
        appid=parameters["appid"],
        out_trade_no=parameters["out_trade_no"],
        description=parameters["description"],
        total=parameters["amount"]["total"],
        currency=parameters["amount"]["currency"],
        openid=parameters["payer"]["openid"],
        notify_url=parameters["notify_url"],
        time_expire=max(time_expire or now + ORDER_LIFE, now + SHORTEST_EXPIRY),
        created_at=now,
        prepay_id="",
        prepay_at=now,
        parameters=parameters,
        attach=parameters.get("attach"),
        device_id=parameters.get("scene_info", {}).get("device_id"),
    )


def _reentered(known: Order, parameters: dict[str, Any], now: datetime) -> Order:
    if known.is_paid:
        raise Refusal(ORDER_PAID)
    if known.trade_state == "CLOSED":
        raise Refusal(ORDER_CLOSED)
    if known.parameters != parameters:
        raise Refusal(REENTRY_DIFFERS)
    if now >= known.time_expire:
        raise Refusal(ORDER_EXPIRED)
    return known


def _same_refund(known: Refund, order: Order, amount: dict[str, Any]) -> None:
    asked = (order.out_trade_no, amount["refund"], amount["total"], amount["currency"])
    if asked != (known.out_trade_no, known.refund, known.total, known.currency):
        raise Refusal(REFUND_DIFFERS)
