"""Is this request what its merchant signed? To the byte, and now.

Knows the Authorization header, clocks and keys; knows nothing of orders, nor of HTTP beyond the
header pairs and the raw target. Order of checks, as probes of the real gateway show it: User-Agent
and Accept, form, scheme, clock, merchant, serial, signature.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from wechatpay_kit.signer import SCHEME, request_message

from .errors import (
    BAD_SIGNATURE,
    CLOCK,
    MALFORMED_AUTHORIZATION,
    MALFORMED_AUTHORIZATION_OF_TRANSACTIONS,
    MISSING_AGENT,
    UNKNOWN_MERCHANT,
    UNKNOWN_MERCHANT_OF_REFUND,
    UNKNOWN_SERIAL,
    Case,
    Refusal,
)
from .errors import SCHEME as WRONG_SCHEME

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .keys import MerchantAccount

__all__ = ["BILLS", "CERTIFICATES", "REFUNDS", "TRANSACTIONS", "Family", "SignedRequest", "check"]

MAX_SKEW = 300  # seconds, both sides
_SHOWN_OF_BODY = 8  # characters, as the real gateway truncates the message it shows

_PARAMETER = re.compile(r'([a-z_]+)="([^"]*)"')
_VALUES = {
    "mchid": re.compile(r"[0-9A-Za-z_-]{1,32}"),
    "nonce_str": re.compile(r"[!-~]{1,32}"),
    "signature": re.compile(r"[!-~]+"),
    "timestamp": re.compile(r"[0-9]{1,12}"),
    "serial_no": re.compile(r"[0-9A-Za-z]{1,64}"),
}


class Family(NamedTuple):
    """A part of the gateway whose front refuses in a manner of its own."""

    malformed: Case
    unknown_merchant: Case = UNKNOWN_MERCHANT
    needs_agent: bool = False
    names_request_on_401: bool = True


TRANSACTIONS = Family(MALFORMED_AUTHORIZATION_OF_TRANSACTIONS, names_request_on_401=False)
REFUNDS = Family(MALFORMED_AUTHORIZATION, UNKNOWN_MERCHANT_OF_REFUND, needs_agent=True)
CERTIFICATES = Family(MALFORMED_AUTHORIZATION, needs_agent=True)
BILLS = Family(MALFORMED_AUTHORIZATION)  # media uploads too


class SignedRequest(NamedTuple):
    """What the check rests on: the target and body as received, never re-encoded."""

    method: str
    target: str
    headers: Sequence[tuple[str, str]]  # names in lower case
    signed_body: bytes


def check(
    request: SignedRequest,
    family: Family,
    merchants: Mapping[str, MerchantAccount],
    wall: float,
) -> MerchantAccount:
    """The merchant that signed the request; raises :class:`Refusal` otherwise."""
    names = {name for name, _ in request.headers}
    if family.needs_agent and not {"user-agent", "accept"} <= names:
        raise Refusal(MISSING_AGENT)
    signed = _read(request.headers, family)
    if abs(int(wall) - int(signed["timestamp"])) > MAX_SKEW:
        raise Refusal(CLOCK, _detail("timestamp", "timestamp is out of the 5 minutes' window"))
    merchant = merchants.get(signed["mchid"])
    if merchant is None:
        raise Refusal(family.unknown_merchant, _detail("mchid", "mchid is not of this gateway"))
    if signed["serial_no"].upper() != merchant.serial_no:
        raise Refusal(UNKNOWN_SERIAL, _detail("serial_no", "serial_no is not of this merchant"))
    _check_signature(request, signed, merchant)
    return merchant


def _read(headers: Sequence[tuple[str, str]], family: Family) -> dict[str, str]:
    values = [value for name, value in headers if name == "authorization"]
    scheme, space, parameters = values[0].partition(" ") if len(values) == 1 else ("", "", "")
    if not space:
        raise Refusal(family.malformed)
    if scheme != SCHEME:
        raise Refusal(WRONG_SCHEME)
    pairs = [_PARAMETER.fullmatch(part) for part in parameters.split(",")]
    found = {pair[1]: pair[2] for pair in pairs if pair is not None}
    if len(pairs) != len(_VALUES) or found.keys() != _VALUES.keys():
        raise Refusal(family.malformed)
    if not all(rule.fullmatch(found[name]) for name, rule in _VALUES.items()):
        raise Refusal(family.malformed)
    return found


def _check_signature(
    request: SignedRequest, signed: dict[str, str], merchant: MerchantAccount
) -> None:
    message = request_message(
        request.method,
        request.target,
        signed["timestamp"],
        signed["nonce_str"],
        request.signed_body,
    )
    try:
        signature = base64.b64decode(signed["signature"], validate=True)
        merchant.private_key.public_key().verify(signature, message, PKCS1v15(), SHA256())
    except (binascii.Error, ValueError, InvalidSignature):
        raise Refusal(BAD_SIGNATURE, _explanation(request, message)) from None


def _explanation(request: SignedRequest, message: bytes) -> dict[str, Any]:
    """The real gateway's detail, and the whole message that it does not show."""
    head = message[: len(message) - len(request.signed_body) - 1].decode()
    body = request.signed_body.decode(errors="replace")
    return _detail("signature", "sign not match") | {
        "sign_information": {
            "method": request.method,
            "url": request.target,
            "sign_message_length": len(message),
            "truncated_sign_message": f"{head}{body[:_SHOWN_OF_BODY]}\n",
            "expected_sign_message": f"{head}{body}\n",
        }
    }


def _detail(field: str, issue: str) -> dict[str, Any]:
    return {"field": field, "location": "authorization", "detail": {"issue": issue}}
