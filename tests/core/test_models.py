"""What is decoded, what an error names, and what is sent."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deliveries import BEIJING, refund, transaction
from wechatpay_kit import MessageError, Refund, Transaction
from wechatpay_kit.models import (
    UNSET,
    BillReply,
    CertificatesReply,
    CloseRequest,
    Envelope,
    OrderAmount,
    OrderPayer,
    OrderReply,
    OrderRequest,
    RefundNotice,
    decode,
    encode,
)

COUPON = {
    "coupon_id": "109519",
    "name": "coupon",
    "scope": "GLOBAL",
    "type": "CASH",
    "amount": 10,
    "stock_id": "931386",
    "wechatpay_contribute": 0,
    "merchant_contribute": 0,
    "other_contribute": 0,
    "currency": "CNY",
    "goods_detail": [
        {
            "goods_id": "M1006",
            "quantity": 1,
            "unit_price": 100,
            "discount_amount": 1,
            "goods_remark": "x",
        }
    ],
}
QUERIED = {
    "refund_id": "50000000382019052709732678859",
    "out_refund_no": "1217752501201407033233368018",
    "transaction_id": "1217752501201407033233368018",
    "out_trade_no": "1217752501201407033233368018",
    "channel": "ORIGINAL",
    "user_received_account": "招商银行信用卡0403",
    "success_time": BEIJING,
    "create_time": BEIJING,
    "status": "SUCCESS",
    "funds_account": "UNSETTLED",
    "amount": {
        "total": 100,
        "refund": 30,
        "from": [{"account": "AVAILABLE", "amount": 30}],
        "payer_total": 90,
        "payer_refund": 27,
        "settlement_refund": 30,
        "settlement_total": 100,
        "discount_refund": 3,
        "currency": "CNY",
        "refund_fee": 1,
    },
    "promotion_detail": [
        {
            "promotion_id": "109519",
            "scope": "GLOBAL",
            "type": "COUPON",
            "amount": 10,
            "refund_amount": 3,
            "goods_detail": [],
        }
    ],
}


def decoded(data: object, kind):
    return decode(json.dumps(data).encode(), kind)


def test_a_transaction_with_every_documented_field_is_read():
    full = transaction(attach="a", scene_info={"device_id": "013467"}, promotion_detail=[COUPON])
    paid = decoded(full, Transaction)
    assert paid.success_time.isoformat() == BEIJING
    assert paid.success_time == datetime(2026, 11, 24, 1, 59, 30, tzinfo=UTC)
    assert (paid.amount.total, paid.amount.payer_currency) == (100, "CNY")
    assert paid.promotion_detail[0].goods_detail[0].discount_amount == 1
    assert paid.scene_info.device_id == "013467"


def test_an_unpaid_transaction_has_little():
    unpaid = decoded(
        {
            "appid": "wx1",
            "mchid": "1",
            "out_trade_no": "T10012",
            "trade_state": "NOTPAY",
            "trade_state_desc": "订单未支付",
            "amount": {"total": 100},
        },
        Transaction,
    )
    assert unpaid.transaction_id is None
    assert unpaid.payer is None


def test_a_refund_with_every_documented_field_is_read():
    done = decoded(QUERIED, Refund)
    assert (done.status, done.amount.refund, done.amount.refund_fee) == ("SUCCESS", 30, 1)
    assert done.promotion_detail[0].refund_amount == 3


def test_a_refund_notice_says_the_same_as_a_query():
    notice = decoded(refund(status="ABNORMAL"), RefundNotice)
    fact = notice.refund()
    assert isinstance(fact, Refund)
    assert (fact.status, fact.out_refund_no, fact.amount.total) == ("ABNORMAL", "R1", 100)
    assert fact.success_time == notice.success_time


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (OrderReply, {"prepay_id": "wx2014"}),
        (BillReply, {"hash_type": "SHA1", "hash_value": "0" * 40, "download_url": "https://x"}),
        (CertificatesReply, {"data": []}),
        (
            CertificatesReply,
            {
                "data": [
                    {
                        "serial_no": "5157",
                        "effective_time": "2026-11-24T10:34:56+08:00",
                        "expire_time": 1795485600,
                        "encrypt_certificate": {
                            "algorithm": "AEAD_AES_256_GCM",
                            "nonce": "61f9c719728a",
                            "associated_data": "certificate",
                            "ciphertext": "sRvt…",
                        },
                    }
                ]
            },
        ),
    ],
)
def test_answers_are_read_and_may_grow(kind, data):
    assert decoded(data, kind) == decoded(data | {"new": {"deep": [None]}}, kind)


@pytest.mark.parametrize(
    ("kind", "data"),
    [(Transaction, transaction()), (Refund, QUERIED), (RefundNotice, refund())],
    ids=["Transaction", "Refund", "RefundNotice"],
)
def test_unknown_fields_are_ignored_at_every_level(kind, data):
    def grown(value):
        if isinstance(value, dict):
            return {name: grown(inner) for name, inner in value.items()} | {"brand_new": [1, {}]}
        return value

    assert decoded(grown(data), kind) == decoded(data, kind)


WRONG_TYPES = [
    ("amount.total", "100"),
    ("amount.total", 100.0),
    ("amount.total", True),
    ("amount.payer_total", []),
    ("amount.currency", 156),
    ("amount", "x"),
    ("payer.openid", 1),
    ("payer", []),
    ("out_trade_no", 10012),
    ("mchid", 1900000001),
    ("success_time", "yesterday"),
    ("success_time", "2026-11-24T09:59:30"),
    ("success_time", 1795485600),
    ("scene_info.device_id", {}),
    ("promotion_detail", {}),
    ("promotion_detail[0].amount", "10"),
    ("promotion_detail[0].goods_detail[0].quantity", 1.5),
]


@pytest.mark.parametrize(("path", "value"), WRONG_TYPES)
def test_a_wrong_type_names_its_json_path(path, value):
    full = transaction(scene_info={"device_id": "1"}, promotion_detail=[json_copy(COUPON)])
    *parents, last = path.replace("[0]", ".0").split(".")
    inner = full = json_copy(full)
    for name in parents:
        inner = inner[int(name) if name.isdigit() else name]
    inner[last] = value
    with pytest.raises(MessageError) as caught:
        decoded(full, Transaction)
    assert caught.value.field == path
    assert f"$.{path}" in str(caught.value)
    assert "Transaction does not decode" in str(caught.value)


@pytest.mark.parametrize("field", ["appid", "mchid", "out_trade_no", "trade_state"])
def test_a_missing_field_is_named(field):
    data = transaction()
    del data[field]
    with pytest.raises(MessageError, match=f"missing required field `{field}`"):
        decoded(data, Transaction)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"null",
        b"[]",
        b"1",
        b"x",
        b"\xff",
        b'{"id": "\xff"}',
        b'{"id": "\\ud800"}',
        b"\xef\xbb\xbf{}",
        b"[" * 1_000_000,
        b'{"resource":' * 100_000,
        b'{"new":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"new":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
        b"9" * 100_000,
        bytes(1000),
    ],
    ids=lambda body: f"{body[:12]!r}, {len(body)} bytes",
)
def test_no_body_does_worse_than_a_message_error(body):
    for kind in (Envelope, Transaction, Refund, CertificatesReply):
        with pytest.raises(MessageError) as caught:
            decode(body, kind)
        assert len(str(caught.value)) < 300


@given(
    st.binary()
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*transaction()]), inner),
    ).map(lambda value: json.dumps(value).encode())
)
def test_decoding_any_bytes_returns_or_raises_message_error(body):
    try:
        decode(body, Transaction)
    except MessageError:
        return


def test_a_time_keeps_its_zone_and_its_fraction():
    paid = decoded(transaction(success_time="2026-11-24T01:59:30.123Z"), Transaction)
    assert paid.success_time == datetime(2026, 11, 24, 1, 59, 30, 123000, tzinfo=UTC)


# What is sent


def minimal(**changes) -> OrderRequest:
    return OrderRequest(
        appid="wx1",
        mchid="1",
        description="茶",
        out_trade_no="T10012",
        notify_url="https://shop.example/n",
        amount=OrderAmount(total=1),
        payer=OrderPayer(openid="o"),
        **changes,
    )


def test_absent_fields_are_left_out_and_never_null():
    body = encode(minimal())
    assert json.loads(body) == {
        "appid": "wx1",
        "mchid": "1",
        "description": "茶",
        "out_trade_no": "T10012",
        "notify_url": "https://shop.example/n",
        "amount": {"total": 1, "currency": "CNY"},
        "payer": {"openid": "o"},
    }
    assert b"null" not in body
    assert "茶".encode() in body


def test_the_same_order_is_the_same_bytes():
    assert encode(minimal(attach="a")) == encode(minimal(attach="a"))
    assert encode(minimal(attach=UNSET)) == encode(minimal())
    assert encode(CloseRequest(mchid="1900000001")) == b'{"mchid":"1900000001"}'


def test_a_misspelt_field_of_what_is_sent_is_an_error():
    with pytest.raises(msgspec.ValidationError, match="unknown field `totl`"):
        msgspec.convert({"total": 1, "totl": 1}, OrderAmount)


def test_what_was_received_cannot_be_changed():
    paid = decoded(transaction(), Transaction)
    with pytest.raises(AttributeError):
        paid.mchid = "1"
    with pytest.raises(AttributeError):
        paid.amount.total = 1


def test_a_resources_repr_does_not_show_its_ciphertext():
    body = {
        "id": "1",
        "event_type": "x",
        "resource": {"algorithm": "AEAD", "ciphertext": "c2VjcmV0", "nonce": "0"},
    }
    assert "c2VjcmV0" not in repr(decoded(body, Envelope))


def json_copy(data):
    return json.loads(json.dumps(data))
