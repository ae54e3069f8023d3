"""What the gateway says of its orders and refunds, as APIv3 spells it.

From state to JSON objects; knows nothing of rules, HTTP or keys. Absent facts are left out,
never null.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .clock import rfc3339

if TYPE_CHECKING:
    from .state import Order, Refund

__all__ = ["refund_document", "refund_notice", "transaction"]

RECEIVED_ACCOUNT = "支付用户零钱"

_TRADE_STATES = {
    "NOTPAY": "订单未支付",
    "SUCCESS": "支付成功",
    "REFUND": "订单发生过退款，退款详情请查询退款单",
    "CLOSED": "订单已关闭",
}


def transaction(order: Order) -> dict[str, Any]:
    """The transaction object: answer of a query, content of a payment notification."""
    document: dict[str, Any] = {
        "appid": order.appid,
        "mchid": order.mchid,
        "out_trade_no": order.out_trade_no,
        "trade_state": order.trade_state,
        "trade_state_desc": _TRADE_STATES[order.trade_state],
        "amount": {"total": order.total},
    }
    if order.paid_at is not None:
        document |= {
            "transaction_id": order.transaction_id,
            "trade_type": "JSAPI",
            "bank_type": "OTHERS",
            "success_time": rfc3339(order.paid_at),
            "payer": {"openid": order.openid},
            "amount": {
                "total": order.total,
                "payer_total": order.total,
                "currency": order.currency,
                "payer_currency": order.currency,
            },
        }
        if order.attach is not None:
            document["attach"] = order.attach
    if order.device_id is not None:
        document["scene_info"] = {"device_id": order.device_id}
    return document


def refund_document(refund: Refund) -> dict[str, Any]:
    """The refund object: answer of a refund and of its query."""
    document = {
        "refund_id": refund.refund_id,
        "out_refund_no": refund.out_refund_no,
        "transaction_id": refund.transaction_id,
        "out_trade_no": refund.out_trade_no,
        "channel": "ORIGINAL",
        "user_received_account": RECEIVED_ACCOUNT,
        "create_time": rfc3339(refund.created_at),
        "status": refund.status,
        "funds_account": refund.funds_account,
        "amount": {
            "total": refund.total,
            "refund": refund.refund,
            "payer_total": refund.total,
            "payer_refund": refund.refund,
            "settlement_refund": refund.refund,
            "settlement_total": refund.total,
            "discount_refund": 0,
            "currency": refund.currency,
        },
    }
    return document | _success_time(refund)


def refund_notice(refund: Refund) -> dict[str, Any]:
    """The content of a refund notification: ``refund_status``, and no currency."""
    document = {
        "mchid": refund.mchid,
        "out_trade_no": refund.out_trade_no,
        "transaction_id": refund.transaction_id,
        "out_refund_no": refund.out_refund_no,
        "refund_id": refund.refund_id,
        "refund_status": refund.status,
        "user_received_account": RECEIVED_ACCOUNT,
        "amount": {
            "total": refund.total,
            "refund": refund.refund,
            "payer_total": refund.total,
            "payer_refund": refund.refund,
        },
    }
    return document | _success_time(refund)


def _success_time(refund: Refund) -> dict[str, str]:
    return {} if refund.success_time is None else {"success_time": rfc3339(refund.success_time)}
