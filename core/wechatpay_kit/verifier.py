"""Verify that a message came from WeChat Pay, and came now.

Knows keys, clocks and bytes; knows nothing of sockets, JSON or orders, and does no I/O.
Rules: APIv3 verification of answers and notifications, in both key modes.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from .errors import SignatureError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from .errors import SignatureReason

__all__ = [
    "MAX_SKEW",
    "PUBLIC_KEY_PREFIX",
    "KeyRing",
    "VerificationKey",
    "normal_serial",
    "signed_bytes",
    "verify",
]

MAX_SKEW = 300  # seconds; the gateway's own window, and ours on both sides
PUBLIC_KEY_PREFIX = "PUB_KEY_ID_"

_HEADERS = {
    "wechatpay-timestamp": re.compile(r"[0-9]{1,12}"),
    "wechatpay-nonce": re.compile(r"[!-+\--~]{1,128}"),  # printable ASCII without the comma
    "wechatpay-signature": re.compile(r"[!-+\--~]{1,2048}"),  # its alphabet is the last check's
    "wechatpay-serial": re.compile(r"[0-9A-Za-z_]{1,64}"),
}


def signed_bytes(timestamp: str, nonce: str, body: bytes) -> bytes:
    """The three lines WeChat Pay signs; the last one is the body as received."""
    return b"%s\n%s\n%s\n" % (timestamp.encode(), nonce.encode(), body)


def verify(headers: Iterable[tuple[str, str]], body: bytes, *, keys: KeyRing, now: datetime) -> str:
    """Return the serial that signed ``body``; raise :class:`SignatureError`, and nothing else.

    ``headers`` are the pairs as received, in any case; each of the four must be there once.
    ``body`` is the raw bytes, ``now`` the wall clock (aware). A ``WECHATPAY/SIGNTEST/`` probe
    fails like any forgery, as APIv3 asks.
    """
    signed = read_headers(headers)
    check_clock(signed, now)
    key = keys.get(signed.serial, now)
    check_signature(signed, body, key)
    return signed.serial


class SignedHeaders(NamedTuple):
    """The four values a signature rests on, as received."""

    timestamp: str
    nonce: str
    signature: str
    serial: str


def read_headers(headers: Iterable[tuple[str, str]]) -> SignedHeaders:
    """Each signature header once and well formed; a doubled or joined one is a smuggling try."""
    found: dict[str, str] = {}
    for raw_name, value in headers:
        name = raw_name.lower()
        if name not in _HEADERS:
            continue
        if name in found:
            raise _refusal("malformed_header", f"header {name} came twice; it must come once")
        found[name] = value.strip(" \t")
    for name, rule in _HEADERS.items():
        if name not in found:
            raise _refusal("missing_header", f"header {name} is missing")
        if not rule.fullmatch(found[name]):
            raise _refusal("malformed_header", f"header {name} is malformed")
    return SignedHeaders(*(found[name] for name in _HEADERS))


def check_clock(signed: SignedHeaders, now: datetime) -> None:
    skew = int(now.timestamp()) - int(signed.timestamp)
    if abs(skew) > MAX_SKEW:
        raise _refusal(
            "clock",
            f"timestamp {signed.timestamp} is {abs(skew)} s {'behind' if skew > 0 else 'ahead of'}"
            f" this clock, more than {MAX_SKEW}; a stale or replayed message, or this machine's "
            "clock is wrong",
            signed.serial,
        )


def check_signature(signed: SignedHeaders, body: bytes, key: VerificationKey) -> None:
    try:
        signature = base64.b64decode(signed.signature, validate=True)
        key.public_key.verify(
            signature, signed_bytes(signed.timestamp, signed.nonce, body), PKCS1v15(), SHA256()
        )
    except (binascii.Error, ValueError, InvalidSignature):
        raise _refusal(
            "bad_signature",
            f"the signature does not fit the body under key {key.serial}: forged, altered on the "
            "way, or a WeChat Pay probe",
            signed.serial,
        ) from None


class VerificationKey(NamedTuple):
    """One key of WeChat Pay: a platform certificate's (it expires) or a public key (it does not).

    ``serial`` is what ``Wechatpay-Serial`` names: 40 hex digits, or ``PUB_KEY_ID_…``.
    """

    serial: str
    public_key: RSAPublicKey
    not_before: datetime | None = None
    expires_at: datetime | None = None

    @classmethod
    def from_public_key(cls, key_id: str, pem: bytes) -> VerificationKey:
        """From the merchant platform's download. Raises ``ValueError`` if it is no RSA key."""
        return cls(key_id, _rsa(load_pem_public_key(pem)))

    @classmethod
    def from_certificates(cls, pem: bytes) -> list[VerificationKey]:
        """From one or more PEM certificates. Raises ``ValueError`` if one is not an RSA one."""
        from cryptography import x509  # noqa: PLC0415 - public-key mode has no certificates

        return [
            cls(
                f"{certificate.serial_number:040X}",
                _rsa(certificate.public_key()),
                certificate.not_valid_before_utc,
                certificate.not_valid_after_utc,
            )
            for certificate in x509.load_pem_x509_certificates(pem)
        ]

    @property
    def is_certificate(self) -> bool:
        return self.expires_at is not None


class KeyRing:
    """WeChat Pay's keys by serial, certificates and public keys in any mix.

    Holds keys and does no I/O; adding is atomic, so readers need no lock. Serials compare
    without regard to case and leading zeros.
    """

    def __init__(self, keys: Iterable[VerificationKey] = ()) -> None:
        self._keys: dict[str, VerificationKey] = {}
        self.add(*keys)

    def add(self, *keys: VerificationKey) -> None:
        """Hold these keys too; keys already held stay."""
        self._keys = self._keys | {normal_serial(key.serial): key for key in keys}

    @property
    def serials(self) -> tuple[str, ...]:
        return tuple(key.serial for key in self._keys.values())

    def get(self, serial: str, now: datetime) -> VerificationKey:
        """The key of that serial; :class:`SignatureError` if it is not held or has expired."""
        key = self._keys.get(normal_serial(serial))
        if key is None:
            held = ", ".join(self.serials) or "none"
            raise _refusal("unknown_key", f"no key for serial {serial}; held: {held}", serial)
        if key.expires_at is not None and now >= key.expires_at:
            raise _refusal(
                "unknown_key",
                f"platform certificate {serial} expired on {key.expires_at:%Y-%m-%d}; "
                "download the new one or switch to the WeChat Pay public key",
                serial,
            )
        return key

    def newest(self, now: datetime) -> VerificationKey | None:
        """The key to encrypt for: a public key where there is one, else the newest certificate."""
        usable = [k for k in self._keys.values() if k.expires_at is None or now < k.expires_at]
        return max(
            usable,
            key=lambda k: (not k.is_certificate, k.not_before.timestamp() if k.not_before else 0),
            default=None,
        )

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self.serials)})"


def _refusal(reason: SignatureReason, message: str, serial: str | None = None) -> SignatureError:
    return SignatureError(message, reason=reason, serial=serial)


def normal_serial(serial: str) -> str:
    """A serial as it is compared: without regard to case and leading zeros."""
    return serial.upper().lstrip("0")


def _rsa(key: object) -> RSAPublicKey:
    if not isinstance(key, RSAPublicKey):
        raise ValueError("not an RSA key")  # noqa: TRY004 - the loader's own error for bad PEM
    return key
