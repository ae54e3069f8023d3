"""What a merchant signs, and how.

Knows bytes, keys and the four message layouts; knows nothing of HTTP, JSON or orders.
Rules: APIv3 request signatures and client-invocation signatures (wx.requestPayment).
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Protocol

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

__all__ = [
    "SCHEME",
    "RsaSigner",
    "Signer",
    "authorization",
    "payment_message",
    "request_message",
    "request_payment",
]

SCHEME = "WECHATPAY2-SHA256-RSA2048"


class Signer(Protocol):
    """Whatever holds the merchant's private key: memory, a KMS, an HSM."""

    @property
    def serial_no(self) -> str:
        """The serial of the merchant API certificate, 40 hex digits."""

    def sign(self, message: bytes) -> str:
        """RSA PKCS#1 v1.5 over SHA-256 of ``message``, as one line of base64."""


class RsaSigner:
    """A :class:`Signer` whose key is in this process."""

    def __init__(self, private_key: RSAPrivateKey, serial_no: str) -> None:
        self._private_key = private_key
        self._serial_no = serial_no

    @property
    def serial_no(self) -> str:
        return self._serial_no

    def sign(self, message: bytes) -> str:
        return base64.b64encode(self._private_key.sign(message, PKCS1v15(), SHA256())).decode()

    def __repr__(self) -> str:
        return f"RsaSigner(serial_no={self._serial_no!r})"


def authorization(
    signer: Signer, *, mchid: str, method: str, target: str, body: bytes, timestamp: str, nonce: str
) -> str:
    """The ``Authorization`` header of one request.

    ``target`` is the raw path and query exactly as sent, ``body`` the very bytes sent (for a
    media upload: its ``meta`` JSON), ``timestamp`` Unix seconds, ``nonce`` at most 32 characters.
    """
    signature = signer.sign(request_message(method, target, timestamp, nonce, body))
    return (
        f'{SCHEME} mchid="{mchid}",nonce_str="{nonce}",signature="{signature}",'
        f'timestamp="{timestamp}",serial_no="{signer.serial_no}"'
    )


def request_message(method: str, target: str, timestamp: str, nonce: str, body: bytes) -> bytes:
    """Five lines, each ended by LF, the body's too even where it is empty."""
    head = f"{method.upper()}\n{target}\n{timestamp}\n{nonce}\n".encode()
    return b"%s%s\n" % (head, body)


def request_payment(
    signer: Signer, *, appid: str, prepay_id: str, timestamp: str, nonce: str
) -> dict[str, str]:
    """The argument of ``wx.requestPayment``: timeStamp, nonceStr, package, signType, paySign.

    ``appid`` is signed but not passed on, and must be the one that the order was placed with.
    """
    package = f"prepay_id={prepay_id}"
    return {
        "timeStamp": timestamp,
        "nonceStr": nonce,
        "package": package,
        "signType": "RSA",
        "paySign": signer.sign(payment_message(appid, timestamp, nonce, package)),
    }


def payment_message(appid: str, timestamp: str, nonce: str, package: str) -> bytes:
    """Four lines, each ended by LF; for mini-programs ``package`` is ``prepay_id=…``."""
    return f"{appid}\n{timestamp}\n{nonce}\n{package}\n".encode()
