"""The fields of every call that the gateway serves, as the API pages list them.

Tables only. Labels are the names that the gateway's error texts use.
"""

from __future__ import annotations

from .validation import Array, Field, Flag, Number, Object, Text

__all__ = [
    "CERTIFICATES_QUERY",
    "CLOSE",
    "DOWNLOAD_QUERY",
    "MEDIA_META",
    "ORDER",
    "ORDER_QUERY",
    "OUT_REFUND_NO",
    "OUT_TRADE_NO",
    "REFUND",
    "TRADE_BILL_QUERY",
    "TRANSACTION_ID",
]

_NOTIFY_URL = r"^https?://([^\s/?#\[\]\@]+\@)?([^\s/?#\@:]+)(?::\d{2,5})?([^\s?#\[\]]*)$"
_OUT_TRADE_NO = Text(32, 6, pattern=r"^[0-9a-zA-Z_\-\|\*]+$")
_OUT_REFUND_NO = Text(64, pattern=r"^[0-9a-zA-Z_\-\|\*@]+$")
_CNY = Text(16, choices=("CNY",))
_FEN = Number(1)
_FEN_OR_FREE = Number(0)

OUT_TRADE_NO = (Field("out_trade_no", "商户订单号", _OUT_TRADE_NO, is_required=True),)
OUT_REFUND_NO = (Field("out_refund_no", "商户退款单号", _OUT_REFUND_NO, is_required=True),)
TRANSACTION_ID = (Field("transaction_id", "微信支付订单号", Text(32), is_required=True),)
_MCHID = Field("mchid", "商户号", Text(32), is_required=True)

_IDENTITY = (
    Field("type", "证件类型", Text(32), is_required=True),
    Field("number", "证件号", Text(1024), is_required=True),
    Field("name", "姓名", Text(1024), is_required=True),
)
_GOODS = (
    Field("merchant_goods_id", "商户侧商品编码", Text(32), is_required=True),
    Field("wechatpay_goods_id", "微信支付商品编码", Text(32)),
    Field("goods_name", "商品名称", Text(256)),
    Field("quantity", "商品数量", Number(1), is_required=True),
    Field("unit_price", "商品单价", _FEN_OR_FREE, is_required=True),
)
_STORE = (
    Field("id", "门店编号", Text(32), is_required=True),
    Field("name", "门店名称", Text(256)),
    Field("area_code", "地区编码", Text(32)),
    Field("address", "详细地址", Text(512)),
)

ORDER = (
    Field("appid", "公众账号ID", Text(32), is_required=True),
    _MCHID,
    Field("description", "商品描述", Text(127, unit="字节数"), is_required=True),
    *OUT_TRADE_NO,
    Field("time_expire", "支付结束时间", Text(64)),
    Field("attach", "附加数据", Text(128, 0, unit="字节数")),
    Field("notify_url", "通知地址", Text(255, pattern=_NOTIFY_URL), is_required=True),
    Field("goods_tag", "订单优惠标记", Text(32)),
    Field(
        "limit_pay",
        "指定支付方式",
        Array(Text(32, choices=("no_balance", "no_credit", "no_debit", "balance_only"))),
    ),
    Field("support_fapiao", "电子发票入口开放标识", Flag()),
    Field(
        "amount",
        "订单金额",
        Object(
            (
                Field("total", "总金额", _FEN, is_required=True),
                Field("currency", "货币类型", _CNY),
            )
        ),
        is_required=True,
    ),
    Field(
        "payer",
        "支付者",
        Object(
            (
                Field("openid", "用户标识", Text(128), is_required=True),
                Field("identity", "实名信息", Object(_IDENTITY)),
            )
        ),
        is_required=True,
    ),
    Field(
        "detail",
        "优惠功能",
        Object(
            (
                Field("cost_price", "订单原价", _FEN_OR_FREE),
                Field("invoice_id", "商品小票ID", Text(32)),
                Field("goods_detail", "单品列表", Array(Object(_GOODS))),
            ),
            most_bytes=6144,
        ),
    ),
    Field(
        "scene_info",
        "场景信息",
        Object(
            (
                Field("payer_client_ip", "用户终端IP", Text(45), is_required=True),
                Field("device_id", "商户端设备号", Text(32)),
                Field("store_info", "商户门店信息", Object(_STORE)),
            )
        ),
    ),
    Field("settle_info", "结算信息", Object((Field("profit_sharing", "是否指定分账", Flag()),))),
)

ORDER_QUERY = CLOSE = (_MCHID,)

_REFUND_GOODS = (
    Field("merchant_goods_id", "商户侧商品编码", Text(32), is_required=True),
    Field("wechatpay_goods_id", "微信支付商品编码", Text(32)),
    Field("goods_name", "商品名称", Text(256)),
    Field("unit_price", "商品单价", _FEN_OR_FREE, is_required=True),
    Field("refund_amount", "商品退款金额", _FEN, is_required=True),
    Field("refund_quantity", "商品退货数量", Number(1), is_required=True),
)
_REFUND_FROM = (
    Field(
        "account", "出资账户类型", Text(32, choices=("AVAILABLE", "UNAVAILABLE")), is_required=True
    ),
    Field("amount", "出资金额", _FEN, is_required=True),
)

REFUND = (
    TRANSACTION_ID[0]._replace(is_required=False),
    OUT_TRADE_NO[0]._replace(is_required=False),
    *OUT_REFUND_NO,
    Field("reason", "退款原因", Text(80, unit="字节数")),
    Field("notify_url", "退款结果回调url", Text(256, pattern=_NOTIFY_URL)),
    Field("funds_account", "退款资金来源", Text(32, choices=("AVAILABLE", "UNSETTLED"))),
    Field(
        "amount",
        "金额信息",
        Object(
            (
                Field("refund", "退款金额", _FEN, is_required=True),
                Field("total", "原订单金额", _FEN, is_required=True),
                Field("currency", "退款币种", _CNY, is_required=True),
                Field("from", "退款出资账户及金额", Array(Object(_REFUND_FROM))),
            )
        ),
        is_required=True,
    ),
    Field("goods_detail", "退款商品", Array(Object(_REFUND_GOODS))),
)

TRADE_BILL_QUERY = (
    Field("bill_date", "账单日期", Text(10, pattern=r"^\d{4}-\d{2}-\d{2}$"), is_required=True),
    Field("bill_type", "账单类型", Text(32, choices=("ALL", "SUCCESS", "REFUND"))),
    Field("tar_type", "压缩类型", Text(32, choices=("GZIP",))),
)
DOWNLOAD_QUERY = (
    Field("token", "下载令牌", Text(256), is_required=True),
    Field("tartype", "压缩类型", Text(32)),
)
CERTIFICATES_QUERY = (Field("algorithm_type", "算法类型", Text(32, choices=("RSA", "SM2", "ALL"))),)
MEDIA_META = (
    Field("filename", "文件名称", Text(128), is_required=True),
    Field("sha256", "文件摘要", Text(64, 64, pattern=r"^[0-9a-fA-F]+$"), is_required=True),
)
