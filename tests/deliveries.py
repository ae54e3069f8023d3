"""This suite's one merchant, what WeChat Pay sends it, and who listens.

No test signs or encrypts: :class:`wechatpay_kit_sandbox.testing.Deliveries` does, here with the
suite's own keys and at a fixed time.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from wechatpay_kit import ExpectedOrder, Kit, Merchant, hookimpl
from wechatpay_kit_sandbox.keys import Keys, generate_keys, private_pem
from wechatpay_kit_sandbox.testing import Deliveries, Headers, changed, without

__all__ = [
    "APPID",
    "BEIJING",
    "KEYS",
    "MCHID",
    "NOW",
    "Clock",
    "Expecting",
    "Headers",
    "Recorder",
    "changed",
    "delivery",
    "envelope",
    "merchant",
    "receiving_kit",
    "refund",
    "signed",
    "transaction",
    "without",
]

NOW = datetime(2026, 11, 24, 2, 0, 0, tzinfo=UTC)  # 10:00 in Beijing
BEIJING = "2026-11-24T09:59:30+08:00"
KEYS: Keys = generate_keys()
MCHID = KEYS.merchant.mchid
APPID = KEYS.merchant.appid

_weixin = Deliveries(KEYS, clock=lambda: NOW)
transaction, refund = _weixin.transaction, _weixin.refund  # plaintexts
envelope, signed, delivery = _weixin.envelope, _weixin.signed, _weixin.delivery


class Clock:
    """A clock that a test turns; call it for the time."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **delta: float) -> None:
        self.now += timedelta(**delta)


class Recorder:
    """A plugin that implements every hook and remembers what it was told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self.conflicts_handled = True

    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    def of(self, name: str) -> list[Any]:
        return [event for said, event in self.events if said == name]

    @hookimpl
    def on_paid(self, event):
        self.events.append(("on_paid", event))

    @hookimpl
    def on_duplicate(self, event):
        self.events.append(("on_duplicate", event))

    @hookimpl
    def on_closed(self, event):
        self.events.append(("on_closed", event))

    @hookimpl
    def on_refund(self, event):
        self.events.append(("on_refund", event))

    @hookimpl
    def on_conflict(self, event):
        self.events.append(("on_conflict", event))
        return self.conflicts_handled

    @hookimpl
    def on_notification(self, event):
        self.events.append(("on_notification", event))

    @hookimpl
    def on_rejected(self, event):
        self.events.append(("on_rejected", event))


class Expecting:
    """A plugin that expects every order at ``total`` fen, for tests that are not about orders."""

    def __init__(self, total: int = 100, **changes: Any) -> None:
        self.order = ExpectedOrder(**{"total": total, "appid": APPID} | changes)

    @hookimpl
    def expected_order(self, out_trade_no):
        return self.order


def merchant(**changes: Any) -> Merchant:
    """A merchant that holds the platform's public key and certificate and points at loopback."""
    settings: dict[str, Any] = {
        "mchid": MCHID,
        "appid": APPID,
        "serial_no": KEYS.merchant.serial_no,
        "private_key": private_pem(KEYS.merchant.private_key),
        "apiv3_key": KEYS.merchant.apiv3_key,
        "public_key_id": KEYS.public_key.serial,
        "public_key": KEYS.public_key.pem,
        "platform_cert": KEYS.certificate.pem,
        "notify_url": "https://shop.example/wechatpay/notify",
        "base_url": "http://127.0.0.1:9",
    }
    return Merchant(**settings | changes)


def receiving_kit(store: Any, *plugins: object, clock: Clock | None = None, **options: Any) -> Kit:
    """A kit without a private key, which downloads and queries nothing."""
    settings = {name: options.pop(name) for name in list(options) if name in _MERCHANT_SETTINGS}
    return Kit(
        merchant(receive_only=True, private_key=None, **settings),
        plugins=plugins,
        store=store,
        clock=clock or Clock(),
        **options,
    )


_MERCHANT_SETTINGS = frozenset(
    {
        "mchid",
        "appid",
        "apiv3_key",
        "apiv3_key_previous",
        "public_key",
        "public_key_id",
        "platform_cert",
    }
)
