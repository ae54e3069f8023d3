"""What the platform signs and encrypts: answers, notifications, its certificate.

Knows keys and bytes; knows nothing of HTTP or orders. Signatures carry wall time, whatever the
business clock says. Rules: APIv3 AEAD_AES_256_GCM and RSA-SHA256.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from wechatpay_kit.decryptor import ALGORITHM
from wechatpay_kit.signer import SCHEME, RsaSigner
from wechatpay_kit.verifier import signed_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from .keys import Keys, PlatformKey
    from .numbers import Numbers

__all__ = ["Seal", "encrypt"]


class Seal:
    """The platform's two signing keys, chosen by serial."""

    def __init__(self, keys: Keys, numbers: Numbers, wall: Callable[[], float]) -> None:
        self._numbers = numbers
        self._wall = wall
        self._certificate = _signer(keys.certificate)
        self._public_key = _signer(keys.public_key)

    def headers(self, body: bytes, serial: str | None = None) -> dict[str, str]:
        """The Wechatpay-* headers for ``body``.

        ``serial`` is what the request's Wechatpay-Serial named: the public key's id gets the
        public key, anything else the platform certificate.
        """
        signer = self._public_key if serial == self._public_key.serial_no else self._certificate
        timestamp = str(int(self._wall()))
        nonce = self._numbers.nonce()
        return {
            "Wechatpay-Nonce": nonce,
            "Wechatpay-Signature": signer.sign(signed_bytes(timestamp, nonce, body)),
            "Wechatpay-Timestamp": timestamp,
            "Wechatpay-Serial": signer.serial_no,
            "Wechatpay-Signature-Type": SCHEME,
        }


def encrypt(
    apiv3_key: bytes, plaintext: bytes, *, associated_data: str, nonce: str
) -> dict[str, Any]:
    """``plaintext`` as APIv3 sends it: algorithm, nonce, associated_data, ciphertext."""
    sealed = AESGCM(apiv3_key).encrypt(nonce.encode(), plaintext, associated_data.encode())
    return {
        "algorithm": ALGORITHM,
        "ciphertext": base64.b64encode(sealed).decode(),
        "associated_data": associated_data,
        "nonce": nonce,
    }


def _signer(key: PlatformKey) -> RsaSigner:
    return RsaSigner(key.private_key, key.serial)
