"""The identities of a sandbox: a merchant's, and the platform's two keys.

Generates keys and serials; knows nothing of HTTP or orders. Every identifier carries the sandbox
mark, by which the kit refuses to use it against the real gateway.
"""

from __future__ import annotations

import secrets
import string
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

__all__ = ["MARK", "Keys", "MerchantAccount", "PlatformKey", "generate_keys", "private_pem"]

MARK = "SANDBOX"
_SERIAL_DIGITS = 40
_KEY_ID_DIGITS = 34
_APIV3_KEY_LENGTH = 32
_CERTIFICATE_LIFE = timedelta(days=5 * 365)


class MerchantAccount(NamedTuple):
    """What the gateway knows of a merchant; the private key is the merchant's own, lent out."""

    mchid: str
    appid: str
    serial_no: str
    private_key: RSAPrivateKey
    apiv3_key: bytes

    def __repr__(self) -> str:
        return f"MerchantAccount(mchid={self.mchid!r}, appid={self.appid!r})"


class PlatformKey(NamedTuple):
    """A key that WeChat Pay signs with; ``pem`` is its certificate or its public key."""

    serial: str
    private_key: RSAPrivateKey
    pem: bytes

    def __repr__(self) -> str:
        return f"PlatformKey(serial={self.serial!r})"


class Keys(NamedTuple):
    """All that a sandbox signs and encrypts with; may be shared by several sandboxes."""

    merchant: MerchantAccount
    certificate: PlatformKey
    public_key: PlatformKey


def generate_keys() -> Keys:
    """A new merchant and a new platform, about half a second of work."""
    return Keys(_merchant(), _certificate(), _public_key())


def private_pem(key: RSAPrivateKey) -> bytes:
    """PKCS#8, unencrypted: what the merchant platform hands out as ``apiclient_key.pem``."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _merchant() -> MerchantAccount:
    letters = string.ascii_letters + string.digits
    key = MARK + "".join(secrets.choice(letters) for _ in range(_APIV3_KEY_LENGTH - len(MARK)))
    return MerchantAccount(
        mchid="19" + _digits(8),
        appid=f"wx{secrets.token_hex(8)}",
        serial_no=_serial(),
        private_key=_rsa(),
        apiv3_key=key.encode(),
    )


def _certificate() -> PlatformKey:
    key, serial, now = _rsa(), _serial(), datetime.now(UTC)
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, "WeChat Pay sandbox"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "wechatpay-kit"),
        ]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(int(serial, 16))
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _CERTIFICATE_LIFE)
        .sign(key, SHA256())
    )
    return PlatformKey(serial, key, certificate.public_bytes(Encoding.PEM))


def _public_key() -> PlatformKey:
    key = _rsa()
    mark = "".join(str(ord(letter)) for letter in MARK)
    serial = f"PUB_KEY_ID_{mark}{_digits(_KEY_ID_DIGITS - len(mark))}"
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return PlatformKey(serial, key, pem)


def _rsa() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


def _serial() -> str:
    mark = MARK.encode().hex().upper()
    return mark + secrets.token_hex((_SERIAL_DIGITS - len(mark)) // 2).upper()


def _digits(count: int) -> str:
    return "".join(secrets.choice(string.digits) for _ in range(count))
