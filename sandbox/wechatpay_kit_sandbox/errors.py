"""What the gateway refuses, and in which words.

A table of statuses, codes, texts and internal numbers; knows nothing of HTTP or orders.
Texts marked (own) stand where no text of the real gateway is on record.
"""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = [
    "APPID_NOT_OF_MERCHANT",
    "BAD_SIGNATURE",
    "BILL_DATE_TOO_OLD",
    "BILL_NOT_OF_MERCHANT",
    "BILL_URL_EXPIRED",
    "CLOCK",
    "MALFORMED_AUTHORIZATION",
    "MALFORMED_AUTHORIZATION_OF_TRANSACTIONS",
    "MERCHANT_DIFFERS",
    "MERCHANT_DIFFERS_IN_QUERY",
    "MISSING_AGENT",
    "NO_STATEMENT",
    "ORDER_CLOSED",
    "ORDER_EXPIRED",
    "ORDER_MISSING",
    "ORDER_PAID",
    "PARAMETER",
    "REENTRY_DIFFERS",
    "REFUND_BEYOND_REST",
    "REFUND_DIFFERS",
    "REFUND_MISSING",
    "REFUND_OF_UNPAID",
    "REFUND_TOO_LATE",
    "REFUND_TOO_MANY",
    "SCHEME",
    "STATEMENT_CREATING",
    "TODAY_HAS_NO_BILL",
    "UNKNOWN_FIELD",
    "UNKNOWN_MERCHANT",
    "UNKNOWN_MERCHANT_OF_REFUND",
    "UNKNOWN_SERIAL",
    "Case",
    "ControlError",
    "Refusal",
]


class Case(NamedTuple):
    """One way to be refused; ``number`` is the suffix of the answer's Request-ID."""

    status: int
    code: str
    message: str
    number: int


class Refusal(Exception):  # noqa: N818 - what it is: the gateway is not in error, it refuses
    """The gateway's answer to a request that it does not grant."""

    def __init__(
        self, case: Case, detail: dict[str, Any] | None = None, *, message: str | None = None
    ) -> None:
        super().__init__(message or case.message)
        self.case = case
        self.detail = detail

    def body(self) -> dict[str, Any]:
        """As it goes over the wire: code, message, and detail where there is one."""
        answer: dict[str, Any] = {"code": self.case.code, "message": str(self)}
        if self.detail is not None:
            answer["detail"] = self.detail
        return answer


class ControlError(Exception):
    """A control call (``/_sandbox/…``, or its method) that cannot be done; says why.

    ``status`` is the HTTP status of the control call: 400, 404 or 409.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


# Authentication. A 400 here comes before it; the 401s carry no Wechatpay-* headers.
MISSING_AGENT = Case(400, "INVALID_REQUEST", "Http头缺少Accept或User-Agent", 268435461)
MALFORMED_AUTHORIZATION = Case(
    401,
    "SIGN_ERROR",
    "Http头Authorization值格式错误，请参考《微信支付商户REST API签名规则》",
    268443699,
)
MALFORMED_AUTHORIZATION_OF_TRANSACTIONS = Case(
    401, "SIGN_ERROR", "签名信息错误，验签失败", 268443699
)
SCHEME = Case(401, "SIGN_ERROR", "HTTP头Authorization认证类型不正确", 268443699)
CLOCK = Case(
    401,
    "SIGN_ERROR",
    "Http头Authorization中的timestamp与发起请求的时间不得超过5分钟",
    268443699,
)
UNKNOWN_MERCHANT = Case(400, "MCH_NOT_EXISTS", "商户号不存在", 268443715)  # (own)
UNKNOWN_MERCHANT_OF_REFUND = Case(404, "MCH_NOT_EXISTS", "商户号不存在", 268443715)  # (own)
UNKNOWN_SERIAL = Case(
    401,
    "SIGN_ERROR",
    "商户证书序列号有误。请使用签名私钥匹配的证书序列号",
    268443699,
)
BAD_SIGNATURE = Case(401, "SIGN_ERROR", "签名错误", 268443699)

# Parameters. The text of PARAMETER is made by `validation`.
PARAMETER = Case(400, "PARAM_ERROR", "参数错误", 268435461)
UNKNOWN_FIELD = Case(400, "PARAM_ERROR", "请求中含有未在API文档中定义的参数", 270924358)
MERCHANT_DIFFERS = Case(
    400,
    "PARAM_ERROR",
    "http header中的mchid与post payload中的mchid不匹配",
    268435461,
)
MERCHANT_DIFFERS_IN_QUERY = Case(  # (own)
    400, "PARAM_ERROR", "http header中的mchid与query string中的mchid不匹配", 268435461
)
APPID_NOT_OF_MERCHANT = Case(400, "APPID_MCHID_NOT_MATCH", "appid和mch_id不匹配", 268445527)

# Orders
REENTRY_DIFFERS = Case(400, "INVALID_REQUEST", "请求重入时，参数与首次请求时不一致", 268498688)
ORDER_PAID = Case(400, "ORDERPAID", "该订单已支付", 268449538)
ORDER_CLOSED = Case(400, "ORDER_CLOSED", "订单已关闭", 268435461)  # (own)
ORDER_EXPIRED = Case(400, "INVALID_REQUEST", "订单已过期", 268447914)  # (own)
ORDER_MISSING = Case(404, "ORDER_NOT_EXIST", "订单不存在", 268512771)

# Refunds
REFUND_OF_UNPAID = Case(404, "RESOURCE_NOT_EXISTS", "订单不存在", 268512771)
REFUND_BEYOND_REST = Case(400, "INVALID_REQUEST", "订单已全额退款", 268435464)
REFUND_DIFFERS = Case(
    400,
    "INVALID_REQUEST",
    "订单金额或退款金额与之前请求不一致，请核实后再试",
    268498688,
)
REFUND_TOO_LATE = Case(400, "INVALID_REQUEST", "订单已超过可退款的最大期限", 268435464)  # (own)
REFUND_TOO_MANY = Case(400, "INVALID_REQUEST", "部分退款次数超过限制", 268435464)  # (own)
REFUND_MISSING = Case(404, "RESOURCE_NOT_EXISTS", "退款单不存在", 268512771)

# Bills
TODAY_HAS_NO_BILL = Case(400, "INVALID_REQUEST", "账单日期不正确", 268435461)  # (own)
BILL_DATE_TOO_OLD = Case(400, "INVALID_REQUEST", "账单日期超过三个月", 268435461)  # (own)
STATEMENT_CREATING = Case(400, "STATEMENT_CREATING", "账单生成中", 268435461)
NO_STATEMENT = Case(400, "NO_STATEMENT_EXIST", "请求的账单文件不存在", 268435461)
BILL_URL_EXPIRED = Case(400, "INVALID_REQUEST", "账单下载链接已失效", 268435461)  # (own)
BILL_NOT_OF_MERCHANT = Case(403, "NO_AUTH", "商户无权下载该账单", 268435461)  # (own)
