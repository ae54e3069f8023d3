"""Notifications: sealed once, delivered on the official schedule, every attempt recorded.

Knows envelopes, attempts and the schedule; knows nothing of order rules or the HTTP of the
gateway. Rules: APIv3 §notifications: judged by status alone, 2xx ends it, otherwise again after
15s/15s/30s/3m/10m/20m/30m/30m/30m/60m/3h/3h/3h/6h/6h on the business clock.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from .clock import rfc3339
from .delivery import Delivery
from .errors import ControlError
from .sealing import encrypt

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from .agenda import Agenda
    from .clock import BusinessClock
    from .delivery import Outcome
    from .keys import MerchantAccount
    from .numbers import Numbers
    from .sealing import Seal

__all__ = ["SCHEDULE", "Attempt", "Notification", "Notifier"]

SCHEDULE = tuple(
    timedelta(seconds=seconds)
    for seconds in (
        *(15, 15, 30),
        *(minutes * 60 for minutes in (3, 10, 20, 30, 30, 30, 60)),
        *(hours * 3600 for hours in (3, 3, 3, 6, 6)),
    )
)

_SUMMARIES = {
    "TRANSACTION.SUCCESS": "支付成功",
    "REFUND.SUCCESS": "退款成功",
    "REFUND.ABNORMAL": "退款异常",
    "REFUND.CLOSED": "退款关闭",
}

NotificationState = Literal["pending", "delivered", "exhausted", "lost"]


class Attempt(Struct, frozen=True, kw_only=True):
    """One delivery that was made. ``at`` is business time; ``error`` stands for no status."""

    at: datetime
    status: int | None
    error: str | None
    latency_ms: float


class Notification(Struct, frozen=True, kw_only=True):
    """One thing to tell a merchant. Its id and its body stay the same over all attempts."""

    id: str
    mchid: str
    event_type: str
    out_trade_no: str
    out_refund_no: str | None
    notify_url: str
    created_at: datetime
    body: bytes
    state: NotificationState = "pending"
    attempts: tuple[Attempt, ...] = ()
    next_at: datetime | None = None


class Notifier:
    """Keeps notifications and delivers them. ``lock`` guards the records, never a delivery."""

    def __init__(
        self,
        *,
        seal: Seal,
        signing_serial: str,
        numbers: Numbers,
        clock: BusinessClock,
        agenda: Agenda,
        post: Callable[[Delivery], Outcome],
        lock: AbstractContextManager[Any],
    ) -> None:
        self._seal = seal
        self._signing_serial = signing_serial
        self._numbers = numbers
        self._clock = clock
        self._agenda = agenda
        self._post = post
        self._lock = lock
        self._notifications: dict[str, Notification] = {}

    def publish(
        self,
        merchant: MerchantAccount,
        event_type: str,
        content: dict[str, Any],
        *,
        notify_url: str,
        is_lost: bool = False,
    ) -> Notification:
        """Seal and record a notification; nothing is sent yet (and if lost, never by itself)."""
        now = self._clock.now()
        notification_id = self._numbers.notification_id()
        kind = "transaction" if event_type.startswith("TRANSACTION.") else "refund"
        resource = encrypt(
            merchant.apiv3_key,
            msgspec.json.encode(content),
            associated_data=kind,
            nonce=self._numbers.nonce(12),
        )
        envelope = {
            "id": notification_id,
            "create_time": rfc3339(now),
            "resource_type": "encrypt-resource",
            "event_type": event_type,
            "summary": _SUMMARIES[event_type],
            "resource": {"original_type": kind, **resource},
        }
        notification = Notification(
            id=notification_id,
            mchid=merchant.mchid,
            event_type=event_type,
            out_trade_no=content["out_trade_no"],
            out_refund_no=content.get("out_refund_no"),
            notify_url=notify_url,
            created_at=now,
            body=msgspec.json.encode(envelope),
            state="lost" if is_lost else "pending",
        )
        with self._lock:
            return self._keep(notification)

    def start(self, notification: Notification) -> Attempt:
        """The first attempt, made now and in this thread; a failure is tried again later."""
        return self._attempt(notification.id, notification.created_at, tries=0)

    def resend(self, notification_id: str) -> Attempt:
        """One more attempt, now, beside the schedule; a 2xx ends the schedule."""
        return self._record(notification_id, self._post(self.delivery(notification_id)))

    def delivery(self, notification_id: str) -> Delivery:
        """One freshly signed delivery; nothing is sent and nothing is recorded."""
        notification = self.get(notification_id)
        headers = {
            "User-Agent": "Mozilla/4.0",
            "Accept": "*/*",
            "Connection": "close",
            "Content-Type": "application/json",
            "Request-ID": self._numbers.request_id(0),
            **self._seal.headers(notification.body, self._signing_serial),
        }
        return Delivery(notification.notify_url, headers, notification.body)

    def get(self, notification_id: str) -> Notification:
        with self._lock:
            notification = self._notifications.get(notification_id)
        if notification is None:
            raise ControlError(404, f"no notification {notification_id}")
        return notification

    def all(self) -> list[Notification]:
        """All notifications, the oldest first."""
        with self._lock:
            return list(self._notifications.values())

    def _attempt(self, notification_id: str, due: datetime, tries: int) -> Attempt:
        """A scheduled attempt; ``tries`` were made before it."""
        attempt = self.resend(notification_id)
        with self._lock:
            notification = self._notifications[notification_id]
            if notification.state == "delivered":
                return attempt
            if tries == len(SCHEDULE):
                self._keep(replace(notification, state="exhausted", next_at=None))
                return attempt
            # From the moment it was due, not from when it ran: turning the clock by the sum of
            # the schedule reaches its end, however long the receiver took.
            again = due + SCHEDULE[tries]
            self._keep(replace(notification, next_at=again))
        self._agenda.add(again, partial(self._retry, notification_id, again, tries + 1))
        return attempt

    def _retry(self, notification_id: str, due: datetime, tries: int) -> None:
        if self.get(notification_id).state == "pending":
            self._attempt(notification_id, due, tries)

    def _record(self, notification_id: str, outcome: Outcome) -> Attempt:
        attempt = Attempt(
            at=self._clock.now(),
            status=outcome.status,
            error=outcome.error,
            latency_ms=outcome.latency_ms,
        )
        with self._lock:
            notification = self._notifications[notification_id]
            notification = replace(notification, attempts=(*notification.attempts, attempt))
            if outcome.is_done:
                notification = replace(notification, state="delivered", next_at=None)
            self._keep(notification)
        return attempt

    def _keep(self, notification: Notification) -> Notification:
        self._notifications[notification.id] = notification
        return notification
