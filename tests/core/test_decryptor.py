"""What opens, what does not, and what its error says."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA1, SHA256

from deliveries import KEYS
from wechatpay_kit import DecryptError, ParameterError
from wechatpay_kit.decryptor import (
    ALGORITHM,
    Decryptor,
    decrypt_sensitive,
    encrypt_sensitive,
)

KEY, OLD_KEY = b"0123456789abcdef0123456789abcdef", b"fedcba9876543210fedcba9876543210"
NONCE = "0123456789ab"
PLAIN = '{"mchid":"1900000001","备注":"茶"}'.encode()


def sealed(key: bytes = KEY, associated_data: bytes = b"transaction") -> str:
    return base64.b64encode(AESGCM(key).encrypt(NONCE.encode(), PLAIN, associated_data)).decode()


def opened(decryptor: Decryptor = Decryptor(KEY), **changes: object) -> bytes:  # noqa: B008 - immutable
    given = {
        "algorithm": ALGORITHM,
        "nonce": NONCE,
        "associated_data": "transaction",
        "ciphertext": sealed(),
    }
    return decryptor.decrypt(**given | changes)


def test_a_ciphertext_opens_to_the_very_bytes():
    assert opened() == PLAIN


@pytest.mark.parametrize("keys", [(KEY, OLD_KEY), (OLD_KEY, KEY)], ids=["first", "second"])
def test_either_of_two_keys_opens(keys):
    assert opened(Decryptor(*keys)) == PLAIN


@pytest.mark.parametrize("absent", ["", None])
def test_absent_and_empty_associated_data_are_one(absent):
    assert opened(associated_data=absent, ciphertext=sealed(associated_data=b"")) == PLAIN


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"algorithm": "AEAD_SM4_GCM"}, "algorithm must be AEAD_AES_256_GCM; got 'AEAD_SM4_GCM'"),
        ({"algorithm": ""}, "algorithm must be"),
        ({"nonce": "0" * 11}, "nonce must be 12 bytes; got 11"),
        ({"nonce": "0" * 13}, "nonce must be 12 bytes; got 13"),
        ({"nonce": ""}, "nonce must be 12 bytes; got 0"),
        ({"nonce": "字" * 12}, "nonce must be 12 bytes; got 36"),
        ({"nonce": "0" * 12}, "none of 1 APIv3 key"),
        ({"ciphertext": "%%%"}, "not base64"),
        ({"ciphertext": "茶"}, "not base64"),
        ({"ciphertext": "\ud800"}, "not base64"),
        ({"ciphertext": sealed().rstrip("=") + "\n"}, "not base64"),
        ({"ciphertext": ""}, "shorter than its 16-byte tag"),
        ({"ciphertext": base64.b64encode(bytes(15)).decode()}, "shorter than its 16-byte tag"),
        ({"ciphertext": sealed(OLD_KEY)}, "none of 1 APIv3 key"),
        ({"associated_data": "refund"}, "none of 1 APIv3 key"),
        ({"associated_data": None}, "none of 1 APIv3 key"),
        ({"nonce": "\ud800" * 4}, "nonce"),
        ({"associated_data": "\ud800"}, "associated_data"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value,
)
def test_what_does_not_open_is_a_decrypt_error_that_shows_no_secret(changes, says):
    with pytest.raises(DecryptError, match=says) as caught:
        opened(**changes)
    for secret in (KEY.decode(), sealed(), PLAIN.decode()):
        assert secret not in str(caught.value)


def test_a_tag_alone_opens_to_nothing():
    tag = AESGCM(KEY).encrypt(NONCE.encode(), b"", b"")
    assert opened(associated_data=None, ciphertext=base64.b64encode(tag).decode()) == b""


def test_a_decryptors_repr_counts_its_keys():
    assert repr(Decryptor(KEY, OLD_KEY)) == "Decryptor(2 key(s))"


# Sensitive fields

PRIVATE = KEYS.merchant.private_key
PUBLIC = PRIVATE.public_key()


def oaep(plain: bytes, digest: SHA1 | SHA256) -> str:
    padding = OAEP(mgf=MGF1(digest), algorithm=digest, label=None)
    return base64.b64encode(PUBLIC.encrypt(plain, padding)).decode()


@pytest.mark.parametrize("text", ["张三", "", "a" * 214, "茶" * 71], ids=len)
def test_a_sensitive_field_comes_back(text):
    assert decrypt_sensitive(PRIVATE, encrypt_sensitive(PUBLIC, text)) == text


def test_a_sensitive_field_is_sealed_by_oaep_over_sha1():
    sealed_text = base64.b64decode(encrypt_sensitive(PUBLIC, "张三"), validate=True)
    padding = OAEP(mgf=MGF1(SHA1()), algorithm=SHA1(), label=None)
    assert PRIVATE.decrypt(sealed_text, padding).decode() == "张三"


def test_sealing_twice_gives_two_texts():
    assert encrypt_sensitive(PUBLIC, "张三") != encrypt_sensitive(PUBLIC, "张三")


@pytest.mark.parametrize("text", ["a" * 215, "茶" * 72], ids=["215 letters", "216 bytes of CJK"])
def test_a_sensitive_field_over_214_bytes_is_a_parameter_error_that_does_not_show_it(text):
    with pytest.raises(ParameterError, match="at most 214 bytes") as caught:
        encrypt_sensitive(PUBLIC, text)
    assert text[:20] not in str(caught.value)


def test_a_sensitive_field_that_is_no_unicode_is_a_parameter_error():
    with pytest.raises(ParameterError):
        encrypt_sensitive(PUBLIC, "\ud800")


@pytest.mark.parametrize(
    "ciphertext",
    [
        "",
        "%%%",
        "茶",
        base64.b64encode(bytes(256)).decode(),
        base64.b64encode(bytes(10)).decode(),
        encrypt_sensitive(KEYS.public_key.private_key.public_key(), "for another key"),
        base64.b64encode(
            PUBLIC.encrypt(
                b"over SHA-256", OAEP(mgf=MGF1(SHA256()), algorithm=SHA256(), label=None)
            )
        ).decode(),
        base64.b64encode(
            PUBLIC.encrypt(b"\xff", OAEP(mgf=MGF1(SHA1()), algorithm=SHA1(), label=None))
        ).decode(),
    ],
    ids=[
        "nothing",
        "no base64",
        "beyond ASCII",
        "zeros",
        "short",
        "another key's",
        "another padding",
        "no UTF-8",
    ],
)
def test_a_sensitive_field_that_does_not_open_is_a_decrypt_error(ciphertext):
    with pytest.raises(DecryptError):
        decrypt_sensitive(PRIVATE, ciphertext)
