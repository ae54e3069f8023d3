"""A bill is read as WeChat Pay writes it, old and new, and never guessed at."""

from __future__ import annotations

import sys
import tracemalloc
from datetime import datetime
from decimal import Decimal
from itertools import chain, repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wechatpay_kit.bills import BEIJING, BillRow, BillRows, parse_trade_bill
from wechatpay_kit.errors import MessageError

ALL = (
    "交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,交易状态,"
    "付款银行,货币种类,应结订单金额,代金券金额,微信退款单号,商户退款单号,退款金额,充值券退款金额,"
    "退款类型,退款状态,商品名称,商户数据包,手续费,费率,订单金额,申请退款金额,费率备注"
)
SUCCESS = (
    "交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,交易状态,"
    "付款银行,货币种类,应结订单金额,代金券金额,商品名称,商户数据包,手续费,费率,订单金额,费率备注"
)
REFUND = (
    "交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,交易状态,"
    "付款银行,货币种类,应结订单金额,代金券金额,退款申请时间,退款成功时间,微信退款单号,商户退款单号,"
    "退款金额,充值券退款金额,退款类型,退款状态,商品名称,商户数据包,手续费,费率,订单金额,申请退款金额,"
    "费率备注"
)
OLD = (
    "交易时间,公众账号ID,商户号,子商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,交易状态,"
    "付款银行,货币种类,总金额,企业红包金额,微信退款单号,商户退款单号,退款金额,企业红包退款金额,"
    "退款类型,退款状态,商品名称,商户数据包,手续费,费率"
)
SUMMARY = (
    "总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,申请退款总金额"
)
SUMMARY_SUCCESS = "总交易单数,应结订单总金额,手续费总金额,订单总金额"
OLD_SUMMARY = "总交易单数,总交易额,总退款金额,总企业红包退款金额,手续费总金额"

PAYMENT = (
    "`2026-01-05 10:00:01,`wx0000000000000001,`1900000001,`0,`,`4200000000202601050000000001,"
    "`ORDER000001,`oOPENID1,`JSAPI,`SUCCESS,`OTHERS,`CNY,`1.00,`0.50,`0,`0,`0.00,`0.00,`,`,`tea,`,"
    "`0.01000,`0.60%,`1.50,`0.00,`"
)
REFUNDED = (
    "`2026-01-05 11:00:01,`wx0000000000000001,`1900000001,`0,`,`4200000000202601050000000001,"
    "`ORDER000001,`oOPENID1,`JSAPI,`REFUND,`OTHERS,`CNY,`0.00,`0.00,"
    "`50300000002026010500000000001,`REFUND000001,`0.33,`0.17,`ORIGINAL,`SUCCESS,`tea,`,`-0.00600,"
    "`0.60%,`0.00,`0.50,`"
)
TOTALS = "`2,`1.00,`0.33,`0.17,`0.00400,`1.50,`0.50"
BOM = "\ufeff"


def lines(*texts: str, end: str = "\n") -> list[bytes]:
    return [f"{text}{end}".encode() for text in texts]


def read(*texts: str, end: str = "\n") -> tuple[list[BillRow], BillRows]:
    rows = parse_trade_bill(lines(*texts, end=end))
    return list(rows), rows


def test_a_payment_and_a_refund_are_read():
    (payment, refund), rows = read(ALL, PAYMENT, REFUNDED, SUMMARY, TOTALS)
    assert payment == BillRow(
        trade_time=datetime(2026, 1, 5, 10, 0, 1, tzinfo=BEIJING),
        appid="wx0000000000000001",
        mchid="1900000001",
        transaction_id="4200000000202601050000000001",
        out_trade_no="ORDER000001",
        openid="oOPENID1",
        trade_type="JSAPI",
        trade_state="SUCCESS",
        bank_type="OTHERS",
        currency="CNY",
        total=150,
        settlement_total=100,
        coupon_total=50,
        refund=0,
        settlement_refund=0,
        coupon_refund=0,
        description="tea",
        fee=Decimal("0.01000"),
        rate=Decimal("0.0060"),
    )
    assert (refund.refund_id, refund.out_refund_no) == (
        "50300000002026010500000000001",
        "REFUND000001",
    )
    assert (refund.refund, refund.settlement_refund, refund.coupon_refund) == (50, 33, 17)
    assert (refund.refund_channel, refund.refund_status) == ("ORIGINAL", "SUCCESS")
    assert refund.fee == Decimal("-0.00600")
    assert rows.summary is not None
    assert (rows.summary.rows, rows.summary.total, rows.summary.settlement_total) == (2, 150, 100)
    assert (rows.summary.refund, rows.summary.settlement_refund) == (50, 33)
    assert (rows.summary.coupon_refund, rows.summary.fee) == (17, Decimal("0.00400"))


@pytest.mark.parametrize("mark", ["", BOM])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("tail", [(), ("",), ("", "")])
def test_marks_line_ends_and_blank_last_lines_make_no_difference(mark, end, tail):
    rows, _ = read(mark + ALL, PAYMENT, REFUNDED, SUMMARY, TOTALS, *tail, end=end)
    assert rows == read(ALL, PAYMENT, REFUNDED, SUMMARY, TOTALS)[0]


