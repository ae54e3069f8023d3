"""What each call of the gateway does: checked values in, a reply or a Refusal out.

Knows the calls; knows nothing of sockets, signatures or frameworks. Whoever calls has
authenticated the merchant and holds the gateway's lock.
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from cryptography import x509

from . import fields
from .clock import rfc3339
from .documents import refund_document, transaction
from .errors import MERCHANT_DIFFERS, MERCHANT_DIFFERS_IN_QUERY, Refusal
from .multipart import parts
from .sealing import encrypt
from .validation import check, read_json, refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .gateway import Gateway
    from .keys import MerchantAccount

__all__ = [
    "Call",
    "Reply",
    "apply_for_trade_bill",
    "certificates",
    "close_order",
    "create_refund",
    "download_bill",
    "place_order",
    "query_order",
    "query_order_by_transaction",
    "query_refund",
    "signed_meta",
    "upload_image",
    "upload_video",
]

_RFC3339 = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?(Z|[+-]\d{2}:\d{2})")
_LATEST_EXPIRY = timedelta(days=7)
_IMAGES = ("jpg", "jpeg", "bmp", "png")
_VIDEOS = ("avi", "wmv", "mpeg", "mp4", "mov", "mkv", "flv", "f4v", "m4v", "rmvb")
_MIB = 1024 * 1024


class Call(NamedTuple):
    """One authenticated request."""

    merchant: MerchantAccount
    path: Mapping[str, str]
    query: Mapping[str, str]
    content_type: str
    body: bytes
    origin: str  # scheme and host as the client addressed them


class Reply(NamedTuple):
    """One answer that grants; ``document`` is JSON, ``file`` a raw body that is not signed."""

    status: int = 200
    document: dict[str, Any] | None = None
    file: bytes | None = None


def place_order(gateway: Gateway, call: Call) -> Reply:
    parameters = read_json(call.body)
    check(fields.ORDER, parameters, "/body")
    now = gateway.clock.now()
    expiry = _expiry(parameters.get("time_expire"), now)
    order = gateway.ledger.place(call.merchant, parameters, expiry, now)
    return Reply(document={"prepay_id": order.prepay_id})


def query_order(gateway: Gateway, call: Call) -> Reply:
    check(fields.OUT_TRADE_NO, call.path, "/uri_template")
    mchid = _own_mchid(call)
    order = gateway.ledger.order(mchid, call.path["out_trade_no"], gateway.clock.now())
    return Reply(document=transaction(order))


def query_order_by_transaction(gateway: Gateway, call: Call) -> Reply:
    check(fields.TRANSACTION_ID, call.path, "/uri_template")
    mchid, number = _own_mchid(call), call.path["transaction_id"]
    order = gateway.ledger.order_by_transaction(mchid, number, gateway.clock.now())
    return Reply(document=transaction(order))


def close_order(gateway: Gateway, call: Call) -> Reply:
    check(fields.OUT_TRADE_NO, call.path, "/uri_template")
    parameters = read_json(call.body)
    check(fields.CLOSE, parameters, "/body")
    if parameters["mchid"] != call.merchant.mchid:
        raise Refusal(MERCHANT_DIFFERS)
    gateway.ledger.close(call.merchant.mchid, call.path["out_trade_no"], gateway.clock.now())
    return Reply(status=204)


def create_refund(gateway: Gateway, call: Call) -> Reply:
    parameters = read_json(call.body)
    check(fields.REFUND, parameters, "/body")
    if not parameters.keys() & {"transaction_id", "out_trade_no"}:
        raise refusal(
            "/body/out_trade_no", "", "transaction_id和out_trade_no二选一必填，不能同时为空"
        )
    _check_refund_amount(parameters["amount"])
    return Reply(document=refund_document(gateway.accept_refund(call.merchant, parameters)))


def query_refund(gateway: Gateway, call: Call) -> Reply:
    check(fields.OUT_REFUND_NO, call.path, "/uri_template")
    refund = gateway.ledger.refund(call.merchant.mchid, call.path["out_refund_no"])
    return Reply(document=refund_document(refund))


def apply_for_trade_bill(gateway: Gateway, call: Call) -> Reply:
    check(fields.TRADE_BILL_QUERY, call.query, "/query")
    ticket = gateway.bill_desk.apply(call.merchant.mchid, call.query, gateway.clock.now())
    url = f"{call.origin}/v3/billdownload/file?token={ticket.token}"
    return Reply(
        document={
            "hash_type": "SHA1",
            "hash_value": ticket.sha1,
            "download_url": url + ("&tartype=gzip" if ticket.is_gzipped else ""),
        }
    )


def download_bill(gateway: Gateway, call: Call) -> Reply:
    check(fields.DOWNLOAD_QUERY, call.query, "/query")
    return Reply(file=gateway.bill_desk.fetch(call.merchant.mchid, call.query["token"]))


def certificates(gateway: Gateway, call: Call) -> Reply:
    check(fields.CERTIFICATES_QUERY, call.query, "/query")
    key = gateway.keys.certificate
    certificate = x509.load_pem_x509_certificate(key.pem)
    encrypted = encrypt(
        call.merchant.apiv3_key,
        key.pem,
        associated_data="certificate",
        nonce=gateway.numbers.nonce(12),
    )
    entry = {
        "serial_no": key.serial,
        "effective_time": rfc3339(certificate.not_valid_before_utc),
        "expire_time": rfc3339(certificate.not_valid_after_utc),
        "encrypt_certificate": encrypted,
    }
    return Reply(document={"data": [entry]})


def upload_image(gateway: Gateway, call: Call) -> Reply:
    return _upload(gateway, call, _IMAGES, 2 * _MIB)


def upload_video(gateway: Gateway, call: Call) -> Reply:
    return _upload(gateway, call, _VIDEOS, 5 * _MIB)


def signed_meta(content_type: str, body: bytes) -> bytes:
    """What is signed of an upload: the ``meta`` part alone."""
    return parts(content_type, body).get("meta", b"")


def _upload(gateway: Gateway, call: Call, kinds: tuple[str, ...], limit: int) -> Reply:
    found = parts(call.content_type, call.body)
    meta = read_json(found.get("meta", b""))
    check(fields.MEDIA_META, meta, "/body/meta")
    if "file" not in found:
        raise refusal(
            "/body/file", "", "输入源“/body/file”映射到字段“文件”必填性规则校验失败，此字段为必填项"
        )
    file, name = found["file"], meta["filename"]
    if not name.lower().endswith(tuple(f".{kind}" for kind in kinds)):
        raise refusal("/body/meta/filename", name, f"文件格式不正确，仅支持 {'、'.join(kinds)}")
    if len(file) > limit:
        raise refusal("/body/file", len(file), f"文件大小超过 {limit // _MIB}M")
    if hashlib.sha256(file).hexdigest() != meta["sha256"].lower():
        raise refusal("/body/meta/sha256", meta["sha256"], "文件的sha256与meta中的sha256不一致")
    return Reply(document={"media_id": gateway.numbers.token()})


def _own_mchid(call: Call) -> str:
    check(fields.ORDER_QUERY, call.query, "/query")
    if call.query["mchid"] != call.merchant.mchid:
        raise Refusal(MERCHANT_DIFFERS_IN_QUERY)
    return call.merchant.mchid


def _expiry(text: str | None, now: datetime) -> datetime | None:
    if text is None:
        return None
    source = "/body/time_expire"
    try:
        moment = datetime.fromisoformat(text) if _RFC3339.fullmatch(text) else None
    except ValueError:
        moment = None
    if moment is None:
        raise refusal(
            source,
            text,
            f"输入源“{source}”映射到值字段“支付结束时间”字符串规则校验失败，必须符合RFC3339格式",
        )
    if moment > now + _LATEST_EXPIRY:
        raise refusal(source, text, "支付结束时间不能晚于下单时间后7天")
    return moment.astimezone(now.tzinfo)


def _check_refund_amount(amount: dict[str, Any]) -> None:
    if amount["refund"] > amount["total"]:
        raise refusal("/body/amount/refund", amount["refund"], "退款金额不能大于原订单金额")
    sources = amount.get("from")
    if sources is not None and sum(part["amount"] for part in sources) != amount["refund"]:
        raise refusal(
            "/body/amount/from",
            msgspec.json.encode(sources).decode(),
            "退款出资金额之和必须等于退款金额",
        )
