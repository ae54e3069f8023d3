"""What WeChat Pay would send: signed, encrypted deliveries, made with throw-away keys.

The one place where tests sign and encrypt. It does so with ``cryptography`` itself rather than
with the kit, so that a fault in the kit's own bytes cannot hide in the tests.
"""

from __future__ import annotations

import base64
import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256

from wechatpay_kit import ExpectedOrder, Kit, Merchant, hookimpl
from wechatpay_kit_sandbox.keys import Keys, generate_keys, private_pem

NOW = datetime(2026, 11, 24, 2, 0, 0, tzinfo=UTC)  # 10:00 in Beijing
BEIJING = "2026-11-24T09:59:30+08:00"
KEYS: Keys = generate_keys()
MCHID = KEYS.merchant.mchid
APPID = KEYS.merchant.appid

Headers = list[tuple[str, str]]


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


def transaction(out_trade_no: str = "T1001", total: int = 100, **changes: Any) -> dict[str, Any]:
    """The plaintext of a payment notification."""
    return {
        "mchid": MCHID,
        "appid": APPID,
        "out_trade_no": out_trade_no,
        "transaction_id": "4200002026112400000000000001",
        "trade_type": "JSAPI",
        "trade_state": "SUCCESS",
        "trade_state_desc": "支付成功",
        "bank_type": "OTHERS",
        "success_time": BEIJING,
        "payer": {"openid": "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"},
        "amount": {
            "total": total,
            "payer_total": total,
            "currency": "CNY",
            "payer_currency": "CNY",
        },
    } | changes


def refund(
    out_refund_no: str = "R1", refund: int = 30, status: str = "SUCCESS", **changes: Any
) -> dict[str, Any]:
    """The plaintext of a refund notification."""
    return {
        "mchid": MCHID,
        "out_trade_no": "T1001",
        "transaction_id": "4200002026112400000000000001",
        "out_refund_no": out_refund_no,
        "refund_id": "50300002026112400000000000001",
        "refund_status": status,
        "success_time": BEIJING,
        "user_received_account": "支付用户零钱",
        "amount": {"total": 100, "refund": refund, "payer_total": 100, "payer_refund": refund},
    } | changes


def envelope(plaintext: Any, event_type: str = "TRANSACTION.SUCCESS", **changes: Any) -> bytes:
    """The body of a notification around ``plaintext`` (JSON-able, or raw bytes)."""
    key = changes.pop("apiv3_key", KEYS.merchant.apiv3_key)
    raw = plaintext if isinstance(plaintext, bytes) else json.dumps(plaintext).encode()
    kind = "refund" if event_type.startswith("REFUND") else "transaction"
    nonce = "0123456789ab"
    sealed = AESGCM(key).encrypt(nonce.encode(), raw, kind.encode())
    body = {
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{event_type}{raw!r}")),
        "create_time": BEIJING,
        "resource_type": "encrypt-resource",
        "event_type": event_type,
        "summary": "支付成功",
        "resource": {
            "original_type": kind,
            "algorithm": "AEAD_AES_256_GCM",
            "ciphertext": base64.b64encode(sealed).decode(),
            "associated_data": kind,
            "nonce": nonce,
        }
        | changes.pop("resource", {}),
    }
    return json.dumps(body | changes, ensure_ascii=False).encode()


def signed(
    body: bytes,
    *,
    at: datetime = NOW,
    timestamp: str | None = None,
    nonce: str = "EWEPnYoMFHP5Ku0cHy2tFGBxWLgFZRSk",
    key: Any = None,
    serial: str | None = None,
) -> Headers:
    """The signature headers of ``body``; by the public key unless ``key`` is another one."""
    key = key or KEYS.public_key
    timestamp = str(int(at.timestamp())) if timestamp is None else timestamp
    message = b"\n".join([timestamp.encode(), nonce.encode(), body, b""])
    signature = key.private_key.sign(message, PKCS1v15(), SHA256())
    return [
        ("Content-Type", "application/json"),
        ("Wechatpay-Timestamp", timestamp),
        ("Wechatpay-Nonce", nonce),
        ("Wechatpay-Signature", base64.b64encode(signature).decode()),
        ("Wechatpay-Serial", serial or key.serial),
        ("Wechatpay-Signature-Type", "WECHATPAY2-SHA256-RSA2048"),
    ]


def delivery(
    plaintext: Any = None, event_type: str = "TRANSACTION.SUCCESS", *, at: datetime = NOW, **changes
) -> tuple[Headers, bytes]:
    """Headers and body of one delivery, ready for ``Receiver.receive``."""
    body = envelope(transaction() if plaintext is None else plaintext, event_type, **changes)
    return signed(body, at=at), body


def changed(headers: Headers, name: str, value: str) -> Headers:
    """``headers`` with another value under ``name``."""
    return [(n, value if n == name else v) for n, v in headers]


def without(headers: Headers, name: str) -> Headers:
    return [(n, v) for n, v in headers if n != name]


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