def test_the_last_line_needs_no_end():
    *most, last = lines(ALL, PAYMENT, REFUNDED, SUMMARY, TOTALS)
    assert len(list(parse_trade_bill([*most, last.rstrip()]))) == 2


def test_a_day_whose_bill_has_no_rows():
    rows, parsed = read(ALL, SUMMARY, "`0,`0.00,`0.00,`0.00,`0.00000,`0.00,`0.00")
    assert rows == []
    assert parsed.summary is not None
    assert parsed.summary.rows == 0


def test_the_summary_is_there_after_the_last_row_and_stays():
    parsed = parse_trade_bill(lines(ALL, PAYMENT, REFUNDED, SUMMARY, TOTALS))
    next(parsed)
    assert parsed.summary is None
    assert len(list(parsed)) == 1
    assert next(parsed, None) is None
    assert parsed.summary is not None


def test_columns_of_a_success_bill():
    cells = PAYMENT.split(",`")
    row = ",`".join([*cells[:14], *cells[20:25], cells[26]])
    (payment,), parsed = read(SUCCESS, row, SUMMARY_SUCCESS, "`1,`1.00,`0.01000,`1.50")
    assert (payment.total, payment.settlement_total, payment.refund) == (150, 100, None)
    assert parsed.summary is not None
    assert (parsed.summary.total, parsed.summary.refund) == (150, None)


@pytest.mark.parametrize(
    ("done", "at"),
    [("2026-01-05 11:00:09", datetime(2026, 1, 5, 11, 0, 9, tzinfo=BEIJING)), ("", None)],
)
def test_columns_of_a_refund_bill(done, at):
    cells = REFUNDED.split(",`")
    row = ",`".join([*cells[:14], "2026-01-05 11:00:01", done, *cells[14:]])
    (refund,), _ = read(REFUND, row, SUMMARY, "`1,`0,`0.33,`0.17,`0,`0,`0.50")
    assert refund.refund_create_time == datetime(2026, 1, 5, 11, 0, 1, tzinfo=BEIJING)
    assert refund.refund_success_time == at
    assert refund.settlement_refund == 33


def test_headers_of_old_bills_are_known_and_what_they_lack_is_none():
    row = ",`".join(PAYMENT.split(",`")[:24])
    (payment,), parsed = read(OLD, row, OLD_SUMMARY, "`1,`1.00,`0.00,`0.00,`0.01000")
    assert (payment.settlement_total, payment.coupon_total, payment.total) == (100, 50, None)
    assert parsed.summary is not None
    assert (parsed.summary.settlement_total, parsed.summary.total) == (100, None)


def test_columns_are_found_by_name_and_new_ones_are_passed_over():
    names, cells = ALL.split(","), PAYMENT[1:].split(",`")
    order = [*range(len(names))][::-1]
    header = ",".join(["新列", *(names[index] for index in order)])
    row = "`" + ",`".join(["x", *(cells[index] for index in order)])
    rows, _ = read(header, row, SUMMARY, "`1,`0,`0,`0,`0,`0,`0")
    assert rows == [read(ALL, PAYMENT, REFUNDED, SUMMARY, TOTALS)[0][0]]


def test_a_comma_in_a_text_of_the_shop_splits_nothing():
    row = PAYMENT.replace("`tea,`", "`tea, green\\n,and ' \"cake,`a,b")
    (payment,), _ = read(ALL, row, SUMMARY, "`1,`0,`0,`0,`0,`0,`0")
    assert (payment.description, payment.attach) == ("tea, green\\n,and ' \"cake", "a,b")


@pytest.mark.parametrize(
    ("totals", "rows", "total", "fee"),
    [
        ("`45.0,`0.47,`0.14,`0.0,`0.08,`0.47,`0.14", 45, 47, "0.08"),  # printed from floats
        ("`45,`0.4700000001,`0.14,`0,`8E-2,`0.4699999,`0.14", 45, 47, "0.08"),
        ("`4.5E1,`1.23E7,`0,`0,`0.08000,`1.2345678E7,`0", 45, 1234567800, "0.08"),
    ],
)
def test_a_summary_that_was_printed_from_floats_is_understood(totals, rows, total, fee):
    _, parsed = read(ALL, *repeat(PAYMENT, 45), SUMMARY, totals)
    assert parsed.summary is not None
    assert (parsed.summary.rows, parsed.summary.total) == (rows, total)
    assert parsed.summary.fee == Decimal(fee)


@pytest.mark.parametrize("counted", ["1", "3", "0", "2000000"])
def test_a_bill_that_counts_other_rows_than_it_holds_is_refused(counted):
    with pytest.raises(MessageError, match="holds 2") as caught:
        read(ALL, PAYMENT, REFUNDED, SUMMARY, TOTALS.replace("`2", f"`{counted}", 1))
    assert caught.value.field == "总交易单数"


