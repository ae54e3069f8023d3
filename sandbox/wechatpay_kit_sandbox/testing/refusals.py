"""Who is refused, with what words: the rows of the table of checks, one delivery or more to each.

Knows deliveries and answers; knows nothing of how they are sent. Statuses and messages are written
out here and not taken from the code under test.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from .deliveries import changed, without
from .shop import MAX_BODY

if TYPE_CHECKING:
    from collections.abc import Callable

    from .deliveries import Deliveries, Headers
    from .shop import Shop

__all__ = ["REFUSALS", "SIGNATURE_HEADERS", "Refusal", "fail_body", "padded"]

SIGNATURE_HEADERS = (
    "Wechatpay-Timestamp",
    "Wechatpay-Nonce",
    "Wechatpay-Signature",
    "Wechatpay-Serial",
)
_MAX_SKEW = 300  # seconds


class Refusal(NamedTuple):
    """A delivery that is refused: how it is made, and what must come of it.

    ``reason`` is what ``on_rejected`` is told; status and message are what the sender gets.
    """

    name: str
    reason: str
    make: Callable[[Deliveries], tuple[Headers, bytes]]

    def answer(self, shop: Shop) -> tuple[int, str]:
        """Status and message; a shop that may ask for new keys says so of a key it lacks."""
        return _ANSWERS[self.reason_at(shop)]

    def reason_at(self, shop: Shop) -> str:
        is_asked_for = self.reason == "unknown_key" and not shop.receive_only
        return "key_refresh" if is_asked_for else self.reason


_ANSWERS = {
    "too_large": (413, "body too large"),
    "missing_header": (400, "a Wechatpay-* header is missing"),
    "malformed_header": (400, "a Wechatpay-* header is malformed"),
    "clock": (401, "timestamp outside the window"),
    "unknown_key": (401, "unknown Wechatpay-Serial"),
    "key_refresh": (503, "keys are being refreshed, come again"),
    "bad_signature": (401, "signature does not verify"),
    "undecodable": (400, "notification does not decode"),
    "undecryptable": (400, "resource does not decrypt"),
    "other_merchant": (422, "not this merchant's"),
    "not_success": (422, "payment is not SUCCESS"),
}


def fail_body(message: str) -> bytes:
    """The body of a refusal, to the byte."""
    return json.dumps({"code": "FAIL", "message": message}).encode()


def padded(weixin: Deliveries, size: int, out_trade_no: str = "T1001") -> tuple[Headers, bytes]:
    """A genuine delivery whose body has ``size`` bytes."""
    content = weixin.transaction(out_trade_no)
    spare = size - len(weixin.envelope(content, summary=""))
    body = weixin.envelope(content, summary="x" * spare)
    return weixin.signed(body), body


def _lacking(name: str) -> Callable[[Deliveries], tuple[Headers, bytes]]:
    def make(weixin: Deliveries) -> tuple[Headers, bytes]:
        headers, body = weixin.delivery()
        return without(headers, name), body

    return make


def _with_comma(name: str) -> Callable[[Deliveries], tuple[Headers, bytes]]:
    def make(weixin: Deliveries) -> tuple[Headers, bytes]:
        headers, body = weixin.delivery()
        value = dict(headers)[name]
        return changed(headers, name, f"{value},{value}"), body

    return make


def _off_by(seconds: int) -> Callable[[Deliveries], tuple[Headers, bytes]]:
    def make(weixin: Deliveries) -> tuple[Headers, bytes]:
        body = weixin.envelope(weixin.transaction())
        now = int(dict(weixin.signed(body))["Wechatpay-Timestamp"])
        return weixin.signed(body, timestamp=str(now + seconds)), body

    return make


def _unknown_key(weixin: Deliveries) -> tuple[Headers, bytes]:
    body = weixin.envelope(weixin.transaction())
    return weixin.signed(body, serial=f"{weixin.keys.public_key.serial[:-4]}0000"), body


def _forged(weixin: Deliveries) -> tuple[Headers, bytes]:
    body = weixin.envelope(weixin.transaction())
    key = weixin.keys.public_key
    impostor = key._replace(private_key=weixin.keys.merchant.private_key)
    return weixin.signed(body, key=impostor), body


def _tampered(weixin: Deliveries) -> tuple[Headers, bytes]:
    headers, body = weixin.delivery()
    middle = len(body) // 2
    return headers, body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]


def _one_byte_more(weixin: Deliveries) -> tuple[Headers, bytes]:
    headers, body = weixin.delivery()
    return headers, body + b"\n"


def _probe(weixin: Deliveries) -> tuple[Headers, bytes]:
    headers, body = weixin.delivery()
    signature = dict(headers)["Wechatpay-Signature"]
    return changed(headers, "Wechatpay-Signature", f"WECHATPAY/SIGNTEST/{signature}"), body


def _without_body(weixin: Deliveries) -> tuple[Headers, bytes]:
    return weixin.delivery()[0], b""


def _signed_as_is(body: bytes) -> Callable[[Deliveries], tuple[Headers, bytes]]:
    return lambda weixin: (weixin.signed(body), body)


def _for_another_key(weixin: Deliveries) -> tuple[Headers, bytes]:
    return weixin.delivery(apiv3_key=b"another key of exactly 32 bytes!")


def _for_another_merchant(weixin: Deliveries) -> tuple[Headers, bytes]:
    return weixin.delivery(weixin.transaction(mchid="1900000109"))


def _not_paid(weixin: Deliveries) -> tuple[Headers, bytes]:
    return weixin.delivery(weixin.transaction(trade_state="USERPAYING"))


REFUSALS = (
    Refusal("one byte over the limit", "too_large", lambda w: padded(w, MAX_BODY + 1)),
    *(Refusal(f"no {name}", "missing_header", _lacking(name)) for name in SIGNATURE_HEADERS),
    *(Refusal(f"a comma in {n}", "malformed_header", _with_comma(n)) for n in SIGNATURE_HEADERS),
    Refusal("no headers at all", "missing_header", lambda w: ([], w.delivery()[1])),
    Refusal("signed too long ago", "clock", _off_by(-_MAX_SKEW - 1)),
    Refusal("signed in the future", "clock", _off_by(_MAX_SKEW + 1)),
    Refusal("an unknown serial", "unknown_key", _unknown_key),
    Refusal("signed by an impostor", "bad_signature", _forged),
    Refusal("one bit changed", "bad_signature", _tampered),
    Refusal("one byte more", "bad_signature", _one_byte_more),
    Refusal("no body", "bad_signature", _without_body),
    Refusal("a probe of WeChat Pay's", "bad_signature", _probe),
    Refusal("a signed empty body", "undecodable", _signed_as_is(b"")),
    Refusal("a signed form", "undecodable", _signed_as_is(b"id=1&event_type=TRANSACTION.SUCCESS")),
    Refusal("signed bytes that are no UTF-8", "undecodable", _signed_as_is(bytes(range(256)))),
    Refusal("sealed for another key", "undecryptable", _for_another_key),
    Refusal("another merchant's", "other_merchant", _for_another_merchant),
    Refusal("not paid yet", "not_success", _not_paid),
)
