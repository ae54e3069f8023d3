"""The shapes that APIv3 sends and receives, and their decoding.

Knows field names and JSON types; knows nothing of keys, HTTP or what a message is for.
What the gateway sends may grow: unknown fields are ignored, a wrong type names its JSON path.
Amounts are integers in fen (分); times are aware datetimes (RFC 3339 on the wire).
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar, cast

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from .errors import MessageError

__all__ = [
    "MAX_FEN",
    "BillReply",
    "CertificatesReply",
    "CloseRequest",
    "EncryptedCertificate",
    "Envelope",
    "GoodsDetail",
    "Identity",
    "MediaMeta",
    "MediaReply",
    "OrderAmount",
    "OrderDetail",
    "OrderPayer",
    "OrderReply",
    "OrderRequest",
    "Payer",
    "PromotionDetail",
    "PromotionGoods",
    "Refund",
    "RefundAmount",
    "RefundFrom",
    "RefundGoods",
    "RefundNotice",
    "RefundPromotion",
    "RefundRequest",
    "RefundRequestAmount",
    "Resource",
    "SceneInfo",
    "SettleInfo",
    "Shape",
    "StoreInfo",
    "Transaction",
    "TransactionAmount",
    "TransactionScene",
    "decode",
    "encode",
]

T = TypeVar("T")
MAX_FEN = 2**53 - 1  # what every JSON library and database keeps exactly
Time = Annotated[datetime, Meta(tz=True)]


def decode(body: bytes, kind: type[T]) -> T:
    """``body`` as ``kind``, one of this module's; :class:`MessageError` names the wrong field."""
    try:
        return cast("T", _DECODERS[kind].decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        text = str(error)
        path = re.search(r"at `\$?\.?([^`]*)`$", text)
        raise MessageError(
            f"{kind.__name__} does not decode: {text[:200]}", field=path and path[1]
        ) from None


def encode(message: Struct) -> bytes:
    """The bytes to sign and to send: serialised once, absent fields left out, never ``null``."""
    return msgspec.json.encode(message)


class _Sent(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a shop sends: a misspelt field is an error before it leaves."""


# Placing an order: POST to /v3/pay/transactions/jsapi


class OrderAmount(_Sent, frozen=True, kw_only=True):
    """``total`` in fen, at least 1."""

    total: int
    currency: str = "CNY"


class Identity(_Sent, frozen=True, kw_only=True):
    """Real-name check of the payer; ``number`` and ``name`` are sent encrypted."""

    type: str
    number: str
    name: str


class OrderPayer(_Sent, frozen=True, kw_only=True):
    """``openid`` is the user's under the appid of the order."""

    openid: str
    identity: Identity | UnsetType = UNSET


class GoodsDetail(_Sent, frozen=True, kw_only=True):
    """One line of goods; ``unit_price`` in fen."""

    merchant_goods_id: str
    quantity: int
    unit_price: int
    wechatpay_goods_id: str | UnsetType = UNSET
    goods_name: str | UnsetType = UNSET


class OrderDetail(_Sent, frozen=True, kw_only=True):
    """Goods for coupons that apply to single goods; ``cost_price`` in fen."""

    cost_price: int | UnsetType = UNSET
    invoice_id: str | UnsetType = UNSET
    goods_detail: list[GoodsDetail] | UnsetType = UNSET


class StoreInfo(_Sent, frozen=True, kw_only=True):
    """The store where the order is placed."""

    id: str
    name: str | UnsetType = UNSET
    area_code: str | UnsetType = UNSET
    address: str | UnsetType = UNSET


class SceneInfo(_Sent, frozen=True, kw_only=True):
    """Where the payer is."""

    payer_client_ip: str
    device_id: str | UnsetType = UNSET
    store_info: StoreInfo | UnsetType = UNSET


class SettleInfo(_Sent, frozen=True, kw_only=True):
    """``profit_sharing`` freezes the money for a later split."""

    profit_sharing: bool


class OrderRequest(_Sent, frozen=True, kw_only=True):
    """The body of an order; ``time_expire`` is RFC 3339 text with an offset."""

    appid: str
    mchid: str
    description: str
    out_trade_no: str
    notify_url: str
    amount: OrderAmount
    payer: OrderPayer
    time_expire: str | UnsetType = UNSET
    attach: str | UnsetType = UNSET
    goods_tag: str | UnsetType = UNSET
    limit_pay: list[str] | UnsetType = UNSET
    support_fapiao: bool | UnsetType = UNSET
    detail: OrderDetail | UnsetType = UNSET
    scene_info: SceneInfo | UnsetType = UNSET
    settle_info: SettleInfo | UnsetType = UNSET


class OrderReply(Struct, frozen=True, kw_only=True):
    """``prepay_id`` is good for two hours."""

    prepay_id: str


class CloseRequest(_Sent, frozen=True, kw_only=True):
    """The body of a close."""

    mchid: str


# The transaction: answer of a query, content of a payment notification


class TransactionAmount(Struct, frozen=True, kw_only=True):
    """Fen. ``total`` is the order's; ``payer_total`` what the payer paid after coupons."""

    total: int
    payer_total: int | None = None
    currency: str | None = None
    payer_currency: str | None = None


class Payer(Struct, frozen=True, kw_only=True):
    """Who paid, under the appid of the order."""

    openid: str | None = None


class TransactionScene(Struct, frozen=True, kw_only=True):
    """Where it was paid."""

    device_id: str | None = None


class PromotionGoods(Struct, frozen=True, kw_only=True):
    """Goods that a coupon applied to; amounts in fen."""

    goods_id: str
    quantity: int
    unit_price: int
    discount_amount: int
    goods_remark: str | None = None


class PromotionDetail(Struct, frozen=True, kw_only=True):
    """A coupon used; amounts in fen."""

    coupon_id: str
    amount: int
    name: str | None = None
    scope: str | None = None
    type: str | None = None
    stock_id: str | None = None
    wechatpay_contribute: int | None = None
    merchant_contribute: int | None = None
    other_contribute: int | None = None
    currency: str | None = None
    goods_detail: list[PromotionGoods] | None = None


class Transaction(Struct, frozen=True, kw_only=True):
    """An order as WeChat Pay sees it.

    ``trade_state`` is SUCCESS, REFUND (paid, then at least partly refunded), NOTPAY or CLOSED,
    and code-scan payments know more; the fields with a default are there once it is paid.
    """

    appid: str
    mchid: str
    out_trade_no: str
    trade_state: str
    trade_state_desc: str | None = None
    transaction_id: str | None = None
    trade_type: str | None = None
    bank_type: str | None = None
    success_time: Time | None = None
    attach: str | None = None
    payer: Payer | None = None
    amount: TransactionAmount | None = None
    scene_info: TransactionScene | None = None
    promotion_detail: list[PromotionDetail] | None = None


# Refunds: POST and GET of /v3/refund/domestic/refunds


class RefundFrom(_Sent, frozen=True, kw_only=True):
    """An account the refund is taken from; ``amount`` in fen."""

    account: Literal["AVAILABLE", "UNAVAILABLE"]
    amount: int


class RefundRequestAmount(_Sent, frozen=True, kw_only=True):
    """Fen. ``total`` is the order's, ``refund`` at most what is left of it."""

    refund: int
    total: int
    currency: str = "CNY"
    from_: list[RefundFrom] | UnsetType = msgspec.field(default=UNSET, name="from")


class RefundGoods(_Sent, frozen=True, kw_only=True):
    """Goods sent back; amounts in fen."""

    merchant_goods_id: str
    unit_price: int
    refund_amount: int
    refund_quantity: int
    wechatpay_goods_id: str | UnsetType = UNSET
    goods_name: str | UnsetType = UNSET


class RefundRequest(_Sent, frozen=True, kw_only=True):
    """The body of a refund; one of ``transaction_id`` and ``out_trade_no``."""

    out_refund_no: str
    amount: RefundRequestAmount
    transaction_id: str | UnsetType = UNSET
    out_trade_no: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    notify_url: str | UnsetType = UNSET
    funds_account: str | UnsetType = UNSET
    goods_detail: list[RefundGoods] | UnsetType = UNSET


class RefundAmount(Struct, frozen=True, kw_only=True):
    """Fen."""

    total: int
    refund: int
    payer_total: int | None = None
    payer_refund: int | None = None
    settlement_refund: int | None = None
    settlement_total: int | None = None
    discount_refund: int | None = None
    currency: str | None = None
    refund_fee: int | None = None


class RefundPromotion(Struct, frozen=True, kw_only=True):
    """What of a coupon was given back; amounts in fen."""

    promotion_id: str
    amount: int
    refund_amount: int
    scope: str | None = None
    type: str | None = None


class Refund(Struct, frozen=True, kw_only=True):
    """A refund as WeChat Pay sees it; PROCESSING means accepted, not done."""

    refund_id: str
    out_refund_no: str
    transaction_id: str
    out_trade_no: str
    status: str
    amount: RefundAmount
    channel: str | None = None
    user_received_account: str | None = None
    success_time: Time | None = None
    create_time: Time | None = None
    funds_account: str | None = None
    promotion_detail: list[RefundPromotion] | None = None


class RefundNotice(Struct, frozen=True, kw_only=True):
    """The content of a refund notification; its status field has a name of its own."""

    mchid: str
    refund_id: str
    out_refund_no: str
    transaction_id: str
    out_trade_no: str
    refund_status: str
    amount: RefundAmount
    user_received_account: str | None = None
    success_time: Time | None = None

    def refund(self) -> Refund:
        """The same fact in the shape that a query answers."""
        return Refund(
            refund_id=self.refund_id,
            out_refund_no=self.out_refund_no,
            transaction_id=self.transaction_id,
            out_trade_no=self.out_trade_no,
            status=self.refund_status,
            amount=self.amount,
            user_received_account=self.user_received_account,
            success_time=self.success_time,
        )


# The envelope of every notification, and encrypted certificates


class Resource(Struct, frozen=True, kw_only=True):
    """What is encrypted, and how; ``original_type`` says what is inside."""

    algorithm: str
    ciphertext: str
    nonce: str
    associated_data: str | None = None
    original_type: str | None = None

    def __repr__(self) -> str:
        return f"Resource({self.algorithm}, {len(self.ciphertext)} characters)"


class Envelope(Struct, frozen=True, kw_only=True):
    """The body of a notification; ``id`` is the notification's, not the order's."""

    id: str
    event_type: str
    resource: Resource
    resource_type: str | None = None
    create_time: str | None = None
    summary: str | None = None


class EncryptedCertificate(Struct, frozen=True, kw_only=True):
    """A platform certificate in ``/v3/certificates``."""

    serial_no: str
    encrypt_certificate: Resource


class CertificatesReply(Struct, frozen=True, kw_only=True):
    """The answer of ``/v3/certificates``."""

    data: list[EncryptedCertificate]


class Shape(Struct, frozen=True, kw_only=True):
    """Enough of a plaintext to tell combined and partner shapes from the modelled ones."""

    combine_out_trade_no: Any = None
    sp_mchid: Any = None


# The rest of the flow


class BillReply(Struct, frozen=True, kw_only=True):
    """Where a bill is; ``hash_value`` is of the uncompressed file, the URL lives seconds."""

    hash_type: str
    hash_value: str
    download_url: str


class MediaMeta(_Sent, frozen=True, kw_only=True):
    """The part of an upload that is signed; ``sha256`` in hex."""

    filename: str
    sha256: str


class MediaReply(Struct, frozen=True, kw_only=True):
    """The name of the uploaded file in other calls."""

    media_id: str


# msgspec completes a Struct's types when they are first decoded, and a second thread that meets
# them half made takes the process down: so they are completed here, by the import.
_DECODERS: dict[Any, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind)
    for kind in (
        BillReply,
        CertificatesReply,
        Envelope,
        MediaReply,
        OrderReply,
        OrderRequest,
        Refund,
        RefundNotice,
        RefundRequest,
        Shape,
        Transaction,
    )
}