BROKEN = {
    "nothing": ([], "line 1"),
    "no header": ([PAYMENT], "line 1"),
    "another file": (["<html>"], "交易时间"),
    "no summary": ([ALL, PAYMENT], "without a summary"),
    "header only": ([ALL], "without a summary"),
    "summary header only": ([ALL, PAYMENT, SUMMARY], "line 4"),
    "unknown summary": ([ALL, PAYMENT, "总数", "`1"], "line 3"),
    "more after the summary": ([ALL, SUMMARY, "`0,`0,`0,`0,`0,`0,`0", PAYMENT], "line 4"),
    "a column twice": ([ALL.replace("特约商户号", "子商户号,特约商户号")], "twice"),
    "a value too few": ([ALL, PAYMENT.removesuffix(",`")], "line 2: 26 values"),
    "a value too many": ([ALL, PAYMENT + ",`"], "line 2: 28 values"),
    "no backticks": ([ALL, PAYMENT.replace("`", "")], "line 2"),
    "half a cent": ([ALL, PAYMENT.replace("`1.50", "`1.505")], "line 2: 订单金额"),
    "scientific": ([ALL, PAYMENT.replace("`1.50", "`1E2")], "line 2: 订单金额"),
    "no number": ([ALL, PAYMENT.replace("`1.50", "`NaN")], "line 2: 订单金额"),
    "full-width": ([ALL, PAYMENT.replace("`1.50", "`１.50")], "line 2: 订单金额"),
    "thousands": ([ALL, PAYMENT.replace("`1.50", "`1 000.00")], "line 2: 订单金额"),
    "fee": ([ALL, PAYMENT.replace("`0.01000", "`free")], "line 2: 手续费"),
    "rate": ([ALL, PAYMENT.replace("`0.60%", "`0.60%%")], "line 2: 费率"),
    "time": ([ALL, PAYMENT.replace("2026-01-05 10:00:01", "2026-01-05T10:00")], "line 2: 交易时间"),
    "date": ([ALL, PAYMENT.replace("2026-01-05", "2026-13-05")], "line 2: 交易时间"),
    "no order": ([ALL, PAYMENT.replace("`ORDER000001", "`")], "line 2: 商户订单号"),
    "count": ([ALL, SUMMARY, "`1.5,`0,`0,`0,`0,`0,`0"], "line 3: 总交易单数"),
    "count infinite": ([ALL, SUMMARY, "`Infinity,`0,`0,`0,`0,`0,`0"], "line 3: 总交易单数"),
    "count no number": ([ALL, SUMMARY, "`NaN,`0,`0,`0,`0,`0,`0"], "line 3: 总交易单数"),
    "sum infinite": ([ALL, SUMMARY, "`0,`1E999999999,`0,`0,`0,`0,`0"], "no sum in yuan"),
    "sum": ([ALL, SUMMARY, "`0,`x,`0,`0,`0,`0,`0"], "line 3: 应结订单总金额"),
}


@pytest.mark.parametrize(("texts", "says"), BROKEN.values(), ids=BROKEN.keys())
def test_a_malformed_bill_is_refused_with_its_line(texts, says):
    with pytest.raises(MessageError, match=says):
        read(*texts)


def test_bytes_that_are_no_utf_8_are_refused_with_their_line():
    with pytest.raises(MessageError, match="line 2: not UTF-8"):
        list(parse_trade_bill([*lines(ALL), PAYMENT.encode("gbk") + b"\xff\n"]))


def test_rows_before_a_malformed_one_come_first():
    parsed = parse_trade_bill(lines(ALL, PAYMENT, "`x"))
    assert next(parsed).out_trade_no == "ORDER000001"
    with pytest.raises(MessageError):
        next(parsed)


@given(st.lists(st.binary(max_size=60) | st.sampled_from(lines(ALL, PAYMENT, SUMMARY, TOTALS))))
def test_any_bytes_are_rows_or_a_message_error(raw):
    try:
        for row in parse_trade_bill(raw):
            assert isinstance(row, BillRow)
    except MessageError:
        pass


@given(st.integers(-(10**12), 10**12))
def test_an_amount_is_exact_to_the_fen(fen):
    sign, yuan, rest = "-" * (fen < 0), *divmod(abs(fen), 100)
    row = PAYMENT.replace("`1.50", f"`{sign}{yuan}.{rest:02}")
    (payment,), _ = read(ALL, row, SUMMARY, "`1,`0,`0,`0,`0,`0,`0")
    assert payment.total == fen


def test_memory_does_not_grow_with_the_bill():
    def peak(count: int) -> int:
        row, end = lines(PAYMENT), lines(SUMMARY, f"`{count},`0,`0,`0,`0,`0,`0")
        tracemalloc.start()
        try:
            for _ in parse_trade_bill(chain(lines(ALL), repeat(row[0], count), end)):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)  # caches fill
    few, many = peak(10), peak(3_000)
    assert many < few + 50 * sys.getsizeof(PAYMENT.encode())
