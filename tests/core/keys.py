"""Throw-away keys and what WeChat Pay would make with them, for the tests of the core.

Import as ``from core.keys import …`` (``tests`` is on pytest's path; no ``__init__.py`` here).
Signs and encrypts with ``cryptography`` itself, so that no test checks the kit against the kit.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.x509.oid import NameOID

from wechatpay_kit.merchant import Merchant

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW = datetime(2026, 11, 24, 2, 0, 0, tzinfo=UTC)  # 10:00 in Beijing
MCHID = "1900000001"
APPID = "wxd678efh567hg6787"
MERCHANT_SERIAL = "5157F09EFDC096DE15EBE81A47057A7232F1B8E1"
PUBLIC_KEY_ID = "PUB_KEY_ID_0000000000000024101100397200000006"
PLATFORM_SERIAL = "7132D72A03E93CDDF8C03BBD1F37EEDF1B0E2D36"
APIV3_KEY = b"0123456789abcdef0123456789abcdef"
NONCE = "EWEPnYoMFHP5Ku0cHy2tFGBxWLgFZRSk"


@cache
def private_key(owner: str) -> RSAPrivateKey:
    """The same key for the same ``owner`` all session: merchant, public_key, platform, stranger."""
    return generate_private_key(public_exponent=65537, key_size=2048)


def private_pem(owner: str) -> bytes:
    return private_key(owner).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def public_pem(owner: str) -> bytes:
    return (
        private_key(owner)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def certificate(
    owner: str = "platform",
    serial: str = PLATFORM_SERIAL,
    *,
    not_before: datetime = NOW - timedelta(days=365),
    not_after: datetime = NOW + timedelta(days=4 * 365),
    names: Sequence[x509.GeneralName] = (),
) -> bytes:
    """A self-signed certificate as PEM; ``names`` make it good for a TLS server too."""
    key = private_key(owner)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Tenpay.com sign test")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(int(serial, 16))
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, SHA256()).public_bytes(serialization.Encoding.PEM)


def signed_headers(
    body: bytes,
    *,
    owner: str = "public_key",
    serial: str = PUBLIC_KEY_ID,
    at: datetime = NOW,
    nonce: str = NONCE,
) -> list[tuple[str, str]]:
    """The signature headers of an answer or a notification with that body."""
    timestamp = str(int(at.timestamp()))
    message = f"{timestamp}\n{nonce}\n".encode() + body + b"\n"
    signature = private_key(owner).sign(message, PKCS1v15(), SHA256())
    return [
        ("Wechatpay-Timestamp", timestamp),
        ("Wechatpay-Nonce", nonce),
        ("Wechatpay-Signature", base64.b64encode(signature).decode()),
        ("Wechatpay-Serial", serial),
        ("Wechatpay-Signature-Type", "WECHATPAY2-SHA256-RSA2048"),
    ]


def encrypted(
    plaintext: bytes,
    *,
    apiv3_key: bytes = APIV3_KEY,
    nonce: str = "fdasflkja484",
    associated_data: str = "transaction",
    **more: Any,
) -> dict[str, Any]:
    """An encrypted resource; ``more`` adds or replaces fields such as ``original_type``."""
    sealed = AESGCM(apiv3_key).encrypt(nonce.encode(), plaintext, associated_data.encode())
    return {
        "algorithm": "AEAD_AES_256_GCM",
        "nonce": nonce,
        "associated_data": associated_data,
        "ciphertext": base64.b64encode(sealed).decode(),
    } | more


def certificates_answer(*pems: bytes, **changes: Any) -> bytes:
    """The body of ``GET /v3/certificates``; ``changes`` replace fields of every entry."""
    data = []
    for pem in pems:
        loaded = x509.load_pem_x509_certificate(pem)
        data.append(
            {
                "serial_no": f"{loaded.serial_number:X}",
                "effective_time": "2024-01-01T00:00:00+08:00",
                "expire_time": "2030-01-01T00:00:00+08:00",
                "encrypt_certificate": encrypted(pem, associated_data="certificate"),
            }
            | changes
        )
    return json.dumps({"data": data}).encode()


def oaep() -> OAEP:
    return OAEP(mgf=MGF1(SHA1()), algorithm=SHA1(), label=None)


def opened(owner: str, ciphertext: str) -> str:
    """What a sensitive field holds, read with the private key of ``owner``."""
    return private_key(owner).decrypt(base64.b64decode(ciphertext), oaep()).decode()


def sealed(owner: str, text: str) -> str:
    """A sensitive field for ``owner``."""
    key = private_key(owner).public_key()
    return base64.b64encode(key.encrypt(text.encode(), oaep())).decode()


def merchant(**changes: Any) -> Merchant:
    """A merchant in public-key mode; ``changes`` are arguments of :class:`Merchant`."""
    settings: dict[str, Any] = {
        "mchid": MCHID,
        "appid": APPID,
        "serial_no": MERCHANT_SERIAL,
        "private_key": private_pem("merchant"),
        "apiv3_key": APIV3_KEY,
        "public_key_id": PUBLIC_KEY_ID,
        "public_key": public_pem("public_key"),
        "notify_url": "https://shop.example/wechatpay/notify",
        "base_url": "http://127.0.0.1:9",
    }
    return Merchant(**settings | changes)
