"""The trade bill of a Beijing day, as the file that WeChat Pay serves.

From orders and refunds to bytes; knows nothing of HTTP, tokens or clocks. Layout: UTF-8 with BOM,
CRLF, header row, data rows with a backtick before each value, summary header, summary row.
A row never changes later: it says what was known when the bill was made.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING

from .clock import BEIJING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .state import Order, Refund

__all__ = ["ready_at", "trade_bill"]

_MADE_AT = timedelta(days=1, hours=9)  # after the day began: nine in the morning of the next
_READY_AT = timedelta(days=1, hours=10)
_FEE_RATE = Decimal("0.006")

_COMMON = (
    "交易时间 公众账号ID 商户号 特约商户号 设备号 微信订单号 商户订单号 用户标识 "
    "交易类型 交易状态 付款银行 货币种类 应结订单金额 代金券金额"
)
_REFUND_PART = "微信退款单号 商户退款单号 退款金额 充值券退款金额 退款类型 退款状态"
_TEXTS = "商品名称 商户数据包 手续费 费率 订单金额"
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "ALL": tuple(f"{_COMMON} {_REFUND_PART} {_TEXTS} 申请退款金额 费率备注".split()),
    "SUCCESS": tuple(f"{_COMMON} {_TEXTS} 费率备注".split()),
    "REFUND": tuple(
        f"{_COMMON} 退款申请时间 退款成功时间 {_REFUND_PART} {_TEXTS} 申请退款金额 费率备注".split()
    ),
}
_SUMMARY = (
    "总交易单数 应结订单总金额 退款总金额 充值券退款总金额 手续费总金额 订单总金额 申请退款总金额"
)
SUMMARY_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "ALL": tuple(_SUMMARY.split()),
    "REFUND": tuple(_SUMMARY.split()),
    "SUCCESS": ("总交易单数", "应结订单总金额", "手续费总金额", "订单总金额"),
}

_REFUND_STATUS = {
    "PROCESSING": "PROCESSING",
    "SUCCESS": "SUCCESS",
    "CLOSED": "FAIL",
    "ABNORMAL": "CHANGE",
}


def ready_at(day: date) -> datetime:
    """When the bill of ``day`` can be fetched: ten the next morning, Beijing time."""
    return _midnight(day) + _READY_AT


def trade_bill(
    orders: Iterable[Order], refunds: Iterable[Refund], day: date, kind: str
) -> bytes | None:
    """The bill of ``kind`` ALL, SUCCESS or REFUND; None where the day has no such trade.

    ``orders`` must hold the orders of all ``refunds``.
    """
    by_number = {(order.mchid, order.out_trade_no): order for order in orders}
    rows: list[tuple[datetime, dict[str, str]]] = []
    if kind != "REFUND":
        rows += [
            (order.paid_at, _payment_row(order))
            for order in by_number.values()
            if order.paid_at is not None and order.paid_at.date() == day
        ]
    if kind != "SUCCESS":
        made_at = _midnight(day) + _MADE_AT
        rows += [
            (refund.created_at, _refund_row(refund, by_number[_order_of(refund)], made_at))
            for refund in refunds
            if refund.created_at.date() == day
        ]
    if not rows:
        return None
    rows.sort(key=lambda row: row[0])
    return _file([row for _, row in rows], kind)


def _order_of(refund: Refund) -> tuple[str, str]:
    return refund.mchid, refund.out_trade_no


def _payment_row(order: Order) -> dict[str, str]:
    return _trade_columns(order) | {
        "交易时间": _time(order.paid_at),
        "交易状态": "SUCCESS",
        "应结订单金额": _yuan(order.total),
        "微信退款单号": "0",
        "商户退款单号": "0",
        "退款金额": _yuan(0),
        "退款类型": "",
        "退款状态": "",
        "手续费": _fee(order.total),
        "订单金额": _yuan(order.total),
        "申请退款金额": _yuan(0),
    }


def _refund_row(refund: Refund, order: Order, made_at: datetime) -> dict[str, str]:
    status = refund.status_at(made_at)
    return _trade_columns(order) | {
        "交易时间": _time(refund.created_at),
        "交易状态": "REFUND",
        "应结订单金额": _yuan(0),
        "退款申请时间": _time(refund.created_at),
        "退款成功时间": _time(refund.success_time) if status == "SUCCESS" else "",
        "微信退款单号": refund.refund_id,
        "商户退款单号": refund.out_refund_no,
        "退款金额": _yuan(refund.refund),
        "退款类型": "ORIGINAL",
        "退款状态": _REFUND_STATUS[status],
        "手续费": _fee(-refund.refund),
        "订单金额": _yuan(0),
        "申请退款金额": _yuan(refund.refund),
    }


def _trade_columns(order: Order) -> dict[str, str]:
    return {
        "公众账号ID": order.appid,
        "商户号": order.mchid,
        "特约商户号": "0",
        "设备号": order.device_id or "",
        "微信订单号": str(order.transaction_id),
        "商户订单号": order.out_trade_no,
        "用户标识": order.openid,
        "交易类型": "JSAPI",
        "付款银行": "OTHERS",
        "货币种类": order.currency,
        "代金券金额": _yuan(0),
        "充值券退款金额": _yuan(0),
        "商品名称": _escaped(order.description),
        "商户数据包": _escaped(order.attach or ""),
        "费率": "0.60%",
        "费率备注": "",
    }


def _file(rows: Sequence[dict[str, str]], kind: str) -> bytes:
    summary = {
        "总交易单数": str(len(rows)),
        "应结订单总金额": _sum(rows, "应结订单金额"),
        "退款总金额": _sum(rows, "退款金额"),
        "充值券退款总金额": _sum(rows, "充值券退款金额"),
        "手续费总金额": _sum(rows, "手续费"),
        "订单总金额": _sum(rows, "订单金额"),
        "申请退款总金额": _sum(rows, "申请退款金额"),
    }
    lines = [",".join(COLUMNS[kind])]
    lines += [_values(row, COLUMNS[kind]) for row in rows]
    lines += [",".join(SUMMARY_COLUMNS[kind]), _values(summary, SUMMARY_COLUMNS[kind])]
    return b"\xef\xbb\xbf" + "".join(f"{line}\r\n" for line in lines).encode()


def _values(row: dict[str, str], columns: Iterable[str]) -> str:
    return ",".join(f"`{row[column]}" for column in columns)


def _sum(rows: Iterable[dict[str, str]], column: str) -> str:
    return str(sum((Decimal(row[column]) for row in rows), Decimal(0)))


def _yuan(fen: int) -> str:
    return f"{Decimal(fen) / 100:.2f}"


def _fee(fen: int) -> str:
    """0.60 % of the amount, rounded to whole fen, with five decimals; negative when given back."""
    yuan = (Decimal(fen) / 100 * _FEE_RATE).quantize(Decimal("0.01"), ROUND_HALF_UP)
    return f"{yuan + 0:.5f}"


def _escaped(text: str) -> str:
    return text.replace(",", "\\ ").replace("\r", "").replace("\n", "\\n")


def _time(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment.astimezone(BEIJING):%Y-%m-%d %H:%M:%S}"


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), BEIJING)
