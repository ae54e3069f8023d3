"""Read a bill: bytes in, rows out.

Knows the columns and the number formats of a trade bill; knows nothing of HTTP, keys or stores.
Rules: APIv3 trade bills of the types ALL, SUCCESS and REFUND. Columns are found by their header,
never by their place, because merchants of different years see different ones.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from decimal import ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct

from .errors import MessageError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping

__all__ = ["BEIJING", "BillRow", "BillRows", "BillSummary", "parse_trade_bill"]

BEIJING = timezone(timedelta(hours=8), "Asia/Shanghai")  # bill times and bill days are Beijing's


class BillRow(Struct, frozen=True, kw_only=True):
    """One payment, refund or revocation of a trade bill.

    Amounts are fen; ``fee`` is yuan with five decimals and negative where it was given back;
    ``rate`` is a fraction (0.60% is 0.0060). ``trade_time`` is the payment's, on a refund's row
    the moment the refund was asked for. ``total`` and ``refund`` are the order's and the
    request's amounts, ``settlement_total`` and ``settlement_refund`` what is settled after
    coupons: compare ``total``. None stands where the bill's type or year lacks the column, and
    for the bill's own blanks (an empty text, refund number ``0`` on a payment).
    """

    trade_time: datetime
    out_trade_no: str
    transaction_id: str
    trade_state: str
    appid: str | None = None
    mchid: str | None = None
    sub_mchid: str | None = None
    device_id: str | None = None
    openid: str | None = None
    trade_type: str | None = None
    bank_type: str | None = None
    currency: str | None = None
    total: int | None = None
    settlement_total: int | None = None
    coupon_total: int | None = None
    refund_create_time: datetime | None = None
    refund_success_time: datetime | None = None
    refund_id: str | None = None
    out_refund_no: str | None = None
    refund: int | None = None
    settlement_refund: int | None = None
    coupon_refund: int | None = None
    refund_channel: str | None = None
    refund_status: str | None = None
    description: str | None = None
    attach: str | None = None
    fee: Decimal | None = None
    rate: Decimal | None = None
    rate_remark: str | None = None


class BillSummary(Struct, frozen=True, kw_only=True):
    """The bill's own sums: ``rows`` counts, amounts are fen, ``fee`` is yuan."""

    rows: int
    total: int | None = None
    settlement_total: int | None = None
    refund: int | None = None
    settlement_refund: int | None = None
    coupon_refund: int | None = None
    fee: Decimal | None = None


def parse_trade_bill(lines: Iterable[bytes]) -> BillRows:
    """The rows of a trade bill, read as they are asked for: memory does not grow with the bill.

    ``lines`` is the uncompressed bill cut at LF, such as a file opened in binary mode. Iterating
    raises :class:`MessageError` naming the line where the bill is malformed, ends before its
    summary, or counts other rows than it holds.
    """
    return BillRows(_read(lines))


class BillRows:
    """An iterator of :class:`BillRow`; after the last row ``summary`` is there."""

    def __init__(self, rows: Generator[BillRow, None, BillSummary]) -> None:
        self._rows = rows
        self.summary: BillSummary | None = None

    def __iter__(self) -> Iterator[BillRow]:
        return self

    def __next__(self) -> BillRow:
        try:
            return next(self._rows)
        except StopIteration as end:
            self.summary = self.summary or end.value
            raise


def _read(lines: Iterable[bytes]) -> Generator[BillRow, None, BillSummary]:
    numbered = _texts(lines)
    columns = _columns(next(numbered, (1, "")), _ROW, needed=_ROW_NEEDED)
    rows = 0
    for number, text in numbered:
        if not text.startswith("`"):
            summary = _summary(columns=_columns((number, text), _SUMMARY), following=numbered)
            if summary.rows != rows:
                raise MessageError(
                    f"line {number + 1}: the summary counts {summary.rows} rows, the bill holds "
                    f"{rows}; fetch it again",
                    field="总交易单数",
                )
            return summary
        yield BillRow(**columns.values(number, text))
        rows += 1
    raise MessageError(f"the bill ends after {rows} rows without a summary; fetch it again")


def _summary(columns: _Columns, following: Iterator[tuple[int, str]]) -> BillSummary:
    number, text = next(following, (columns.line + 1, ""))
    summary = BillSummary(**columns.values(number, text))
    for number, _ in following:
        raise MessageError(f"line {number}: nothing may follow the summary of a bill")
    return summary


def _texts(lines: Iterable[bytes]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, 1):
        try:
            text = line.rstrip(b"\r\n").decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise MessageError(f"line {number}: not UTF-8") from None
        if text:
            yield number, text


class _Column(NamedTuple):
    name: str
    field: str
    parse: Callable[[str], Any]


class _Columns(NamedTuple):
    line: int
    found: list[tuple[int, _Column]]
    width: int

    def values(self, number: int, text: str) -> dict[str, Any]:
        """One row's values by field. Texts of customers may hold a comma, but no ``,` ``."""
        cells = text[1:].split(",`")
        if not text.startswith("`") or len(cells) != self.width:
            raise MessageError(
                f"line {number}: {len(cells)} values where the header of line {self.line} names "
                f"{self.width}, each led by a backtick"
            )
        values = {}
        for index, column in self.found:
            try:
                values[column.field] = column.parse(cells[index])
            except (ValueError, ArithmeticError):
                raise MessageError(
                    f"line {number}: {column.name} ({column.field}) is {cells[index][:40]!r}, "
                    f"which is no {column.parse.__name__[1:].replace('_', ' ')}",
                    field=column.name,
                ) from None
        return values


