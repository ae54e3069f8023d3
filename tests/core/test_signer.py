"""What is signed, to the byte, and what is sent of it."""

from __future__ import annotations

import base64
import re

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from deliveries import KEYS, merchant
from wechatpay_kit import RsaSigner
from wechatpay_kit.signer import (
    SCHEME,
    authorization,
    payment_message,
    request_message,
    request_payment,
)
from wechatpay_kit_sandbox.keys import private_pem

NONCE = "593BEC0C930BF1AFEB40B4A08C8FB242"
SIGNER = RsaSigner(KEYS.merchant.private_key, KEYS.merchant.serial_no)


class RecordingSigner:
    """A signer as a KMS would be one: no key here, and it remembers what it was asked."""

    serial_no = "5157F09EFDC096DE15EBE81A47057A7232F1B8E1"

    def __init__(self) -> None:
        self.messages = []

    def sign(self, message: bytes) -> str:
        self.messages.append(message)
        return "c2lnbmVk"


def assert_signed(signature: str, message: bytes) -> None:
    raw = base64.b64decode(signature, validate=True)
    KEYS.merchant.private_key.public_key().verify(raw, message, PKCS1v15(), SHA256())


@pytest.mark.parametrize(
    ("method", "target", "body", "message"),
    [
        (
            "GET",
            "/v3/certificates",
            b"",
            b"GET\n/v3/certificates\n1554208460\n593BEC0C930BF1AFEB40B4A08C8FB242\n\n",
        ),
        (
            "get",
            "/v3/bill/tradebill?bill_date=2026-11-23&bill_type=ALL",
            b"",
            b"GET\n/v3/bill/tradebill?bill_date=2026-11-23&bill_type=ALL\n1554208460\n"
            b"593BEC0C930BF1AFEB40B4A08C8FB242\n\n",
        ),
        (
            "POST",
            "/v3/pay/transactions/out-trade-no/A%7CB/close",
            b'{"mchid":"1900000001"}',
            b"POST\n/v3/pay/transactions/out-trade-no/A%7CB/close\n1554208460\n"
            b'593BEC0C930BF1AFEB40B4A08C8FB242\n{"mchid":"1900000001"}\n',
        ),
        (
            "POST",
            "/v3/x",
            b'{"description" : "\xe8\x8c\xb6"}\r\n',
            b"POST\n/v3/x\n1554208460\n593BEC0C930BF1AFEB40B4A08C8FB242\n"
            b'{"description" : "\xe8\x8c\xb6"}\r\n\n',
        ),
        (
            "PATCH",
            "/",
            b"\xff\x00\n",
            b"PATCH\n/\n1554208460\n593BEC0C930BF1AFEB40B4A08C8FB242\n\xff\x00\n\n",
        ),
    ],
    ids=["without body", "with a query", "with an encoded path", "with CJK and CRLF", "with bytes"],
)
def test_a_request_is_signed_as_five_lines_each_ended_by_lf(method, target, body, message):
    assert request_message(method, target, "1554208460", NONCE, body) == message


def test_the_authorization_header_has_one_space_and_five_quoted_values():
    header = authorization(
        SIGNER,
        mchid="1900000001",
        method="GET",
        target="/v3/certificates",
        body=b"",
        timestamp="1554208460",
        nonce=NONCE,
    )
    scheme, _, rest = header.partition(" ")
    assert scheme == SCHEME == "WECHATPAY2-SHA256-RSA2048"
    assert " " not in rest
    assert re.fullmatch(r'([a-z_]+="[^"]*",){4}[a-z_]+="[^"]*"', rest)
    values = dict(re.findall(r'([a-z_]+)="([^"]*)"', rest))
    signature = values.pop("signature")
    assert values == {
        "mchid": "1900000001",
        "nonce_str": NONCE,
        "timestamp": "1554208460",
        "serial_no": KEYS.merchant.serial_no,
    }
    assert_signed(
        signature, b"GET\n/v3/certificates\n1554208460\n593BEC0C930BF1AFEB40B4A08C8FB242\n\n"
    )


def test_a_mini_programs_payment_is_signed_as_four_lines_each_ended_by_lf():
    message = payment_message(
        "wx2421b1c4370ec43b", "1554208460", NONCE, "prepay_id=wx201410272009395522657a690389285100"
    )
    assert message == (
        b"wx2421b1c4370ec43b\n1554208460\n593BEC0C930BF1AFEB40B4A08C8FB242\n"
        b"prepay_id=wx201410272009395522657a690389285100\n"
    )


def test_the_parameters_of_request_payment_are_those_that_wx_takes():
    params = request_payment(
        SIGNER, appid="wx2421b1c4370ec43b", prepay_id="wx2014", timestamp="1554208460", nonce=NONCE
    )
    pay_sign = params.pop("paySign")
    assert params == {
        "timeStamp": "1554208460",
        "nonceStr": NONCE,
        "package": "prepay_id=wx2014",
        "signType": "RSA",
    }
    assert_signed(
        pay_sign,
        b"wx2421b1c4370ec43b\n1554208460\n593BEC0C930BF1AFEB40B4A08C8FB242\nprepay_id=wx2014\n",
    )


def test_a_signature_is_one_line_of_base64_and_of_that_message_alone():
    signature = SIGNER.sign(b"message")
    assert re.fullmatch(r"[0-9A-Za-z+/]+={0,2}", signature)
    assert_signed(signature, b"message")
    with pytest.raises(InvalidSignature):
        assert_signed(signature, b"message\n")


def test_a_kms_can_sign_in_the_place_of_a_private_key():
    kms = RecordingSigner()
    shop = merchant(private_key=None, serial_no=None, signer=kms)
    assert shop.signer is kms
    header = authorization(
        shop.signer, mchid="1", method="POST", target="/v3/x", body=b"{}", timestamp="1", nonce="n"
    )
    assert kms.messages == [b"POST\n/v3/x\n1\nn\n{}\n"]
    assert 'signature="c2lnbmVk"' in header
    assert f'serial_no="{kms.serial_no}"' in header


def test_a_signers_repr_shows_its_serial_and_nothing_of_its_key():
    assert repr(SIGNER) == f"RsaSigner(serial_no={KEYS.merchant.serial_no!r})"
    for line in private_pem(KEYS.merchant.private_key).decode().splitlines():
        assert line not in repr(SIGNER)
