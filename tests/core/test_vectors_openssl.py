"""Formats and signatures against OpenSSL's command line, which shares no code with the kit.

Message bytes are written out by hand. AES-GCM, which the command line has not, is put together
here from its AES and a GHASH of a few lines, and checked against the values of its inventors.
"""

from __future__ import annotations

import base64
import shutil
import subprocess
from datetime import UTC, datetime

import pytest

from wechatpay_kit import KeyRing, RsaSigner, SignatureError, VerificationKey
from wechatpay_kit.decryptor import (
    ALGORITHM,
    Decryptor,
    decrypt_sensitive,
    encrypt_sensitive,
)
from wechatpay_kit.merchant import Merchant
from wechatpay_kit.signer import authorization, request_payment
from wechatpay_kit.verifier import verify

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl is not on PATH; these vectors are made by it"
)

NONCE = "593BEC0C930BF1AFEB40B4A08C8FB242"
NOW = datetime.fromtimestamp(1554208460, UTC)
APIV3_KEY = b"0123456789abcdef0123456789abcdef"
SERIAL = "00C0FFEE0000000000000000000000000000BEEF"


def openssl(*arguments: object, given: bytes = b"") -> bytes:
    command = ["openssl", *map(str, arguments)]
    return subprocess.run(command, input=given, capture_output=True, check=True).stdout


class KeyFiles:
    """A key pair made by OpenSSL, its certificate, and what OpenSSL does with them."""

    def __init__(self, folder) -> None:
        self.private, self.public = folder / "key.pem", folder / "pub.pem"
        self._folder = folder
        openssl(
            "genpkey",
            *("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", self.private),
        )
        openssl("pkey", "-in", self.private, "-pubout", "-out", self.public)

    @property
    def merchant(self) -> Merchant:
        return Merchant(
            mchid="1900000001",
            appid="wx2421b1c4370ec43b",
            serial_no=SERIAL,
            private_key=self.private.read_bytes(),
            apiv3_key=APIV3_KEY,
        )

    def certificate(self) -> bytes:
        return openssl(
            *("req", "-new", "-x509", "-key", self.private, "-subj", "/CN=test", "-days", "365"),
            *("-set_serial", f"0x{SERIAL}"),
        )

    def sign(self, message: bytes) -> str:
        return base64.b64encode(
            openssl("dgst", "-sha256", "-sign", self.private, given=message)
        ).decode()

    def accepts(self, signature: str, message: bytes) -> bool:
        file = self._folder / "signature"
        file.write_bytes(base64.b64decode(signature, validate=True))
        command = ["openssl", "dgst", "-sha256", "-verify", self.public, "-signature", file]
        done = subprocess.run(command, input=message, capture_output=True, check=False)
        return done.returncode == 0 and done.stdout == b"Verified OK\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return KeyFiles(tmp_path_factory.mktemp("openssl"))


# Requests: five lines