def _columns(
    header: tuple[int, str], known: Mapping[str, _Column], needed: Iterable[str] = ("rows",)
) -> _Columns:
    line, text = header
    names = [name.strip() for name in text.split(",")]
    found = [(index, known[name]) for index, name in enumerate(names) if name in known]
    fields = [column.field for _, column in found]
    for field in needed:
        if field not in fields:
            name = next(name for name, column in known.items() if column.field == field)
            raise MessageError(
                f"line {line}: no header of a trade bill, column {name} is missing", field=name
            )
    if len(set(fields)) != len(fields):
        raise MessageError(f"line {line}: the header names a column twice")
    return _Columns(line, found, len(names))


def _text(cell: str) -> str | None:
    return cell or None


def _number(cell: str) -> str | None:
    return None if cell in {"", "0"} else cell


def _identifier(cell: str) -> str:
    if not cell:
        raise ValueError
    return cell


_TIME_LENGTH = len("2026-01-05 10:00:01")


def _time(cell: str) -> datetime:
    if len(cell) != _TIME_LENGTH:
        raise ValueError
    return datetime.fromisoformat(cell).replace(tzinfo=BEIJING)


def _optional_time(cell: str) -> datetime | None:
    return _time(cell) if cell else None


_DECIMAL = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,10})?")


def _decimal(cell: str) -> Decimal:
    if not _DECIMAL.fullmatch(cell):
        raise ValueError
    return Decimal(cell)


def _amount_in_yuan(cell: str) -> int | None:
    if not cell:
        return None
    fen = _decimal(cell).scaleb(2)
    if fen != (whole := int(fen)):
        raise ValueError
    return whole


def _fee(cell: str) -> Decimal | None:
    return _decimal(cell) if cell else None


def _rate(cell: str) -> Decimal | None:
    return _decimal(cell.removesuffix("%")).scaleb(-2) if cell else None


_DIGITS = 18  # of any sum: 1E999999999 is a number too, but not one to spell out


def _printed_float(cell: str) -> Decimal:
    value = Decimal(cell)  # published bills say 45.0, 45 and, as any float may, 4.5E1
    if not value.is_finite() or value.adjusted() > _DIGITS:
        raise ValueError
    return value


def _count(cell: str) -> int:
    count = _printed_float(cell)
    if count != (whole := int(count)):
        raise ValueError
    return whole


def _sum_in_yuan(cell: str) -> int | None:
    # It may be off by a trace below a fen; the rows are what is exact.
    if not cell:
        return None
    return int(_printed_float(cell).scaleb(2).to_integral_value(ROUND_HALF_EVEN))


def _fee_sum(cell: str) -> Decimal | None:
    return _printed_float(cell) if cell else None


def _table(*columns: tuple[str, Callable[[str], Any], str]) -> dict[str, _Column]:
    return {
        name: _Column(name, field, parse)
        for field, parse, names in columns
        for name in names.split()
    }


_ROW_NEEDED = ("trade_time", "out_trade_no", "transaction_id", "trade_state")

# Field, format, header; where there are more headers, the later ones are of older bills.
_ROW = _table(
    ("trade_time", _time, "交易时间"),
    ("appid", _text, "公众账号ID"),
    ("mchid", _text, "商户号"),
    ("sub_mchid", _number, "特约商户号 子商户号"),
    ("device_id", _text, "设备号"),
    ("transaction_id", _identifier, "微信订单号"),
    ("out_trade_no", _identifier, "商户订单号"),
    ("openid", _text, "用户标识"),
    ("trade_type", _text, "交易类型"),
    ("trade_state", _identifier, "交易状态"),
    ("bank_type", _text, "付款银行"),
    ("currency", _text, "货币种类"),
    ("settlement_total", _amount_in_yuan, "应结订单金额 总金额"),
    ("coupon_total", _amount_in_yuan, "代金券金额 代金券或立减优惠金额 企业红包金额"),
    ("refund_create_time", _optional_time, "退款申请时间"),
    ("refund_success_time", _optional_time, "退款成功时间"),
    ("refund_id", _number, "微信退款单号"),
    ("out_refund_no", _number, "商户退款单号"),
    ("settlement_refund", _amount_in_yuan, "退款金额"),
    (
        "coupon_refund",
        _amount_in_yuan,
        "充值券退款金额 代金券或立减优惠退款金额 企业红包退款金额",
    ),
    ("refund_channel", _text, "退款类型"),
    ("refund_status", _text, "退款状态"),
    ("description", _text, "商品名称"),
    ("attach", _text, "商户数据包"),
    ("fee", _fee, "手续费"),
    ("rate", _rate, "费率"),
    ("total", _amount_in_yuan, "订单金额"),
    ("refund", _amount_in_yuan, "申请退款金额"),
    ("rate_remark", _text, "费率备注"),
)

_SUMMARY = _table(
    ("rows", _count, "总交易单数"),
    ("settlement_total", _sum_in_yuan, "应结订单总金额 总交易额"),
    ("settlement_refund", _sum_in_yuan, "退款总金额 总退款金额"),
    (
        "coupon_refund",
        _sum_in_yuan,
        "充值券退款总金额 总代金券或立减优惠退款金额 总企业红包退款金额",
    ),
    ("fee", _fee_sum, "手续费总金额"),
    ("total", _sum_in_yuan, "订单总金额"),
    ("refund", _sum_in_yuan, "申请退款总金额"),
)
