"""Every field of an order and of a refund: accepted at its limit, refused one over.

The limits are those of the documentation's tables, written out again; where its pages differ, the
stricter one.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wechatpay_kit import ParameterError, WeChatPayError
from wechatpay_kit.limits import (
    check_order,
    check_out_refund_no,
    check_out_trade_no,
    check_refund,
    struct,
)
from wechatpay_kit.models import (
    GoodsDetail,
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
    StoreInfo,
    encode,
)

EMOJI = "\U0001f375"  # 4 bytes


def order(path: str = "", value: Any = None) -> OrderRequest:
    """An order with every field, and ``value`` at ``path``."""
    given = {path: value} if path else {}

    def at(prefix: str, **fields: Any) -> dict[str, Any]:
        names = {name.removeprefix(f"{prefix}"): v for name, v in given.items()}
        return fields | {name: v for name, v in names.items() if name in fields}

    goods = "detail.goods_detail[0]."
    shop = "scene_info.store_info."
    return OrderRequest(
        **at(
            "",
            appid="wxd678efh567hg6787",
            mchid="1900000001",
            description="tea",
            out_trade_no="T10012",
            time_expire="2026-11-24T10:30:00+08:00",
            attach="a",
            notify_url="https://shop.example/wechatpay/notify",
            goods_tag="WXG",
            support_fapiao=True,
            limit_pay=[given.get("limit_pay[0]", "no_credit")],
            amount=OrderAmount(**at("amount.", total=100, currency="CNY")),
            payer=OrderPayer(
                **at(
                    "payer.",
                    openid="oUpF8uMuAJO_M2pxb1Q9zNjWeS6o",
                    identity=Identity(
                        **at("payer.identity.", type="IDCARD", number="sealed", name="sealed")
                    ),
                )
            ),
            detail=OrderDetail(
                **at(
                    "detail.",
                    cost_price=100,
                    invoice_id="I1",
                    goods_detail=[
                        GoodsDetail(
                            **at(
                                goods,
                                merchant_goods_id="G1",
                                wechatpay_goods_id="1001",
                                goods_name="tea",
                                quantity=1,
                                unit_price=100,
                            )
                        )
                    ],
                )
            ),
            scene_info=SceneInfo(
                **at(
                    "scene_info.",
                    payer_client_ip="14.23.150.211",
                    device_id="013467007045764",
                    store_info=StoreInfo(
                        **at(shop, id="0001", name="shop", area_code="440305", address="road 1")
                    ),
                )
            ),
            settle_info=SettleInfo(**at("settle_info.", profit_sharing=False)),
        )
    )


def refund(path: str = "", value: Any = None) -> RefundRequest:
    """A refund with every field, and ``value`` at ``path``."""
    given = {path: value} if path else {}
    given_refund = value if path == "amount.refund" else 30  # what the accounts pay adds up

    def at(prefix: str, **fields: Any) -> dict[str, Any]:
        names = {name.removeprefix(f"{prefix}"): v for name, v in given.items()}
        return fields | {name: v for name, v in names.items() if name in fields}

    return RefundRequest(
        **at(
            "",
            transaction_id="4200002026112400000000000001",
            out_trade_no="T10012",
            out_refund_no="R1",
            reason="broken",
            notify_url="https://shop.example/wechatpay/notify",
            funds_account="AVAILABLE",
            amount=RefundRequestAmount(
                **at(
                    "amount.",
                    refund=30,
                    total=100,
                    currency="CNY",
                    from_=[
                        RefundFrom(
                            **at("amount.from[0].", account="AVAILABLE", amount=given_refund)
                        ),
                    ],
                )
            ),
            goods_detail=[
                RefundGoods(
                    **at(
                        "goods_detail[0].",
                        merchant_goods_id="G1",
                        wechatpay_goods_id="1001",
                        goods_name="tea",
                        unit_price=100,
                        refund_amount=30,
                        refund_quantity=1,
                    )
                )
            ],
        )
    )


def check(call: str, path: str, value: Any) -> None:
    if call == "order":
        request = order(path, value)
        check_order(request)
    else:
        request = refund(path, value)
        check_refund(request)
    encode(request)  # what was accepted can be sent


def refusal(call: str, path: str, value: Any) -> ParameterError:
    with pytest.raises(ParameterError) as caught:
        check(call, path, value)
    error = caught.value
    assert error.field == path
    assert error.rule
    assert str(error).startswith(f"{path}: {error.rule}; got ")
    return error


def is_refused(call: str, path: str, value: Any) -> bool:
    try:
        check(call, path, value)
    except ParameterError as error:
        return error.field.startswith(path)
    return False


class Text(NamedTuple):
    call: str
    path: str
    limit: int
    least: int = 1
    in_bytes: bool = False
    filler: str = "a"
    start: str = ""


TEXTS = [
    Text("order", "appid", 32),
    Text("order", "mchid", 32),
    Text("order", "description", 127, in_bytes=True),
    Text("order", "out_trade_no", 32, least=6),
    Text("order", "time_expire", 64),
    Text("order", "attach", 128, in_bytes=True),
    Text("order", "notify_url", 255, least=9, start="https://"),
    Text("order", "goods_tag", 32),
    Text("order", "payer.openid", 128),
    Text("order", "payer.identity.type", 32),
    Text("order", "detail.invoice_id", 32),
    Text("order", "detail.goods_detail[0].merchant_goods_id", 32),
    Text("order", "detail.goods_detail[0].wechatpay_goods_id", 32),
    Text("order", "detail.goods_detail[0].goods_name", 256),
    Text("order", "scene_info.payer_client_ip", 45),
    Text("order", "scene_info.device_id", 32),
    Text("order", "scene_info.store_info.id", 32),
    Text("order", "scene_info.store_info.name", 256),
    Text("order", "scene_info.store_info.area_code", 32),
    Text("order", "scene_info.store_info.address", 512),
    Text("refund", "transaction_id", 32),
    Text("refund", "out_trade_no", 32, least=6),
    Text("refund", "out_refund_no", 64),
    Text("refund", "reason", 80, in_bytes=True),
    Text("refund", "notify_url", 255, least=9, start="https://"),
    Text("refund", "goods_detail[0].merchant_goods_id", 32),
    Text("refund", "goods_detail[0].wechatpay_goods_id", 32),
    Text("refund", "goods_detail[0].goods_name", 256),
]
NUMBERS = [
    ("order", "amount.total", 1),
    ("order", "detail.cost_price", 0),
    ("order", "detail.goods_detail[0].quantity", 1),
    ("order", "detail.goods_detail[0].unit_price", 0),
    ("refund", "amount.refund", 1),
    ("refund", "amount.total", 1),
    ("refund", "amount.from[0].amount", 1),
    ("refund", "goods_detail[0].unit_price", 0),
    ("refund", "goods_detail[0].refund_amount", 1),
    ("refund", "goods_detail[0].refund_quantity", 1),
]
CHOICES = [
    ("order", "limit_pay[0]", ["no_balance", "no_credit", "no_debit", "balance_only"]),
    ("order", "amount.currency", ["CNY"]),
    ("refund", "amount.currency", ["CNY"]),
    ("refund", "funds_account", ["AVAILABLE", "UNSETTLED"]),
    ("refund", "amount.from[0].account", ["AVAILABLE", "UNAVAILABLE"]),
]
FLAGS = [("order", "support_fapiao"), ("order", "settle_info.profit_sharing")]


def named(rows):
    return [f"{row[0]} {row[1]}" for row in rows]


def test_an_order_and_a_refund_with_every_field_are_accepted():
    check_order(order())
    check_refund(refund())


@pytest.mark.parametrize("text", TEXTS, ids=named(TEXTS))
def test_a_text_is_accepted_at_its_limits_and_refused_one_beyond(text):
    def of(size: int) -> str:
        return text.start.ljust(size, text.filler)

    check(text.call, text.path, of(text.limit))
    check(text.call, text.path, of(text.least))
    assert f"to {text.limit} " in refusal(text.call, text.path, of(text.limit + 1)).rule
    if text.least > 1:
        refusal(text.call, text.path, of(text.least - 1))
    refusal(text.call, text.path, "")


@pytest.mark.parametrize("text", [t for t in TEXTS if t.in_bytes], ids=lambda t: t.path)
def test_a_limit_in_bytes_counts_cjk_thrice(text):
    check(text.call, text.path, "茶" * (text.limit // 3))
    error = refusal(text.call, text.path, "茶" * (text.limit // 3 + 1))
    assert "bytes" in error.rule


@pytest.mark.parametrize("text", TEXTS, ids=named(TEXTS))
@pytest.mark.parametrize(
    "wrong",
    [f"tea_12{EMOJI}", "tea_12\ud800", f"tea_12\udc00{EMOJI}"],
    ids=["emoji", "lone surrogate", "both"],
)
def test_a_text_holds_no_4_byte_character_and_no_half_of_one(text, wrong):
    refusal(text.call, text.path, wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        *(None, 1, 100000, 1.5, True, b"T10012", ["T10012"], [], {}, {"a": "T10012"}),
        *(datetime(2026, 11, 24, tzinfo=UTC), Decimal(100000), object()),
    ],
    ids=lambda value: type(value).__name__ + ("" if value else ", empty"),
)
def test_what_is_no_text_is_refused_in_every_field(wrong):
    assert [text.path for text in TEXTS if not is_refused(text.call, text.path, wrong)] == []


@pytest.mark.parametrize("row", NUMBERS, ids=named(NUMBERS))
def test_a_number_is_accepted_from_its_least_on_and_refused_below(row):
    call, path, least = row
    if path == "amount.from[0].amount":  # it must add up to the refund
        check(call, path, 30)
    else:
        check(call, path, max(least, 1) if path != "amount.total" else 100)
    error = refusal(call, path, least - 1)
    assert f"must be {least} to " in error.rule
    refusal(call, path, -100)


def test_an_order_of_one_fen_is_accepted():
    check("order", "amount.total", 1)


@pytest.mark.parametrize(
    "wrong",
    [
        *(None, 1.0, 100.5, float("nan"), float("inf"), True, False, "100", b"100", "", [], {}),
        *([100], Decimal(100), Decimal("1.5"), 1 + 0j, object()),
    ],
    ids=lambda value: type(value).__name__ + ("" if value else ", falsy"),
)
def test_what_is_no_integer_is_refused_in_every_field(wrong):
    assert [path for call, path, _ in NUMBERS if not is_refused(call, path, wrong)] == []


@pytest.mark.parametrize(
    ("call", "path", "value"),
    [(call, path, value) for call, path, values in CHOICES for value in values],
)
def test_each_choice_is_accepted(call, path, value):
    check(call, path, value)


@pytest.mark.parametrize("row", CHOICES, ids=named(CHOICES))
@pytest.mark.parametrize("wrong", ["cny", "", "available", "NO_CREDIT", "CNY ", 156, True])
def test_another_choice_is_refused_and_the_right_ones_are_named(row, wrong):
    call, path, values = row
    assert all(value in refusal(call, path, wrong).rule for value in values)


@pytest.mark.parametrize(("call", "path"), FLAGS)
def test_a_flag_is_true_or_false(call, path):
    check(call, path, value=True)
    check(call, path, value=False)
    for wrong in (0, 1, "true", "", None):
        assert refusal(call, path, wrong).rule == "must be True or False"


# Numbers of orders and refunds


@pytest.mark.parametrize("number", ["T10012", "0" * 32, "a_b-c|d*E", "------"])
def test_an_out_trade_no_may_be(number):
    check_out_trade_no(number)
    check("order", "out_trade_no", number)


@pytest.mark.parametrize(
    "number",
    [
        *("T1001", "0" * 33, "", "T1001 2", " T10012", "T10012\n", "T1001/2", "T1001.2", "T1001@2"),
        *("订单编号壹贰", "T1001２", "T10012\0", "../../x", "T1001%7C", None, 1001234, b"T10012"),
    ],
)
def test_an_out_trade_no_may_not_be(number):
    refusal("order", "out_trade_no", number)
    with pytest.raises(ParameterError) as caught:
        check_out_trade_no(number)
    assert caught.value.field == "out_trade_no"


def test_an_out_refund_no_may_have_an_at_sign_and_64_characters():
    check_out_refund_no("R@1".ljust(64, "0"))
    check("refund", "out_refund_no", "1")
    for wrong in ("", "0" * 65, "R 1", "R1\n", "退款", "R#1", None):
        with pytest.raises(ParameterError) as caught:
            check_out_refund_no(wrong)
        assert caught.value.field == "out_refund_no"


# notify_url


@pytest.mark.parametrize("call", ["order", "refund"])
@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example/notify?order=1",
        "https://shop.example/notify?",
        "https://shop.example/notify#top",
        "http://shop.example/notify",
        "http://127.0.0.1.shop.example/notify",
        "http://localhost.shop.example/notify",
        "http://127.0.0.1@shop.example/notify",
        "ftp://shop.example/notify",
        "shop.example/notify",
        "//shop.example/notify",
        "https:///notify",
        "https://",
        "https://shop.example/no tify",
        " https://shop.example/notify",
        "https://shop.example/notify\n",
        "HTTP://shop.example/notify",
    ],
)
def test_a_notify_url_may_not_be(call, url):
    assert "https://shop.example/wechatpay/notify" in refusal(call, "notify_url", url).rule


@pytest.mark.parametrize("call", ["order", "refund"])
@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example",
        "https://shop.example/",
        "https://shop.example:8443/wechatpay/notify",
        "http://127.0.0.1:5000/wechatpay/notify",
        "http://localhost/wechatpay/notify",
        "http://[::1]:5000/wechatpay/notify",
    ],
)
def test_a_notify_url_may_be(call, url):
    check(call, "notify_url", url)


# Sums and sizes


def test_a_refund_is_at_most_its_total():
    request = RefundRequest(
        out_refund_no="R1", out_trade_no="T10012", amount=RefundRequestAmount(refund=100, total=100)
    )
    check_refund(request)
    with pytest.raises(ParameterError, match=r"amount\.refund: must be at most total=99; got 100"):
        check_refund(
            RefundRequest(out_refund_no="R1", amount=RefundRequestAmount(refund=100, total=99))
        )


def test_what_the_accounts_pay_adds_up_to_the_refund():
    def parts(*amounts: int) -> RefundRequest:
        accounts = [RefundFrom(account="AVAILABLE", amount=amount) for amount in amounts]
        return RefundRequest(
            out_refund_no="R1", amount=RefundRequestAmount(refund=30, total=100, from_=accounts)
        )

    check_refund(parts(10, 20))
    with pytest.raises(ParameterError, match=r"amount\.from: must add up to refund=30"):
        check_refund(parts(10, 19))


def test_the_detail_of_an_order_is_at_most_6144_bytes_of_json():
    line = GoodsDetail(merchant_goods_id="G", quantity=1, unit_price=1, goods_name="n" * 256)

    def goods(count: int, name: str) -> OrderDetail:
        last = GoodsDetail(merchant_goods_id="G", quantity=1, unit_price=1, goods_name=name)
        return OrderDetail(goods_detail=[line] * count + [last])

    count = 18
    spare = 6144 - len(encode(goods(count, "")))
    assert 0 < spare < 256
    check("order", "detail", goods(count, "n" * spare))
    error = refusal("order", "detail", goods(count, "n" * (spare + 1)))
    assert "6144 bytes" in error.rule
    assert error.value == 6145


# Names


def test_a_misspelt_field_of_a_mapping_is_refused_with_those_there_are():
    with pytest.raises(ParameterError, match="its fields are type, number, name") as caught:
        struct("identity", {"typ": "IDCARD", "number": "1", "name": "x"}, Identity)
    assert caught.value.field == "identity"


@pytest.mark.parametrize("value", [None, "x", 1, [], {}, {"payer_client_ip": 1}])
def test_what_is_no_struct_of_that_kind_is_refused(value):
    with pytest.raises(ParameterError) as caught:
        struct("scene_info", value, SceneInfo)
    assert caught.value.field == "scene_info"


def test_a_struct_or_a_mapping_gives_the_same():
    given = {"payer_client_ip": "14.23.150.211", "store_info": {"id": "1"}}
    made = SceneInfo(payer_client_ip="14.23.150.211", store_info=StoreInfo(id="1"))
    assert struct("scene_info", given, SceneInfo) == made == struct("scene_info", made, SceneInfo)


def test_a_parameter_error_is_a_value_error_and_shows_a_long_value_cut():
    error = refusal("order", "description", "x" * 5000)
    assert isinstance(error, ValueError)
    assert isinstance(error, WeChatPayError)
    assert error.value == "x" * 5000
    assert len(str(error)) < 250


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_is_accepted_or_refused_and_what_is_accepted_can_be_sent(text):
    for path in ("description", "attach", "out_trade_no", "notify_url", "payer.openid"):
        try:
            check_order(order(path, text))
        except ParameterError as error:
            str(error).encode()
        else:
            sent = json.loads(encode(order(path, text)))
            assert (sent["payer"]["openid"] if path == "payer.openid" else sent[path]) == text