REQUESTS = {
    "GET without a body": (
        "GET",
        "/v3/certificates",
        b"",
        b"GET\n/v3/certificates\n1554208460\n593BEC0C930BF1AFEB40B4A08C8FB242\n\n",
    ),
    "GET with a query": (
        "GET",
        "/v3/pay/transactions/id/4200000000000000000000000001?mchid=1900000001",
        b"",
        b"GET\n/v3/pay/transactions/id/4200000000000000000000000001?mchid=1900000001\n"
        b"1554208460\n593BEC0C930BF1AFEB40B4A08C8FB242\n\n",
    ),
    "POST with JSON": (
        "POST",
        "/v3/pay/transactions/jsapi",
        b'{"amount":{"total":100},"description":"\xe8\x8c\xb6"}',
        b"POST\n/v3/pay/transactions/jsapi\n1554208460\n593BEC0C930BF1AFEB40B4A08C8FB242\n"
        b'{"amount":{"total":100},"description":"\xe8\x8c\xb6"}\n',
    ),
    "POST with an encoded path": (
        "POST",
        "/v3/pay/transactions/out-trade-no/A%7CB/close",
        b'{"mchid":"1900000001"}',
        b"POST\n/v3/pay/transactions/out-trade-no/A%7CB/close\n1554208460\n"
        b'593BEC0C930BF1AFEB40B4A08C8FB242\n{"mchid":"1900000001"}\n',
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_requests_signature_is_openssls_of_the_five_lines(name, files):
    method, target, body, message = REQUESTS[name]
    header = authorization(
        files.merchant.signer,
        mchid="1900000001",
        method=method,
        target=target,
        body=body,
        timestamp="1554208460",
        nonce=NONCE,
    )
    signature = header.partition('signature="')[2].partition('"')[0]
    assert signature == files.sign(message)  # PKCS#1 v1.5 is deterministic
    assert files.accepts(signature, message)
    assert not files.accepts(signature, message[:-1])


# wx.requestPayment: four lines


def test_the_signature_of_request_payment_is_openssls_of_the_four_lines(files):
    message = (
        b"wx2421b1c4370ec43b\n"
        b"1554208460\n"
        b"593BEC0C930BF1AFEB40B4A08C8FB242\n"
        b"prepay_id=wx201410272009395522657a690389285100\n"
    )
    params = request_payment(
        files.merchant.signer,
        appid="wx2421b1c4370ec43b",
        prepay_id="wx201410272009395522657a690389285100",
        timestamp="1554208460",
        nonce=NONCE,
    )
    assert params["paySign"] == files.sign(message)
    assert files.accepts(params["paySign"], message)


# Answers and notifications: three lines

MESSAGES = {
    "JSON": (
        b'{"id":"1","summary":"\xe6\x94\xaf\xe4\xbb\x98"}',
        b"1554208460\n593BEC0C930BF1AFEB40B4A08C8FB242\n"
        b'{"id":"1","summary":"\xe6\x94\xaf\xe4\xbb\x98"}\n',
    ),
    "nothing, as in a 204": (b"", b"1554208460\n593BEC0C930BF1AFEB40B4A08C8FB242\n\n"),
    "a body with line ends": (
        b"{\r\n}\n",
        b"1554208460\n593BEC0C930BF1AFEB40B4A08C8FB242\n{\r\n}\n\n",
    ),
    "bytes": (b"\xff\x00", b"1554208460\n593BEC0C930BF1AFEB40B4A08C8FB242\n\xff\x00\n"),
}


@pytest.mark.parametrize("mode", ["public key", "certificate"])
@pytest.mark.parametrize("name", MESSAGES)
def test_what_openssl_signed_as_three_lines_verifies(name, mode, files):
    body, message = MESSAGES[name]
    if mode == "certificate":
        (key,) = VerificationKey.from_certificates(files.certificate())
    else:
        key = VerificationKey.from_public_key("PUB_KEY_ID_1", files.public.read_bytes())
    ring = KeyRing([key._replace(not_before=None, expires_at=None)])  # made now, signed in 2019
    headers = [
        ("Wechatpay-Timestamp", "1554208460"),
        ("Wechatpay-Nonce", NONCE),
        ("Wechatpay-Signature", files.sign(message)),
        ("Wechatpay-Serial", key.serial),
    ]
    assert verify(headers, body, keys=ring, now=NOW) == key.serial
    with pytest.raises(SignatureError, match="does not fit"):
        verify(headers, body + b"\n", keys=ring, now=NOW)


def test_a_certificates_serial_is_openssls_in_40_digits(files):
    pem = files.certificate()
    (key,) = VerificationKey.from_certificates(pem)
    assert key.serial == SERIAL
    said = openssl("x509", "-noout", "-serial", given=pem).decode().strip()
    assert said.removeprefix("serial=").zfill(40) == key.serial


# Private keys in the forms that OpenSSL writes


@pytest.mark.parametrize("form", ["PKCS#8", "PKCS#1", "encrypted PKCS#8", "encrypted PKCS#1"])
def test_a_private_key_in_any_of_openssls_forms_signs(form, files):
    traditional = ["-traditional"] if "PKCS#1" in form else []
    cipher = ["-aes256", "-passout", "pass:secret"] if "encrypted" in form else []
    pem = openssl("pkey", "-in", files.private, *traditional, *cipher)
    assert (b"BEGIN RSA PRIVATE KEY" in pem) == ("PKCS#1" in form)
    shop = Merchant(
        mchid="1900000001",
        appid="wx1",
        serial_no=SERIAL,
        private_key=pem,
        private_key_password="secret" if cipher else None,
        apiv3_key=APIV3_KEY,
    )
    assert isinstance(shop.signer, RsaSigner)
    assert shop.signer.sign(b"message") == files.sign(b"message")


# Sensitive fields: RSA-OAEP with SHA-1

OAEP_SHA1 = (
    *("-pkeyopt", "rsa_padding_mode:oaep"),
    *("-pkeyopt", "rsa_oaep_md:sha1"),
    *("-pkeyopt", "rsa_mgf1_md:sha1"),
)


@pytest.mark.parametrize("text", ["张三", "110101199003071234", "a" * 214], ids=len)
def test_openssl_opens_what_the_kit_sealed(text, files):
    key = VerificationKey.from_public_key("PUB_KEY_ID_1", files.public.read_bytes())
    sealed = base64.b64decode(encrypt_sensitive(key.public_key, text), validate=True)
    plain = openssl("pkeyutl", "-decrypt", "-inkey", files.private, *OAEP_SHA1, given=sealed)
    assert plain.decode() == text


@pytest.mark.parametrize("text", ["张三", "", "a" * 214], ids=len)
def test_the_kit_opens_what_openssl_sealed(text, files):
    sealed = openssl(
        *("pkeyutl", "-encrypt", "-pubin", "-inkey", files.public, *OAEP_SHA1), given=text.encode()
    )
    opened = decrypt_sensitive(files.merchant.private_key, base64.b64encode(sealed).decode())
    assert opened == text


# AEAD_AES_256_GCM


@pytest.mark.parametrize(
    ("plain", "sealed"),
    [
        # McGrew and Viega, The Galois/Counter Mode of Operation, test cases 13 and 14
        (b"", "530f8afbc74536b9a963b4f1c4cb738b"),
        (bytes(16), "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"),
    ],
    ids=["case 13", "case 14"],
)
def test_the_inventors_values_open_and_are_what_is_put_together_here(plain, sealed):
    raw = bytes.fromhex(sealed)
    opened = Decryptor(bytes(32)).decrypt(
        algorithm=ALGORITHM,
        nonce="\0" * 12,
        associated_data=None,
        ciphertext=base64.b64encode(raw).decode(),
    )
    assert opened == plain
    assert gcm(bytes(32), bytes(12), plain, b"") == raw


@pytest.mark.parametrize("associated_data", ["transaction", "refund", "certificate", "", "附加"])
def test_the_kit_opens_what_was_sealed_by_hand(associated_data):
    plain = '{"mchid":"1900000001","trade_state_desc":"支付成功"}'.encode()
    sealed = gcm(APIV3_KEY, b"0123456789ab", plain, associated_data.encode())
    opened = Decryptor(b"f" * 32, APIV3_KEY).decrypt(
        algorithm=ALGORITHM,
        nonce="0123456789ab",
        associated_data=associated_data,
        ciphertext=base64.b64encode(sealed).decode(),
    )
    assert opened == plain


def gcm(key: bytes, nonce: bytes, plain: bytes, associated_data: bytes) -> bytes:
    """Cipher and tag: AES in counter mode by OpenSSL, and a GHASH over GF(2^128)."""
    hash_key = int.from_bytes(aes(key, bytes(16)))
    cipher = openssl(
        *("enc", "-aes-256-ctr", "-K", key.hex(), "-iv", nonce.hex() + "00000002"), given=plain
    )
    lengths = (len(associated_data) * 8).to_bytes(8) + (len(cipher) * 8).to_bytes(8)
    digest = 0
    for block in blocks(padded(associated_data) + padded(cipher) + lengths):
        digest = multiplied(digest ^ int.from_bytes(block), hash_key)
    mask = int.from_bytes(aes(key, nonce + b"\0\0\0\1"))
    return cipher + (digest ^ mask).to_bytes(16)


def aes(key: bytes, block: bytes) -> bytes:
    return openssl("enc", "-aes-256-ecb", "-nopad", "-K", key.hex(), given=block)


def multiplied(left: int, right: int) -> int:
    product = 0
    for bit in range(127, -1, -1):
        if left >> bit & 1:
            product ^= right
        right = (right >> 1) ^ (0xE1 << 120 if right & 1 else 0)
    return product


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 16)


def blocks(data: bytes) -> list[bytes]:
    return [data[start : start + 16] for start in range(0, len(data), 16)]
