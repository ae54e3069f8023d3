"""The gateway of one sandbox, put together: rules, clock, notifications, bills.

Knows which part does what and in which order; knows nothing of HTTP. Its methods are the control
calls of ``/_sandbox/`` for in-process use; all are thread-safe. One lock guards all state, and is
never held while something is delivered.
"""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict

from .agenda import Agenda
from .billdesk import BillDesk
from .clock import BusinessClock
from .delivery import TIMEOUT, Postman
from .documents import refund_notice, transaction
from .errors import ControlError, Refusal
from .keys import generate_keys
from .notifications import Notifier
from .numbers import Numbers
from .sealing import Seal
from .state import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from .delivery import Delivery
    from .keys import Keys, MerchantAccount
    from .notifications import Attempt, Notification
    from .state import Order, Refund, RefundStatus

__all__ = ["Gateway", "GatewayOptions", "Payment"]


class Payment(NamedTuple):
    """What one payment, or one finished refund, set off.

    ``attempt`` is None where nothing was sent: the notification was to be lost, or (refunds) the
    request named no notify_url.
    """

    order: Order
    refund: Refund | None
    notification: Notification | None
    attempt: Attempt | None


class GatewayOptions(TypedDict, total=False):
    """The arguments of :class:`Gateway`, for those who hand them on."""

    keys: Keys | None
    refund_delay: timedelta
    bill_url_life: timedelta
    notify_timeout: float
    notifications_signed_by: Literal["public_key", "certificate"]
    wall: Callable[[], float]
    monotonic: Callable[[], float]


