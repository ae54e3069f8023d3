"""From a shop's arguments to the bytes of an order or a refund.

Knows fields, limits and what is sensitive; knows nothing of HTTP, signatures or stores. A draft
is serialised once: those bytes are recorded, signed and sent, and sent again on a repeat.
"""

from __future__ import annotations

import difflib
import hashlib
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

import msgspec
from msgspec import UNSET, Struct, UnsetType

from .bills import BEIJING
from .errors import ParameterError
from .limits import check_order, check_refund, struct
from .models import (
    Identity,
    OrderAmount,
    OrderDetail,
    OrderPayer,
    OrderRequest,
    RefundFrom,
    RefundGoods,
    RefundRequest,
    RefundRequestAmount,
    SceneInfo,
    SettleInfo,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .merchant import Merchant

__all__ = [
    "MAX_LIFETIME",
    "Draft",
    "OrderOptions",
    "RefundDraft",
    "RefundOptions",
    "Seal",
    "draft_order",
    "draft_refund",
]

MAX_LIFETIME = timedelta(days=7)  # of an order; some pages say 15, the stricter holds
TRADE_TYPES = ("JSAPI",)  # a mini-program's orders are JSAPI orders


class OrderOptions(TypedDict, total=False):
    """The optional arguments of an order.

    ``time_expire`` is an aware datetime, ``profit_sharing`` freezes the money for a split, and
    the texts in ``identity`` are plaintext: the kit encrypts them. Structs may be mappings.
    """

    appid: str
    trade_type: str
    currency: str
    notify_url: str
    time_expire: datetime
    attach: str
    goods_tag: str
    limit_pay: Sequence[str]
    support_fapiao: bool
    identity: Identity | Mapping[str, Any]
    detail: OrderDetail | Mapping[str, Any]
    scene_info: SceneInfo | Mapping[str, Any]
    profit_sharing: bool


class RefundOptions(TypedDict, total=False):
    """The optional arguments of a refund; one of ``out_trade_no`` and ``transaction_id`` is needed.

    ``from_accounts`` says what each account pays, adding up to the refund.
    """

    out_trade_no: str
    transaction_id: str
    reason: str
    notify_url: str
    funds_account: str
    currency: str
    from_accounts: Sequence[RefundFrom | Mapping[str, Any]]
    goods_detail: Sequence[RefundGoods | Mapping[str, Any]]


class Draft(Struct, frozen=True, kw_only=True):
    """An order ready to be sent.

    ``body`` is the very bytes, ``serial`` the key that sealed fields in it (None where nothing is
    sealed). ``fingerprint`` is of the caller's own parameters: the same arguments give the same
    one, although sealing is random and a defaulted ``time_expire`` moves.
    """

    number: str
    body: bytes
    serial: str | None
    appid: str
    total: int
    currency: str
    notify_url: str
    time_expire: datetime | None
    fingerprint: str

    def __repr__(self) -> str:  # the body holds an openid
        return f"Draft({self.number!r}, total={self.total})"


class RefundDraft(Struct, frozen=True, kw_only=True):
    """A refund ready to be sent; see :class:`Draft`. ``number`` is the out_refund_no."""

    number: str
    body: bytes
    out_trade_no: str | None
    transaction_id: str | None
    refund: int
    total: int
    currency: str
    notify_url: str | None
    fingerprint: str
    serial: str | None = None

    def __repr__(self) -> str:
        return f"RefundDraft({self.number!r}, refund={self.refund}, total={self.total})"


class Seal(Protocol):
    """Encrypts for one key of WeChat Pay."""

    @property
    def serial(self) -> str:
        """The key's serial, to be sent as ``Wechatpay-Serial``."""

    def seal(self, text: str) -> str:
        """``text`` as a sensitive request field."""


def draft_order(
    merchant: Merchant,
    *,
    out_trade_no: str,
    total: int,
    description: str,
    openid: str,
    now: datetime,
    default_time_expire: datetime | None,
    options: Mapping[str, Any],
    sealer: Callable[[], Seal],
) -> Draft:
    """Check and serialise an order; :class:`ParameterError` names the first field that is wrong."""
    _only_known("create_order", options, OrderOptions)
    _one_of("trade_type", options.get("trade_type", "JSAPI"), TRADE_TYPES)
    expire = _expiry(options["time_expire"], now) if "time_expire" in options else None
    request = OrderRequest(
        appid=options.get("appid", merchant.appid),
        mchid=merchant.mchid,
        description=description,
        out_trade_no=out_trade_no,
        notify_url=options.get("notify_url", merchant.notify_url or ""),
        amount=OrderAmount(total=total, currency=options.get("currency", "CNY")),
        payer=OrderPayer(openid=openid, identity=_identity(options)),
        time_expire=_rfc3339(expire) if expire else UNSET,
        attach=options.get("attach", UNSET),
        goods_tag=options.get("goods_tag", UNSET),
        limit_pay=_list(options, "limit_pay"),
        support_fapiao=options.get("support_fapiao", UNSET),
        detail=_optional(options, "detail", OrderDetail),
        scene_info=_optional(options, "scene_info", SceneInfo),
        settle_info=(
            SettleInfo(profit_sharing=options["profit_sharing"])
            if "profit_sharing" in options
            else UNSET
        ),
    )
    _needs_notify_url(request.notify_url)
    check_order(request)
    own = request if "notify_url" in options else msgspec.structs.replace(request, notify_url="")
    fingerprint = _fingerprint(own)

    if expire is None and default_time_expire is not None:
        expire = _expiry(default_time_expire, now)
        request = msgspec.structs.replace(request, time_expire=_rfc3339(expire))
    request, serial = _sealed(request, sealer)
    return Draft(
        number=out_trade_no,
        body=encode(request),
        serial=serial,
        appid=request.appid,
        total=total,
        currency=request.amount.currency,
        notify_url=request.notify_url,
        time_expire=expire,
        fingerprint=fingerprint,
    )


def draft_refund(
    merchant: Merchant,
    *,
    out_refund_no: str,
    refund: int,
    total: int,
    options: Mapping[str, Any],
) -> RefundDraft:
    """Check and serialise a refund; :class:`ParameterError` names the first field that is wrong."""
    _only_known("create_refund", options, RefundOptions)
    if ("out_trade_no" in options) == ("transaction_id" in options):
        raise ParameterError(
            "out_trade_no", "exactly one of out_trade_no and transaction_id is needed", None
        )
    request = RefundRequest(
        out_refund_no=out_refund_no,
        amount=RefundRequestAmount(
            refund=refund,
            total=total,
            currency=options.get("currency", "CNY"),
            from_=_structs(options, "from_accounts", RefundFrom),
        ),
        transaction_id=options.get("transaction_id", UNSET),
        out_trade_no=options.get("out_trade_no", UNSET),
        reason=options.get("reason", UNSET),
        notify_url=options.get("notify_url", merchant.notify_url or UNSET),
        funds_account=options.get("funds_account", UNSET),
        goods_detail=_structs(options, "goods_detail", RefundGoods),
    )
    check_refund(request)
    own = request if "notify_url" in options else msgspec.structs.replace(request, notify_url=UNSET)
    return RefundDraft(
        number=out_refund_no,
        body=encode(request),
        out_trade_no=options.get("out_trade_no"),
        transaction_id=options.get("transaction_id"),
        refund=refund,
        total=total,
        currency=request.amount.currency,
        notify_url=request.notify_url or None,
        fingerprint=_fingerprint(own),
    )


def _only_known(call: str, options: Mapping[str, Any], kind: type) -> None:
    for name in options:
        if name not in kind.__annotations__:
            near = difflib.get_close_matches(name, kind.__annotations__, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise TypeError(f"{call}() has no argument {name!r}{hint}")


def _one_of(field: str, value: object, values: Sequence[str]) -> None:
    if value not in values:
        raise ParameterError(field, f"must be one of {', '.join(values)}", value)


def _needs_notify_url(value: str) -> None:
    if not value:
        raise ParameterError(
            "notify_url", "is needed: pass notify_url= or set WECHATPAY_NOTIFY_URL", value
        )


def _expiry(value: object, now: datetime) -> datetime:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ParameterError("time_expire", "must be a datetime with a time zone", value)
    if value - now > MAX_LIFETIME:
        raise ParameterError(
            "time_expire", f"must be at most {MAX_LIFETIME.days} days ahead", value.isoformat()
        )
    return value.replace(microsecond=0)


def _rfc3339(value: datetime) -> str:
    return value.astimezone(BEIJING).isoformat(timespec="seconds")


def _optional(options: Mapping[str, Any], name: str, kind: type[Any]) -> Any:
    return struct(name, options[name], kind) if name in options else UNSET


def _list(options: Mapping[str, Any], name: str) -> Any:
    if name not in options:
        return UNSET
    value = options[name]
    if isinstance(value, str | bytes | dict) or not hasattr(value, "__iter__"):
        raise ParameterError(name, "must be a list", value)
    return list(value)


def _structs(options: Mapping[str, Any], name: str, kind: type[Any]) -> Any:
    values = _list(options, name)
    if values is UNSET:
        return UNSET
    return [struct(f"{name}[{index}]", value, kind) for index, value in enumerate(values)]


def _identity(options: Mapping[str, Any]) -> Identity | UnsetType:
    if "identity" not in options:
        return UNSET
    try:
        identity: Identity = struct("identity", options["identity"], Identity)
    except ParameterError as error:  # its message would show a name and an ID number
        raise ParameterError("identity", error.rule, "a value not shown") from None
    for field in ("type", "number", "name"):
        if not isinstance(getattr(identity, field), str) or not getattr(identity, field):
            raise ParameterError(f"identity.{field}", "must be text", "a value not shown")
    return identity


def _sealed(request: OrderRequest, sealer: Callable[[], Seal]) -> tuple[OrderRequest, str | None]:
    identity = request.payer.identity
    if isinstance(identity, UnsetType):
        return request, None
    seal = sealer()
    sealed = Identity(
        type=identity.type, number=seal.seal(identity.number), name=seal.seal(identity.name)
    )
    payer = msgspec.structs.replace(request.payer, identity=sealed)
    return msgspec.structs.replace(request, payer=payer), seal.serial


def _fingerprint(request: Struct) -> str:
    # A hash of the plaintext: what is sent of it may be sealed, and sealing is random.
    return hashlib.sha256(encode(request)).hexdigest()
