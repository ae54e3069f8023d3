"""What WeChat Pay would send: signed, encrypted deliveries, made with throw-away keys.

Knows keys, the envelope and the clock; knows nothing of HTTP or a kit. Signs and encrypts with
``cryptography`` itself rather than with the kit, so that a fault in the kit's own bytes cannot
hide in a test. Rules: APIv3 notifications.
"""

from __future__ import annotations

import base64
import json
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256

from wechatpay_kit_sandbox.environment import environment
from wechatpay_kit_sandbox.keys import generate_keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from wechatpay_kit_sandbox.keys import Keys, PlatformKey

__all__ = ["Deliveries", "Headers", "changed", "without"]

Headers = list[tuple[str, str]]

NOWHERE = "http://127.0.0.1:9"  # the gateway of a kit that asks none
_BEIJING = timezone(timedelta(hours=8))
_AGO = timedelta(seconds=30)  # since the payment, when its notification arrives
_TRANSACTION_ID = "4200002026112400000000000001"


class Deliveries:
    """Makes deliveries for the merchant of ``keys`` (new ones, half a second of work).

    ``clock`` says what time they are signed at; give the kit under test the same where it has a
    clock of its own. ``changes`` of every builder replace or add fields, by their JSON names.
    """

    def __init__(
        self,
        keys: Keys | None = None,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.keys = keys or generate_keys()
        self.mchid = self.keys.merchant.mchid
        self.appid = self.keys.merchant.appid
        self.now = clock

    def environment(self, notify_url: str | None = None) -> dict[str, str]:
        """The ``WECHATPAY_*`` variables of this merchant, keys as PEM text; no gateway answers."""
        settings = environment(self.keys, NOWHERE, notify_url)
        del settings["WECHATPAY_SANDBOX_CLOCK"]  # no sandbox runs: time is the machine's
        return settings

    def transaction(
        self, out_trade_no: str = "T1001", total: int = 100, **changes: Any
    ) -> dict[str, Any]:
        """The plaintext of a payment notification; ``total`` in fen."""
        return {
            "mchid": self.mchid,
            "appid": self.appid,
            "out_trade_no": out_trade_no,
            "transaction_id": _TRANSACTION_ID,
            "trade_type": "JSAPI",
            "trade_state": "SUCCESS",
            "trade_state_desc": "支付成功",
            "bank_type": "OTHERS",
            "success_time": self._lately(),
            "payer": {"openid": "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"},
            "amount": {
                "total": total,
                "payer_total": total,
                "currency": "CNY",
                "payer_currency": "CNY",
            },
        } | changes

    def refund(
        self,
        out_refund_no: str = "R1",
        refund: int = 30,
        status: str = "SUCCESS",
        **changes: Any,
    ) -> dict[str, Any]:
        """The plaintext of a refund notification, of ``refund`` fen of the order T1001."""
        return {
            "mchid": self.mchid,
            "out_trade_no": "T1001",
            "transaction_id": _TRANSACTION_ID,
            "out_refund_no": out_refund_no,
            "refund_id": "50300002026112400000000000001",
            "refund_status": status,
            "success_time": self._lately(),
            "user_received_account": "支付用户零钱",
            "amount": {"total": 100, "refund": refund, "payer_total": 100, "payer_refund": refund},
        } | changes

    def envelope(
        self,
        plaintext: Any,
        event_type: str = "TRANSACTION.SUCCESS",
        *,
        apiv3_key: bytes | None = None,
        resource: dict[str, Any] | None = None,
        **changes: Any,
    ) -> bytes:
        """The body of a notification around ``plaintext`` (JSON-able, or raw bytes)."""
        raw = plaintext if isinstance(plaintext, bytes) else json.dumps(plaintext).encode()
        kind = "refund" if event_type.startswith("REFUND") else "transaction"
        nonce = "0123456789ab"
        cipher = AESGCM(apiv3_key or self.keys.merchant.apiv3_key)
        sealed = cipher.encrypt(nonce.encode(), raw, kind.encode())
        body = {
            "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{event_type}{raw!r}")),
            "create_time": self._lately(),
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
            | (resource or {}),
        }
        return json.dumps(body | changes, ensure_ascii=False).encode()

    def signed(
        self,
        body: bytes,
        *,
        at: datetime | None = None,
        timestamp: str | None = None,
        nonce: str = "EWEPnYoMFHP5Ku0cHy2tFGBxWLgFZRSk",
        key: PlatformKey | None = None,
        serial: str | None = None,
    ) -> Headers:
        """The signature headers of ``body``; by the public key unless ``key`` is another one.

        Signed now, or ``at`` another time; ``timestamp`` is sent and signed as it is.
        """
        key = key or self.keys.public_key
        if timestamp is None:
            timestamp = str(int((at or self.now()).timestamp()))
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
        self,
        plaintext: Any = None,
        event_type: str = "TRANSACTION.SUCCESS",
        *,
        at: datetime | None = None,
        **changes: Any,
    ) -> tuple[Headers, bytes]:
        """Headers and body of one delivery: of a payment of T1001, unless told otherwise."""
        content = self.transaction() if plaintext is None else plaintext
        body = self.envelope(content, event_type, **changes)
        return self.signed(body, at=at), body

    def _lately(self) -> str:
        moment = (self.now() - _AGO).astimezone(_BEIJING)
        return moment.isoformat(timespec="seconds")


def changed(headers: Headers, name: str, value: str) -> Headers:
    """``headers`` with another value under ``name``."""
    return [(n, value if n == name else v) for n, v in headers]


def without(headers: Headers, name: str) -> Headers:
    """``headers`` but for those called ``name``."""
    return [(n, v) for n, v in headers if n != name]
