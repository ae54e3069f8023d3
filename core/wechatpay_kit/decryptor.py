"""Open what WeChat Pay encrypted, and seal what it alone may read.

Knows keys and ciphertexts; knows nothing of HTTP, JSON or orders.
Rules: APIv3 AEAD_AES_256_GCM (notifications, certificates), RSA-OAEP (sensitive fields).
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA1

from .errors import DecryptError, ParameterError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

__all__ = ["ALGORITHM", "Decryptor", "decrypt_sensitive", "encrypt_sensitive"]

ALGORITHM = "AEAD_AES_256_GCM"
_NONCE_BYTES = 12
_TAG_BYTES = 16


class Decryptor:
    """Holds the APIv3 keys, the current one first; an old one keeps late notifications readable.

    Each key is exactly 32 bytes.
    """

    def __init__(self, *apiv3_keys: bytes) -> None:
        self._ciphers = tuple(AESGCM(key) for key in apiv3_keys)

    def decrypt(
        self, *, algorithm: str, nonce: str, associated_data: str | None, ciphertext: str
    ) -> bytes:
        """The plaintext; :class:`DecryptError` if the form is wrong or no key fits."""
        if algorithm != ALGORITHM:
            raise DecryptError(f"algorithm must be {ALGORITHM}; got {algorithm[:32]!r}")
        try:
            iv, aad = nonce.encode(), (associated_data or "").encode()
            sealed = base64.b64decode(ciphertext, validate=True)
        except UnicodeEncodeError:
            raise DecryptError("nonce and associated_data must be valid Unicode") from None
        except (binascii.Error, ValueError):
            raise DecryptError("ciphertext is not base64") from None
        if len(iv) != _NONCE_BYTES:
            raise DecryptError(f"nonce must be {_NONCE_BYTES} bytes; got {len(iv)}")
        if len(sealed) < _TAG_BYTES:
            raise DecryptError(f"ciphertext is shorter than its {_TAG_BYTES}-byte tag")
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(iv, sealed, aad)
            except InvalidTag:
                continue
        raise DecryptError(
            f"none of {len(self._ciphers)} APIv3 key(s) opens the ciphertext; set the key of the "
            "merchant platform, and after a change the old one as the previous key"
        )

    def __repr__(self) -> str:
        return f"Decryptor({len(self._ciphers)} key(s))"


def encrypt_sensitive(public_key: RSAPublicKey, text: str) -> str:
    """Base64 RSA-OAEP of a sensitive request field for WeChat Pay's key.

    Raises :class:`ParameterError` where the text is too long for the key (214 bytes for 2048 bit).
    """
    try:
        plain = text.encode()
    except UnicodeEncodeError:
        raise ParameterError("sensitive field", "must be valid Unicode", "(not shown)") from None
    limit = public_key.key_size // 8 - 2 * SHA1.digest_size - 2
    if len(plain) > limit:
        raise ParameterError("sensitive field", f"at most {limit} bytes of UTF-8", len(plain))
    return base64.b64encode(public_key.encrypt(plain, _oaep())).decode()


def decrypt_sensitive(private_key: RSAPrivateKey, ciphertext: str) -> str:
    """The text of a sensitive answer field, by the merchant's private key."""
    try:
        return private_key.decrypt(base64.b64decode(ciphertext, validate=True), _oaep()).decode()
    except ValueError:  # wrong base64, wrong key and wrong UTF-8 alike: no oracle
        raise DecryptError(
            "the sensitive field does not open with this merchant private key"
        ) from None


def _oaep() -> OAEP:
    # SHA-1 is what every official SDK and the gateway use for OAEP; it signs nothing here.
    return OAEP(mgf=MGF1(SHA1()), algorithm=SHA1(), label=None)  # noqa: S303