class Gateway:
    """Orders, refunds, bills and notifications for the merchant of ``keys``.

    ``refund_delay`` is business time until a refund succeeds by itself, ``bill_url_life`` real time
    that a bill's download URL lives, ``notify_timeout`` the real seconds a receiver has to answer,
    ``notifications_signed_by`` the platform key that signs notifications (answers are signed by the
    key that the request's Wechatpay-Serial asks for). ``wall`` and ``monotonic`` are real time.
    """

    def __init__(
        self,
        *,
        keys: Keys | None = None,
        refund_delay: timedelta = timedelta(minutes=5),
        bill_url_life: timedelta = timedelta(seconds=30),
        notify_timeout: float = TIMEOUT,
        notifications_signed_by: Literal["public_key", "certificate"] = "public_key",
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.keys = keys or generate_keys()
        self.merchants: dict[str, MerchantAccount] = {self.keys.merchant.mchid: self.keys.merchant}
        self.lock = threading.RLock()
        self.wall = wall
        self.numbers = Numbers()
        self.clock = BusinessClock(wall=wall, monotonic=monotonic)
        self.agenda = Agenda(self.clock)
        self.ledger = Ledger(self.numbers)
        self.bill_desk = BillDesk(
            self.ledger, self.numbers, url_life=bill_url_life, monotonic=monotonic
        )
        self.seal = Seal(self.keys, self.numbers, wall)
        self.postman = Postman(notify_timeout)
        signing_key: Any = getattr(self.keys, notifications_signed_by)
        self.notifier = Notifier(
            seal=self.seal,
            signing_serial=signing_key.serial,
            numbers=self.numbers,
            clock=self.clock,
            agenda=self.agenda,
            post=self.postman.post,
            lock=self.lock,
        )
        self._refund_delay = refund_delay

    # What a payer and WeChat Pay do

    def pay(
        self,
        out_trade_no: str,
        *,
        openid: str | None = None,
        notify: bool = True,
        mchid: str | None = None,
    ) -> Payment:
        """The payer pays the order; returns when the first delivery has been attempted.

        ``openid`` is checked against the order's where given; ``notify=False`` loses the
        notification for ever. Raises :class:`ControlError`: unknown, not NOTPAY, expired, other
        payer.
        """
        merchant = self._merchant(mchid)
        with self.lock:
            order = self.ledger.pay(merchant.mchid, out_trade_no, openid, self.clock.now())
            notification = self.notifier.publish(
                merchant,
                "TRANSACTION.SUCCESS",
                transaction(order),
                notify_url=order.notify_url,
                is_lost=not notify,
            )
        attempt = self.notifier.start(notification) if notify else None
        return Payment(order, None, self.notifier.get(notification.id), attempt)

    def fail(self, out_trade_no: str, *, mchid: str | None = None) -> Order:
        """The payer tries and fails: the order stays NOTPAY, nobody is notified."""
        with self.lock:
            return self.ledger.fail(self._merchant(mchid).mchid, out_trade_no, self.clock.now())

    def finish_refund(
        self,
        out_refund_no: str,
        status: RefundStatus = "SUCCESS",
        *,
        notify: bool = True,
        mchid: str | None = None,
    ) -> Payment:
        """Take a refund to SUCCESS, ABNORMAL or CLOSED now, and notify its notify_url, if any.

        Raises :class:`ControlError` where there is no such refund or no such step.
        """
        merchant = self._merchant(mchid)
        with self.lock:
            now = self.clock.now()
            try:
                refund = self.ledger.finish_refund(merchant.mchid, out_refund_no, status, now)
            except Refusal:
                raise ControlError(404, f"no refund {out_refund_no}") from None
            order = self.ledger.order(merchant.mchid, refund.out_trade_no, now)
            if refund.notify_url is None:
                return Payment(order, refund, None, None)
            notification = self.notifier.publish(
                merchant,
                f"REFUND.{status}",
                refund_notice(refund),
                notify_url=refund.notify_url,
                is_lost=not notify,
            )
        attempt = self.notifier.start(notification) if notify else None
        return Payment(order, refund, self.notifier.get(notification.id), attempt)

    def accept_refund(self, merchant: MerchantAccount, parameters: dict[str, Any]) -> Refund:
        """A refund asked for over the API; it succeeds by itself after the refund delay."""
        with self.lock:
            now = self.clock.now()
            refund = self.ledger.create_refund(merchant.mchid, parameters, now)
            if refund.created_at == now:  # new, not asked again
                task = partial(self._refund_due, merchant.mchid, refund.out_refund_no)
                self.agenda.add(now + self._refund_delay, task)
            return refund

    def _refund_due(self, mchid: str, out_refund_no: str) -> None:
        with self.lock:
            is_finished = self.ledger.refund(mchid, out_refund_no).status != "PROCESSING"
        if not is_finished:
            self.finish_refund(out_refund_no, mchid=mchid)

    # What can be seen

    def orders(self) -> list[Order]:
        """All orders, the oldest first."""
        with self.lock:
            return list(self.ledger.orders(self.clock.now()))

    def order(self, out_trade_no: str, *, mchid: str | None = None) -> Order:
        """One order as it is now; :class:`ControlError` if there is none."""
        with self.lock:
            try:
                return self.ledger.order(
                    self._merchant(mchid).mchid, out_trade_no, self.clock.now()
                )
            except Refusal:
                raise ControlError(404, f"no order {out_trade_no}") from None

    def refunds(self, out_trade_no: str | None = None) -> list[Refund]:
        """All refunds, or those of one order, the oldest first."""
        with self.lock:
            return [r for r in self.ledger.refunds() if out_trade_no in {None, r.out_trade_no}]

    def notifications(self, out_trade_no: str | None = None) -> list[Notification]:
        """All notifications, or those about one order and its refunds, the oldest first."""
        return [n for n in self.notifier.all() if out_trade_no in {None, n.out_trade_no}]

    # Deliveries by hand

    def resend(self, notification_id: str) -> Attempt:
        """Deliver a notification once more, now; returns when it has been attempted."""
        return self.notifier.resend(notification_id)

    def delivery(self, notification_id: str) -> Delivery:
        """One freshly signed delivery, not sent: to be posted, held back or tampered with."""
        return self.notifier.delivery(notification_id)

    # Time

    def now(self) -> datetime:
        """The business clock, Beijing time."""
        return self.clock.now()

    def advance(self, by: timedelta) -> datetime:
        """Turn the business clock forward; returns when all that fell due has been done."""
        if by < timedelta(0):
            raise ControlError(400, f"the business clock never goes back; got {by}")
        self.agenda.turn_to(self.clock.now() + by)
        return self.clock.now()

    def advance_to(self, moment: datetime) -> datetime:
        """Turn the business clock to an aware moment that is not past."""
        if moment.tzinfo is None:
            raise ControlError(400, f"the moment must have an offset, like +08:00; got {moment}")
        if moment < self.clock.now():
            raise ControlError(400, f"the business clock never goes back; got {moment}")
        self.agenda.turn_to(moment)
        return self.clock.now()

    def set_rate(self, rate: float) -> datetime:
        """Let the business clock run ``rate`` times as fast as real time; 0 stops it."""
        try:
            self.agenda.set_rate(rate)
        except ValueError as error:
            raise ControlError(400, str(error)) from None
        return self.clock.now()

    def close(self) -> None:
        """Let go of the sockets that deliveries went through."""
        self.postman.close()

    def _merchant(self, mchid: str | None) -> MerchantAccount:
        merchant = self.merchants.get(mchid or self.keys.merchant.mchid)
        if merchant is None:
            raise ControlError(404, f"no merchant {mchid}")
        return merchant
