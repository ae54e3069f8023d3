"""The limits of APIv3 on what a shop sends, checked before it is sent.

Knows rules and values; knows nothing of keys, HTTP or orders. The table is the documentation's
(wechatpay "JSAPI order" and "refund" pages); where pages differ it takes the stricter.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import msgspec
from msgspec import Struct

from .errors import ParameterError
from .models import MAX_FEN

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

__all__ = [
    "NOTIFY_URL",
    "check_order",
    "check_out_refund_no",
    "check_out_trade_no",
    "check_refund",
    "struct",
]

S = TypeVar("S", bound=Struct)


class _Rule(Protocol):
    def broken_by(self, value: object) -> str | None:
        """The rule in words where ``value`` breaks it, else None."""


class _Text(NamedTuple):
    limit: int
    least: int = 1
    unit: str = "characters"
    pattern: str | None = None
    example: str = ""

    def broken_by(self, value: object) -> str | None:
        if not isinstance(value, str):
            return "must be text"
        size = len(value.encode(errors="replace")) if self.unit == "bytes" else len(value)
        if not self.least <= size <= self.limit:
            return f"must be {self.least} to {self.limit} {self.unit} long (it has {size})"
        if any(ord(character) > 0xFFFF or 0xD800 <= ord(character) < 0xE000 for character in value):  # noqa: PLR2004 - Unicode's own borders
            return "must not hold 4-byte characters such as emoji; APIv3 takes 1 to 3 bytes"
        if self.pattern and not re.fullmatch(self.pattern, value):
            return f"must match {self.pattern}, like {self.example}"
        return None


class _Number(NamedTuple):
    least: int
    unit: str = ""

    def broken_by(self, value: object) -> str | None:
        if type(value) is not int:
            return f"must be an integer{self.unit}, never a float, text or bool"
        if self.least <= value <= MAX_FEN:
            return None
        return f"must be {self.least} to {MAX_FEN}{self.unit}"


class _OneOf(NamedTuple):
    values: tuple[str, ...]

    def broken_by(self, value: object) -> str | None:
        return None if value in self.values else f"must be one of {', '.join(self.values)}"


class _Flag(NamedTuple):
    def broken_by(self, value: object) -> str | None:
        return None if isinstance(value, bool) else "must be True or False"


class _Sealed(NamedTuple):
    """Encrypted by the kit; its plaintext was checked when it was sealed."""

    def broken_by(self, value: object) -> str | None:
        return None if isinstance(value, str) and value else "must be text"


_FEN = _Number(1, " fen (分)")
_FEN_OR_FREE = _Number(0, " fen (分)")
_OUT_TRADE_NO = _Text(32, 6, pattern=r"[0-9A-Za-z_\-|*]+", example="T1001-2")
_OUT_REFUND_NO = _Text(64, pattern=r"[0-9A-Za-z_\-|*@]+", example="R1001-1")
NOTIFY_URL = _Text(
    255,
    # https alone: the gateway's syntax check lets http pass, its rules do not. Loopback for tests.
    pattern=r"(https://[^\s/?#]+|http://(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?)(/[^\s?#]*)?",
    example="https://shop.example/wechatpay/notify (https, no query string)",
)

_ORDER: Mapping[str, _Rule] = {
    "appid": _Text(32),
    "mchid": _Text(32),
    "description": _Text(127, unit="bytes"),
    "out_trade_no": _OUT_TRADE_NO,
    "time_expire": _Text(64),
    "attach": _Text(128, unit="bytes"),
    "notify_url": NOTIFY_URL,
    "goods_tag": _Text(32),
    "limit_pay[]": _OneOf(("no_balance", "no_credit", "no_debit", "balance_only")),
    "support_fapiao": _Flag(),
    "amount.total": _FEN,
    "amount.currency": _OneOf(("CNY",)),
    "payer.openid": _Text(128),
    "payer.identity.type": _Text(32),
    "payer.identity.number": _Sealed(),
    "payer.identity.name": _Sealed(),
    "detail.cost_price": _FEN_OR_FREE,
    "detail.invoice_id": _Text(32),
    "detail.goods_detail[].merchant_goods_id": _Text(32),
    "detail.goods_detail[].wechatpay_goods_id": _Text(32),
    "detail.goods_detail[].goods_name": _Text(256),
    "detail.goods_detail[].quantity": _Number(1),
    "detail.goods_detail[].unit_price": _FEN_OR_FREE,
    "scene_info.payer_client_ip": _Text(45),
    "scene_info.device_id": _Text(32),
    "scene_info.store_info.id": _Text(32),
    "scene_info.store_info.name": _Text(256),
    "scene_info.store_info.area_code": _Text(32),
    "scene_info.store_info.address": _Text(512),
    "settle_info.profit_sharing": _Flag(),
}

_REFUND: Mapping[str, _Rule] = {
    "transaction_id": _Text(32),
    "out_trade_no": _OUT_TRADE_NO,
    "out_refund_no": _OUT_REFUND_NO,
    "reason": _Text(80, unit="bytes"),
    "notify_url": NOTIFY_URL,
    "funds_account": _OneOf(("AVAILABLE", "UNSETTLED")),
    "amount.refund": _FEN,
    "amount.total": _FEN,
    "amount.currency": _OneOf(("CNY",)),
    "amount.from[].account": _OneOf(("AVAILABLE", "UNAVAILABLE")),
    "amount.from[].amount": _FEN,
    "goods_detail[].merchant_goods_id": _Text(32),
    "goods_detail[].wechatpay_goods_id": _Text(32),
    "goods_detail[].goods_name": _Text(256),
    "goods_detail[].unit_price": _FEN_OR_FREE,
    "goods_detail[].refund_amount": _FEN,
    "goods_detail[].refund_quantity": _Number(1),
}

_DETAIL_BYTES = 6144  # of the order's ``detail`` as JSON


def check_order(request: Struct) -> None:
    """Raise :class:`ParameterError` for the first field of an order that breaks its rule."""
    _check(request, _ORDER)
    detail = getattr(request, "detail", msgspec.UNSET)
    if detail is not msgspec.UNSET:
        size = len(msgspec.json.encode(detail))
        if size > _DETAIL_BYTES:
            raise ParameterError("detail", f"must be at most {_DETAIL_BYTES} bytes of JSON", size)


def check_refund(request: Struct) -> None:
    """Raise :class:`ParameterError` for the first field of a refund that breaks its rule."""
    _check(request, _REFUND)
    amount = request.amount  # type: ignore[attr-defined]  # any struct of a refund's shape
    if amount.refund > amount.total:
        raise ParameterError(
            "amount.refund", f"must be at most total={amount.total}", amount.refund
        )
    parts = amount.from_
    if parts is not msgspec.UNSET and sum(part.amount for part in parts) != amount.refund:
        raise ParameterError(
            "amount.from", f"must add up to refund={amount.refund}", [p.amount for p in parts]
        )


def check_out_trade_no(value: str) -> None:
    """A number to query or close by; :class:`ParameterError` if no order can have it."""
    _apply("out_trade_no", _OUT_TRADE_NO, value)


def check_out_refund_no(value: str) -> None:
    """A number to query by; :class:`ParameterError` if no refund can have it."""
    _apply("out_refund_no", _OUT_REFUND_NO, value)


def struct(field: str, value: S | Mapping[str, Any], kind: type[S]) -> S:
    """``value`` as ``kind``, from a struct or a mapping; a misspelt key is a ParameterError."""
    if isinstance(value, kind):
        return value
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        known = ", ".join(kind.__struct_encode_fields__)
        raise ParameterError(field, f"{error}; its fields are {known}", value) from None


def _check(request: Struct, rules: Mapping[str, _Rule]) -> None:
    lists = {path.partition("[]")[0] for path in rules if "[]" in path}
    for path, value in _leaves("", request, lists):
        rule = rules.get(_INDEX.sub("[]", path))
        if rule is None:
            import difflib  # noqa: PLC0415 - paid by who misspells

            near = difflib.get_close_matches(path, rules, n=1)
            raise ParameterError(path, f"is no field of this call; near: {near or 'none'}", value)
        _apply(path, rule, value)


def _apply(path: str, rule: _Rule, value: object) -> None:
    broken = rule.broken_by(value)
    if broken:
        raise ParameterError(path, broken, value)


_INDEX = re.compile(r"\[\d+\]")


def _leaves(path: str, value: Any, lists: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Every field that is given, by its path on the wire; only ``lists`` may hold lists."""
    if isinstance(value, Struct):
        names = zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
        for attribute, name in names:
            inner = getattr(value, attribute)
            if inner is not msgspec.UNSET:
                yield from _leaves(f"{path}.{name}" if path else name, inner, lists)
    elif isinstance(value, list) and _INDEX.sub("[]", path) in lists:
        for index, inner in enumerate(value):
            yield from _leaves(f"{path}[{index}]", inner, lists)
    else:
        yield path, value
