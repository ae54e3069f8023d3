"""Each call sends what APIv3 documents, and hands on nothing that is not proven."""

from __future__ import annotations

import base64
import email
import gc
import gzip
import hashlib
import inspect
import json
import os
import re
import threading
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from core.gateway import Gateway, forged, resets, signed, truncated, unsigned
from core.keys import (
    APPID,
    MCHID,
    NOW,
    PLATFORM_SERIAL,
    PUBLIC_KEY_ID,
    certificate,
    certificates_answer,
    encrypted,
    merchant,
    opened,
    private_key,
    public_pem,
    sealed,
    signed_headers,
)
from core.test_bills import ALL, BOM, PAYMENT, REFUNDED, SUMMARY, TOTALS
from wechatpay_kit import wire
from wechatpay_kit.client import Client, Draft, RefundDraft
from wechatpay_kit.errors import (
    ApiError,
    BillHashMismatchError,
    ConfigError,
    DecryptError,
    InvalidRequestError,
    MessageError,
    NoStatementError,
    OrderNotExistError,
    OutcomeUnknownError,
    ParameterError,
    ResourceNotExistsError,
    SignatureError,
    StatementNotReadyError,
    TransportError,
)
from wechatpay_kit.models import (
    GoodsDetail,
    Identity,
    OrderDetail,
    RefundFrom,
    SceneInfo,
    StoreInfo,
)
from wechatpay_kit.verifier import KeyRing, VerificationKey

if TYPE_CHECKING:
    from pathlib import Path

OPENID = "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"
ORDER = {
    "out_trade_no": "T10010-|*_",
    "total": 100,
    "description": "毛绒公仔 Plush QQ",
    "openid": OPENID,
}
PLACED = signed(b'{"prepay_id": "wx26112209460453c3e0eba2cf47a63d9e0000"}')
TRANSACTION = {
    "appid": APPID,
    "mchid": MCHID,
    "out_trade_no": "T10010",
    "transaction_id": "4200000202611240000000000001",
    "trade_state": "SUCCESS",
    "trade_state_desc": "支付成功",
    "success_time": "2026-11-24T09:59:00+08:00",
    "amount": {"total": 100, "payer_total": 90, "currency": "CNY"},
}
REFUND = {
    "refund_id": "50300002026112400000000000001",
    "out_refund_no": "R1@1",
    "transaction_id": TRANSACTION["transaction_id"],
    "out_trade_no": "T10010",
    "status": "PROCESSING",
    "amount": {"total": 100, "refund": 30},
}


def answer(body: object, status: int = 200, **signing):
    return signed(json.dumps(body).encode(), status, **signing)


def refusal(code: str, status: int = 400):
    return answer({"code": code, "message": "因为"}, status)


def client(url: str = "http://127.0.0.1:9", **options) -> Client:
    mine = merchant(base_url=url, **options.pop("merchant", {}))
    settings = {"clock": lambda: NOW, "sleep": lambda seconds: None, "jitter": lambda: 0.0}
    return Client(mine, **settings | options)


@contextmanager
def calling(*script, **options):
    with Gateway(*script) as gateway:
        caller = client(gateway.url, **options)
        try:
            yield gateway, caller
        finally:
            caller.close()


# Orders


def test_an_order_is_placed_with_what_was_asked_and_no_more():
    with calling(PLACED) as (gateway, caller):
        reply = caller.create_order(**ORDER)
        (request,) = gateway.requests
    assert reply.prepay_id == "wx26112209460453c3e0eba2cf47a63d9e0000"
    assert (request.method, request.target) == ("POST", "/v3/pay/transactions/jsapi")
    assert request.is_signed()
    assert json.loads(request.body) == {
        "appid": APPID,
        "mchid": MCHID,
        "description": "毛绒公仔 Plush QQ",
        "out_trade_no": "T10010-|*_",
        "notify_url": "https://shop.example/wechatpay/notify",
        "amount": {"total": 100, "currency": "CNY"},
        "payer": {"openid": OPENID},
    }


OPTIONS = {
    "appid": "wx0123456789abcdef",
    "currency": "CNY",
    "notify_url": "https://shop.example/other",
    "time_expire": datetime(2026, 11, 24, 2, 30, 0, 999, tzinfo=UTC),
    "attach": "附加",
    "goods_tag": "WXG",
    "limit_pay": ("no_credit",),
    "support_fapiao": True,
    "detail": {
        "cost_price": 100,
        "goods_detail": [GoodsDetail(merchant_goods_id="1246464644", quantity=1, unit_price=100)],
    },
    "scene_info": SceneInfo(payer_client_ip="14.23.150.211", store_info=StoreInfo(id="0001")),
    "profit_sharing": False,
    "trade_type": "JSAPI",
}


def test_every_optional_field_of_an_order_has_its_place():
    body = json.loads(client().draft_order(**ORDER, **OPTIONS).body)
    assert body["appid"] == "wx0123456789abcdef"
    assert body["notify_url"] == "https://shop.example/other"
    assert body["time_expire"] == "2026-11-24T10:30:00+08:00"
    assert (body["attach"], body["goods_tag"]) == ("附加", "WXG")
    assert body["limit_pay"] == ["no_credit"]
    assert body["support_fapiao"] is True
    assert body["detail"] == {
        "cost_price": 100,
        "goods_detail": [{"merchant_goods_id": "1246464644", "quantity": 1, "unit_price": 100}],
    }
    assert body["scene_info"] == {
        "payer_client_ip": "14.23.150.211",
        "store_info": {"id": "0001"},
    }
    assert body["settle_info"] == {"profit_sharing": False}
    assert "trade_type" not in body


def test_structs_and_mappings_say_the_same():
    caller = client()
    detail = OrderDetail(cost_price=100, goods_detail=OPTIONS["detail"]["goods_detail"])
    assert (
        caller.draft_order(**ORDER, **OPTIONS).fingerprint
        == caller.draft_order(**ORDER, **OPTIONS | {"detail": detail}).fingerprint
    )


def test_a_draft_says_what_it_will_send():
    draft = client().draft_order(**ORDER, default_time_expire=NOW + timedelta(minutes=30))
    body = json.loads(draft.body)
    assert draft == Draft(
        number="T10010-|*_",
        body=draft.body,
        serial=None,
        appid=APPID,
        total=100,
        currency="CNY",
        notify_url="https://shop.example/wechatpay/notify",
        time_expire=NOW + timedelta(minutes=30),
        fingerprint=draft.fingerprint,
    )
    assert body["time_expire"] == "2026-11-24T10:30:00+08:00"
    assert OPENID not in repr(draft)


def test_a_default_expiry_moves_and_a_default_address_may_change_but_not_the_fingerprint():
    first = client().draft_order(**ORDER, default_time_expire=NOW + timedelta(minutes=30))
    elsewhere = client(merchant={"notify_url": "https://new.example/notify"})
    later = elsewhere.draft_order(**ORDER, default_time_expire=NOW + timedelta(minutes=31))
    assert first.body != later.body
    assert first.fingerprint == later.fingerprint
    assert re.fullmatch("[0-9a-f]{64}", first.fingerprint)


@pytest.mark.parametrize(
    "change",
    [
        {"total": 101},
        {"openid": "o2"},
        {"description": "x"},
        {"attach": "x"},
        {"appid": "wx2"},
        {"notify_url": "https://shop.example/wechatpay/notify"},
        {"time_expire": NOW + timedelta(minutes=5)},
        {"profit_sharing": True},
        {"identity": {"type": "IDCARD", "number": "1", "name": "x"}},
    ],
)
def test_every_argument_counts_in_the_fingerprint(change):
    caller = client()
    assert (
        caller.draft_order(**ORDER).fingerprint != caller.draft_order(**ORDER | change).fingerprint
    )


IDENTITY = {"type": "IDCARD", "number": "11010119900307001X", "name": "张三"}


@pytest.mark.parametrize("identity", [IDENTITY, Identity(**IDENTITY)])
def test_an_identity_is_sealed_for_the_key_that_the_request_names(identity):
    with calling(PLACED) as (gateway, caller):
        caller.create_order(**ORDER, identity=identity)
        (request,) = gateway.requests
    sent = json.loads(request.body)["payer"]["identity"]
    assert request.headers["wechatpay-serial"] == PUBLIC_KEY_ID
    assert sent["type"] == "IDCARD"
    assert opened("public_key", sent["number"]) == "11010119900307001X"
    assert opened("public_key", sent["name"]) == "张三"


def test_sealing_is_random_but_the_fingerprint_is_of_the_plaintext():
    caller = client()
    first, second = (caller.draft_order(**ORDER, identity=IDENTITY) for _ in range(2))
    assert first.body != second.body
    assert first.fingerprint == second.fingerprint
    assert first.serial == PUBLIC_KEY_ID
    assert "张三" not in repr(first)


@pytest.mark.parametrize(
    "identity",
    [
        IDENTITY | {"number": 110101199003070010},
        IDENTITY | {"name": ""},
        IDENTITY | {"nmae": "张三"},
        Identity(type="IDCARD", number=110101199003070010, name="张三"),
    ],
)
def test_a_wrong_identity_is_refused_without_being_shown(identity):
    with pytest.raises(ParameterError) as caught:
        client().draft_order(**ORDER, identity=identity)
    assert caught.value.field.startswith("identity")
    assert "张三" not in str(caught.value)
    assert "1101" not in str(caught.value)


def test_a_recorded_order_is_sent_again_to_the_byte_with_its_own_key():
    with calling(PLACED) as (gateway, caller):
        draft = caller.draft_order(**ORDER, identity=IDENTITY)
        caller.send_order(draft)
        caller.send_order(body=draft.body, serial="ABC")
        caller.send_order(body=draft.body)
        bodies = {request.body for request in gateway.requests}
        serials = [request.headers["wechatpay-serial"] for request in gateway.requests]
    assert bodies == {draft.body}
    assert serials == [PUBLIC_KEY_ID, "ABC", PUBLIC_KEY_ID]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"out_trade_no": "T1"}, "out_trade_no"),
        ({"out_trade_no": "T10010/.."}, "out_trade_no"),
        ({"total": 0}, "amount.total"),
        ({"total": 1.0}, "amount.total"),
        ({"total": True}, "amount.total"),
        ({"openid": ""}, "payer.openid"),
        ({"description": "🎉"}, "description"),
        ({"currency": "USD"}, "amount.currency"),
        ({"notify_url": "https://shop.example/?x=1"}, "notify_url"),
        ({"trade_type": "NATIVE"}, "trade_type"),
        ({"limit_pay": "no_credit"}, "limit_pay"),
        ({"limit_pay": ["no_fun"]}, "limit_pay[0]"),
        ({"time_expire": datetime(2026, 11, 24, 2, 30)}, "time_expire"),  # noqa: DTZ001
        ({"time_expire": "2026-11-24T10:30:00+08:00"}, "time_expire"),
        ({"time_expire": NOW + timedelta(days=7, seconds=1)}, "time_expire"),
        ({"detail": {"goods_details": []}}, "detail"),
        ({"profit_sharing": "yes"}, "settle_info.profit_sharing"),
    ],
)
def test_an_order_that_breaks_a_rule_is_not_sent(change, field):
    with calling(PLACED) as (gateway, caller):
        with pytest.raises(ParameterError) as caught:
            caller.create_order(**ORDER | change)
        assert gateway.requests == []
    assert caught.value.field == field


def test_an_order_needs_an_address_to_be_notified_at():
    with pytest.raises(ParameterError, match="WECHATPAY_NOTIFY_URL"):
        client(merchant={"notify_url": None}).draft_order(**ORDER)


def test_a_misspelt_argument_names_the_nearest():
    with pytest.raises(TypeError, match="did you mean attach"):
        client().create_order(**ORDER, atach="x")
    with pytest.raises(TypeError, match="no argument 'zzz'"):
        client().create_refund(out_refund_no="R1", refund=1, total=1, zzz="x")


def test_an_order_in_doubt_is_repeated_and_then_unknown():
    with calling(resets) as (gateway, caller):
        with pytest.raises(OutcomeUnknownError):
            caller.create_order(**ORDER)
        assert len({request.body for request in gateway.requests}) == 1
        assert len(gateway.requests) == 3


def test_parameters_for_the_front_end_are_signed_now():
    params = client().request_payment("wx2611", appid="wx0123456789abcdef")
    message = f"wx0123456789abcdef\n{params['timeStamp']}\n{params['nonceStr']}\nprepay_id=wx2611\n"
    private_key("merchant").public_key().verify(
        base64.b64decode(params["paySign"]), message.encode(), PKCS1v15(), SHA256()
    )
    assert params["timeStamp"] == str(int(NOW.timestamp()))
    assert re.fullmatch("[0-9A-Za-z]{32}", params["nonceStr"])
    assert (params["package"], params["signType"]) == ("prepay_id=wx2611", "RSA")
    assert client().request_payment("wx1")["nonceStr"] != params["nonceStr"]


# Query and close


def test_an_order_is_queried_by_either_number():
    with calling(answer(TRANSACTION)) as (gateway, caller):
        transaction = caller.query_order(out_trade_no="T10010")
        same = caller.query_order(transaction_id=TRANSACTION["transaction_id"], timeout=30)
        targets = [request.target for request in gateway.requests]
    assert transaction == same
    assert (transaction.trade_state, transaction.amount.payer_total) == ("SUCCESS", 90)
    assert targets == [
        f"/v3/pay/transactions/out-trade-no/T10010?mchid={MCHID}",
        f"/v3/pay/transactions/id/4200000202611240000000000001?mchid={MCHID}",
    ]


def test_odd_characters_of_a_number_are_encoded_once():
    with calling(answer(TRANSACTION | {"out_trade_no": "T10010|*-_"})) as (gateway, caller):
        caller.query_order(out_trade_no="T10010|*-_")
        (request,) = gateway.requests
    assert request.target == f"/v3/pay/transactions/out-trade-no/T10010%7C%2A-_?mchid={MCHID}"
    assert request.is_signed()


@pytest.mark.parametrize(
    "numbers",
    [
        {},
        {"out_trade_no": "T10010", "transaction_id": "42"},
        {"out_trade_no": "../../certificates"},
        {"out_trade_no": ""},
        {"transaction_id": "42/../x"},
        {"transaction_id": 42},
    ],
)
def test_a_query_takes_exactly_one_number_that_an_order_can_have(numbers):
    with pytest.raises(ParameterError):
        client().query_order(**numbers)


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        ({"out_trade_no": "T10020"}, {"out_trade_no": "T10010"}),
        ({"mchid": "1900000002"}, {"out_trade_no": "T10010"}),
        ({"transaction_id": "43"}, {"transaction_id": "42"}),
        ({"transaction_id": None}, {"transaction_id": "42"}),
    ],
)
def test_an_answer_of_another_order_is_refused(change, asked):
    with (
        calling(answer(TRANSACTION | change)) as (_, caller),
        pytest.raises(MessageError) as caught,
    ):
        caller.query_order(**asked)
    assert caught.value.field in change


def test_an_order_that_does_not_exist():
    with (
        calling(refusal("ORDER_NOT_EXIST", 404)) as (_, caller),
        pytest.raises(OrderNotExistError),
    ):
        caller.query_order(out_trade_no="T10010")


def test_a_forged_answer_is_never_read():
    with calling(forged(json.dumps(TRANSACTION).encode())) as (_, caller):
        with pytest.raises(SignatureError):
            caller.query_order(out_trade_no="T10010")
        with pytest.raises(OutcomeUnknownError):
            caller.close_order("T10010")


def test_an_order_is_closed():
    with calling(signed(b"", 204)) as (gateway, caller):
        assert caller.close_order("T10010|1") is None
        (request,) = gateway.requests
    assert request.target == "/v3/pay/transactions/out-trade-no/T10010%7C1/close"
    assert json.loads(request.body) == {"mchid": MCHID}
    assert request.is_signed()


def test_a_close_in_doubt_is_repeated():
    with calling(resets, signed(b"", 204)) as (gateway, caller):
        caller.close_order("T10010")
        assert len(gateway.requests) == 2


# Refunds


def test_a_refund_is_sent_with_what_was_asked_and_no_more():
    with calling(answer(REFUND)) as (gateway, caller):
        refund = caller.create_refund(
            out_refund_no="R1@1", refund=30, total=100, out_trade_no="T10010"
        )
        (request,) = gateway.requests
    assert (refund.status, refund.amount.refund) == ("PROCESSING", 30)
    assert request.target == "/v3/refund/domestic/refunds"
    assert json.loads(request.body) == {
        "out_refund_no": "R1@1",
        "out_trade_no": "T10010",
        "notify_url": "https://shop.example/wechatpay/notify",
        "amount": {"refund": 30, "total": 100, "currency": "CNY"},
    }


def test_every_optional_field_of_a_refund_has_its_place():
    draft = client(merchant={"notify_url": None}).draft_refund(
        out_refund_no="R1@1",
        refund=30,
        total=100,
        transaction_id="4200",
        reason="退货",
        funds_account="AVAILABLE",
        currency="CNY",
        from_accounts=[
            RefundFrom(account="AVAILABLE", amount=10),
            {"account": "UNAVAILABLE", "amount": 20},
        ],
        goods_detail=[
            {
                "merchant_goods_id": "1",
                "unit_price": 30,
                "refund_amount": 30,
                "refund_quantity": 1,
            }
        ],
    )
    assert json.loads(draft.body) == {
        "out_refund_no": "R1@1",
        "transaction_id": "4200",
        "reason": "退货",
        "funds_account": "AVAILABLE",
        "amount": {
            "refund": 30,
            "total": 100,
            "currency": "CNY",
            "from": [
                {"account": "AVAILABLE", "amount": 10},
                {"account": "UNAVAILABLE", "amount": 20},
            ],
        },
        "goods_detail": [
            {"merchant_goods_id": "1", "unit_price": 30, "refund_amount": 30, "refund_quantity": 1}
        ],
    }
    assert draft == RefundDraft(
        number="R1@1",
        body=draft.body,
        out_trade_no=None,
        transaction_id="4200",
        refund=30,
        total=100,
        currency="CNY",
        notify_url=None,
        fingerprint=draft.fingerprint,
    )


def test_a_refunds_fingerprint_is_of_its_own_arguments():
    asked = {"out_refund_no": "R1", "refund": 30, "total": 100, "out_trade_no": "T10010"}
    first = client().draft_refund(**asked)
    elsewhere = client(merchant={"notify_url": None})
    assert elsewhere.draft_refund(**asked).fingerprint == first.fingerprint
    assert client().draft_refund(**asked | {"refund": 31}).fingerprint != first.fingerprint
    own = client().draft_refund(**asked, notify_url="https://shop.example/wechatpay/notify")
    assert own.fingerprint != first.fingerprint
    assert own.body == first.body
    assert repr(first) == "RefundDraft('R1', refund=30, total=100)"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"out_refund_no": "R 1"}, "out_refund_no"),
        ({"refund": 101}, "amount.refund"),
        ({"refund": 0}, "amount.refund"),
        ({"transaction_id": "42"}, "out_trade_no"),
        ({"from_accounts": [{"account": "AVAILABLE", "amount": 1}]}, "amount.from"),
        ({"from_accounts": [{"account": "MINE", "amount": 30}]}, "from_accounts[0]"),
        ({"goods_detail": {"merchant_goods_id": "1"}}, "goods_detail"),
    ],
)
def test_a_refund_that_breaks_a_rule_is_not_sent(change, field):
    asked = {"out_refund_no": "R1", "refund": 30, "total": 100, "out_trade_no": "T10010"}
    with pytest.raises(ParameterError) as caught:
        client().create_refund(**asked | change)
    assert caught.value.field == field


def test_a_refund_needs_its_order():
    with pytest.raises(ParameterError, match="exactly one"):
        client().create_refund(out_refund_no="R1", refund=1, total=1)


def test_a_recorded_refund_is_sent_again_to_the_byte():
    with calling(answer(REFUND)) as (gateway, caller):
        draft = caller.draft_refund(
            out_refund_no="R1@1", refund=30, total=100, out_trade_no="T10010"
        )
        assert caller.send_refund(draft) == caller.send_refund(body=draft.body)
        assert {request.body for request in gateway.requests} == {draft.body}


def test_a_refund_is_queried_and_must_be_the_one_asked_for():
    with calling(answer(REFUND)) as (gateway, caller):
        assert caller.query_refund("R1@1").status == "PROCESSING"
        assert gateway.requests[0].target == "/v3/refund/domestic/refunds/R1%401"
        with pytest.raises(MessageError, match="asked was 'R2'"):
            caller.query_refund("R2")
        with pytest.raises(MessageError, match="asked was 'R3'"):
            caller.create_refund(out_refund_no="R3", refund=30, total=100, out_trade_no="T10010")
        with pytest.raises(ParameterError):
            caller.query_refund("R/2")
    with (
        calling(refusal("RESOURCE_NOT_EXISTS", 404)) as (_, caller),
        pytest.raises(ResourceNotExistsError),
    ):
        caller.query_refund("R1@1")


# Bills

DAY = date(2026, 11, 23)
BILL = "".join(f"{line}\r\n" for line in [BOM + ALL, PAYMENT, REFUNDED, SUMMARY, TOTALS]).encode()
SHA1 = hashlib.sha1(BILL).hexdigest()


class Bills:
    """The bill's two calls: the application and the file; ``files`` are answers in turn."""

    def __init__(self, *files, **reply):
        self.files = list(files) or [unsigned(gzip.compress(BILL))]
        self.reply = reply
        self.applied: list[str] = []
        self.url = ""

    def __call__(self, request, sock):
        if request.target.startswith("/v3/bill/tradebill"):
            self.applied.append(request.target)
            url = f"http://{request.headers['host']}/v3/billdownload/file?token={len(self.applied)}"
            reply = {"hash_type": "SHA1", "hash_value": SHA1, "download_url": url} | self.reply
            answer(reply)(request, sock)
        else:
            assert request.is_signed()
            assert request.target == f"/v3/billdownload/file?token={len(self.applied)}"
            (self.files.pop(0) if len(self.files) > 1 else self.files[0])(request, sock)


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("case", [str.upper, str.lower])
def test_a_bill_is_downloaded(compressed, case, tmp_path):
    file = unsigned(gzip.compress(BILL) if compressed else BILL)
    bills = Bills(file, hash_value=case(SHA1))
    with calling(bills) as (_, caller):
        bill = caller.trade_bill(DAY, bill_type="ALL", compressed=compressed)
        assert bills.applied == []
        path = bill.download(tmp_path / "bill.csv")
    assert path == tmp_path / "bill.csv"
    assert path.read_bytes() == BILL
    assert left_in(tmp_path) == ["bill.csv"]
    zipped = "&tar_type=GZIP" if compressed else ""
    assert bills.applied == [f"/v3/bill/tradebill?bill_date=2026-11-23&bill_type=ALL{zipped}"]


def test_a_bill_replaces_an_older_file_and_only_its_owner_reads_it(tmp_path):
    (tmp_path / "bill.csv").write_text("old")
    with calling(Bills()) as (_, caller):
        caller.trade_bill(DAY).download(str(tmp_path / "bill.csv"))
    assert (tmp_path / "bill.csv").read_bytes() == BILL
    assert (tmp_path / "bill.csv").stat().st_mode & 0o077 == 0 or os.name != "posix"


def test_rows_come_after_the_hash_was_proven():
    bills = Bills()
    with calling(bills) as (_, caller):
        rows = caller.trade_bill(DAY).rows()
        assert [row.trade_state for row in rows] == ["SUCCESS", "REFUND"]
        assert rows.summary.rows == 2
        assert len(list(caller.trade_bill(DAY).rows())) == 2
        assert len(bills.applied) == 2


def test_rows_that_are_dropped_leave_no_open_file():
    with calling(Bills()) as (_, caller):
        for taken in range(3):
            rows = caller.trade_bill(DAY).rows()
            for _ in range(taken):
                next(rows)
            lines = inspect.getgeneratorlocals(rows._rows)["lines"]
            file = inspect.getgeneratorlocals(lines)["file"]
            assert not file.closed
            del rows, lines
            gc.collect()
            assert file.closed


SPOILT = {
    "another content": unsigned(gzip.compress(BILL + b"x")),
    "no gzip": unsigned(BILL),
    "gzip cut short": unsigned(gzip.compress(BILL)[:-9]),
    "gzip checksum": unsigned(gzip.compress(BILL)[:-8] + b"12345678"),
    "gzip and more": unsigned(gzip.compress(BILL) + b"garbage"),
    "gzip and a second": unsigned(gzip.compress(BILL) + gzip.compress(b"more")),
    "nothing": unsigned(b""),
}


@pytest.mark.parametrize("file", SPOILT.values(), ids=SPOILT.keys())
def test_a_bill_that_is_not_the_announced_one_leaves_nothing(file, tmp_path):
    (tmp_path / "bill.csv").write_text("old")
    with calling(Bills(file)) as (_, caller):
        with pytest.raises(BillHashMismatchError):
            caller.trade_bill(DAY).download(tmp_path / "bill.csv")
        with pytest.raises(BillHashMismatchError):
            caller.trade_bill(DAY).rows()
    assert left_in(tmp_path) == ["bill.csv"]
    assert (tmp_path / "bill.csv").read_text() == "old"


def test_trailing_garbage_in_a_later_read_is_found_too(tmp_path):
    def late(request, sock):
        body = gzip.compress(BILL)
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body) + 4}\r\n\r\n".encode()
        sock.sendall(head + body)
        gate.wait(10)
        sock.sendall(b"late")

    gate = threading.Event()
    chunks = wire.chunks

    def chunks_then_open(response):
        for chunk in chunks(response):
            yield chunk
            gate.set()

    with pytest.MonkeyPatch.context() as patch, calling(Bills(late)) as (_, caller):
        patch.setattr("wechatpay_kit.transport.chunks", chunks_then_open)
        with pytest.raises(BillHashMismatchError, match="after its end"):
            caller.trade_bill(DAY).download(tmp_path / "bill.csv")
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("file", [truncated(gzip.compress(BILL)), refusal("NO_AUTH", 403)])
def test_a_bill_that_does_not_come_leaves_nothing(file, tmp_path):
    with calling(Bills(file)) as (_, caller):
        with pytest.raises((TransportError, ApiError)):
            caller.trade_bill(DAY).download(tmp_path / "bill.csv")
        assert left_in(tmp_path) == []


def test_an_expired_url_is_applied_for_once_more(tmp_path):
    bills = Bills(refusal("INVALID_REQUEST"), unsigned(gzip.compress(BILL)))
    with calling(bills) as (_, caller):
        caller.trade_bill(DAY).download(tmp_path / "bill.csv")
    assert len(bills.applied) == 2

    bills = Bills(refusal("INVALID_REQUEST"))
    with calling(bills) as (_, caller), pytest.raises(InvalidRequestError):
        caller.trade_bill(DAY).download(tmp_path / "other.csv")
    assert len(bills.applied) == 2
    assert left_in(tmp_path) == ["bill.csv"]


@pytest.mark.parametrize(
    ("reply", "field"),
    [
        ({"hash_type": "MD5"}, "hash_type"),
        ({"hash_value": "x" * 40}, "hash_type"),
        ({"download_url": "https://evil.example/v3/billdownload/file?token=1"}, "download_url"),
        ({"download_url": "http://api.mch.weixin.qq.com/v3/billdownload/file"}, "download_url"),
        ({"download_url": "https://api.mch.weixin.qq.com:8443/x"}, "download_url"),
        ({"download_url": "https://api.mch.weixin.qq.com@evil.example/x"}, "download_url"),
        ({"download_url": "https://user@api.mch.weixin.qq.com/x"}, "download_url"),
        ({"download_url": "http://127.0.0.1:1/x"}, "download_url"),
        ({"download_url": "file:///etc/passwd"}, "download_url"),
        ({"download_url": "https://[::1/x"}, "download_url"),
        ({"download_url": "https://api.mch.weixin.qq.com:x/"}, "download_url"),
        ({"download_url": ""}, "download_url"),
        ({"hash_value": None}, "hash_value"),
    ],
)
def test_a_bill_is_fetched_from_the_gateway_alone_and_by_a_hash_that_can_be_checked(
    reply, field, tmp_path
):
    bills = Bills(lambda request, sock: pytest.fail("fetched"), **reply)
    with calling(bills) as (_, caller), pytest.raises(MessageError) as caught:
        caller.trade_bill(DAY).download(tmp_path / "bill.csv")
    assert caught.value.field == field
    assert left_in(tmp_path) == []


def test_official_hosts_and_the_backup_are_the_gateway_too(monkeypatch):
    asked = []

    def download(self, target, *, host):
        asked.append((host, target))
        raise TransportError("not in a test")

    monkeypatch.setattr("wechatpay_kit.transport.Transport.download", download)
    urls = [
        "https://api.mch.weixin.qq.com/v3/billdownload/file?token=a&tartype=gzip",
        "https://api2.wechatpay.cn:443/f",
        "http://localhost:1/f",
    ]
    for url in urls:
        bills = Bills(download_url=url)
        backup = {"backup_url": "http://localhost:1"}
        with calling(bills, merchant=backup) as (_, caller), pytest.raises(TransportError):
            caller.trade_bill(DAY).rows()
    assert asked == [
        ("https://api.mch.weixin.qq.com", "/v3/billdownload/file?token=a&tartype=gzip"),
        ("https://api2.wechatpay.cn:443", "/f"),
        ("http://localhost:1", "/f"),
    ]


def at(text: str):
    return lambda: datetime.fromisoformat(f"{text}+08:00")


@pytest.mark.parametrize(
    ("now", "day", "ready"),
    [
        ("2026-11-24T09:59:59", DAY, False),
        ("2026-11-24T10:00:00", DAY, True),
        ("2026-11-24T23:59:59", date(2026, 11, 24), False),
        ("2026-11-25T00:00:00", date(2026, 11, 24), False),
        ("2026-11-24T10:00:00", date(2026, 12, 24), False),
        ("2026-11-24T10:00:00", date(2026, 1, 1), True),
    ],
)
def test_a_bill_is_there_from_ten_of_the_next_beijing_day(now, day, ready):
    caller = client(business_clock=at(now))
    if ready:
        assert caller.trade_bill(day).day == day
        return
    with pytest.raises(StatementNotReadyError) as caught:
        caller.trade_bill(day)
    tomorrow = day + timedelta(days=1)
    assert caught.value.ready_at == datetime.fromisoformat(f"{tomorrow}T10:00:00+08:00")


def test_the_day_is_checked_again_when_the_bill_is_fetched():
    now = [datetime.fromisoformat("2026-11-24T10:00:00+08:00")]
    bill = client(business_clock=lambda: now[0]).trade_bill(DAY)
    now[0] -= timedelta(seconds=1)
    with pytest.raises(StatementNotReadyError):
        bill.rows()


def test_a_bill_that_the_gateway_still_makes_says_when_to_come_back():
    with (
        calling(refusal("STATEMENT_CREATING")) as (_, caller),
        pytest.raises(StatementNotReadyError) as caught,
    ):
        caller.trade_bill(DAY).rows()
    assert caught.value.ready_at == NOW + timedelta(minutes=30)


def test_a_day_without_trade_has_no_bill():
    with calling(refusal("NO_STATEMENT_EXIST")) as (_, caller), pytest.raises(NoStatementError):
        caller.trade_bill(DAY).rows()


@pytest.mark.parametrize("day", [NOW, "2026-11-23", None])
def test_a_day_is_a_date(day):
    with pytest.raises(ParameterError):
        client().trade_bill(day)


def test_a_bills_type_and_its_file_are_checked_first(tmp_path):
    with pytest.raises(ParameterError, match="ALL, SUCCESS, REFUND"):
        client().trade_bill(DAY, bill_type="all")
    with pytest.raises(ParameterError, match="folder"):
        client().trade_bill(DAY).download(tmp_path)
    assert repr(client().trade_bill(DAY)) == "TradeBill(2026-11-23, 'ALL')"


def test_a_bill_is_not_begun_in_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(FileNotFoundError):
        client().trade_bill(DAY).download(tmp_path / "none" / "bill.csv")


# Certificates

CERTIFICATE_MODE = {"public_key": None, "public_key_id": None}
OTHER_SERIAL = "5157F09EFDC096DE15EBE81A47057A7232F1B8E2"


def certificates(*pems: bytes, owner="platform", serial=PLATFORM_SERIAL, **changes):
    return signed(certificates_answer(*pems, **changes), owner=owner, serial=serial)


@contextmanager
def bootstrapping(*script, keys=None):
    def never():
        pytest.fail("asked for keys while fetching them")

    with calling(
        *script, merchant=CERTIFICATE_MODE, keys=keys or KeyRing(), on_unknown_key=never
    ) as (gateway, caller):
        yield gateway, caller


def test_certificates_are_decrypted_and_prove_themselves():
    pems = certificate(), certificate("stranger", OTHER_SERIAL)
    with bootstrapping(certificates(*pems)) as (gateway, caller):
        keys = caller.platform_certificates(timeout=30)
        assert gateway.requests[0].target == "/v3/certificates"
        assert caller.keys.serials == ()
    assert [key.serial for key in keys] == [PLATFORM_SERIAL, OTHER_SERIAL]


def test_certificates_may_be_signed_by_a_key_that_is_held():
    ring = KeyRing([VerificationKey.from_public_key(PUBLIC_KEY_ID, public_pem("public_key"))])
    script = certificates(certificate(), owner="public_key", serial=PUBLIC_KEY_ID)
    with bootstrapping(script, keys=ring) as (_, caller):
        assert len(caller.platform_certificates()) == 1


def test_a_serial_is_compared_without_case_and_leading_zeros():
    serial = f"00AB{'1' * 36}"
    answers = certificates(certificate(serial=serial), serial=serial, serial_no=serial.lower())
    with bootstrapping(answers) as (_, caller):
        assert len(caller.platform_certificates()) == 1


FAILING = {
    "signed by another": (
        [certificates(certificate(), owner="stranger")],
        SignatureError,
        2,
    ),
    "signed by nobody known": (
        [certificates(certificate(), serial=OTHER_SERIAL)],
        SignatureError,
        2,
    ),
    "unsigned": ([unsigned(certificates_answer(certificate()))], SignatureError, 2),
    "a probe, once": (
        [certificates(certificate(), owner="stranger"), certificates(certificate())],
        None,
        2,
    ),
    "expired": (
        [certificates(certificate(not_after=NOW - timedelta(days=1)))],
        SignatureError,
        2,
    ),
    "listed as another": (
        [certificates(certificate(), serial_no=OTHER_SERIAL)],
        MessageError,
        1,
    ),
    "two in one": (
        [
            certificates(
                certificate(),
                encrypt_certificate=encrypted(certificate() * 2, associated_data="certificate"),
            )
        ],
        MessageError,
        1,
    ),
    "no certificate": (
        [certificates(certificate(), encrypt_certificate=encrypted(b"PEM"))],
        MessageError,
        1,
    ),
    "another APIv3 key": (
        [certificates(certificate(), encrypt_certificate=encrypted(b"x", apiv3_key=b"k" * 32))],
        DecryptError,
        1,
    ),
    "another shape": ([signed(b'{"data": 1}')], MessageError, 1),
    "none": ([refusal("RESOURCE_NOT_EXISTS", 404)], ResourceNotExistsError, 1),
}


@pytest.mark.parametrize(("script", "error", "requests"), FAILING.values(), ids=FAILING.keys())
def test_certificates_that_are_not_proven_are_not_returned(script, error, requests):
    with bootstrapping(*script) as (gateway, caller):
        if error is None:
            assert len(caller.platform_certificates()) == 1
        else:
            with pytest.raises(error):
                caller.platform_certificates()
        assert len(gateway.requests) == requests


# Sensitive fields


def test_a_sealer_seals_for_the_key_that_it_names():
    sealer = client().sealer()
    assert sealer.serial == PUBLIC_KEY_ID
    assert opened("public_key", sealer.seal("张三")) == "张三"
    with pytest.raises(ParameterError):
        sealer.seal("x" * 215)


def test_a_key_to_seal_with_is_asked_for_once():
    ring, asked = KeyRing(), []

    def fetch():
        asked.append(1)
        ring.add(*VerificationKey.from_certificates(certificate()))
        return True

    caller = client(merchant=CERTIFICATE_MODE, keys=ring, on_unknown_key=fetch)
    assert caller.sealer().serial == PLATFORM_SERIAL
    assert caller.sealer().serial == PLATFORM_SERIAL
    assert len(asked) == 1


@pytest.mark.parametrize("says", [True, False])
def test_without_a_key_nothing_is_sealed(says):
    caller = client(merchant=CERTIFICATE_MODE, keys=KeyRing(), on_unknown_key=lambda: says)
    with pytest.raises(ConfigError, match="encrypt"):
        caller.draft_order(**ORDER, identity=IDENTITY)


def test_a_sealed_answer_field_is_opened_with_the_merchants_key():
    assert client().open_sealed(sealed("merchant", "张三")) == "张三"
    with pytest.raises(DecryptError):
        client().open_sealed(sealed("stranger", "张三"))


# Media, and any other call


@pytest.mark.parametrize(
    ("upload", "name", "target", "kind"),
    [
        (Client.upload_image, "店.JPG", "/v3/merchant/media/upload", "image/jpeg"),
        (Client.upload_video, "a.mp4", "/v3/merchant/media/video_upload", "video/mp4"),
        (
            Client.upload_video,
            "a.rmvb",
            "/v3/merchant/media/video_upload",
            "application/octet-stream",
        ),
    ],
)
def test_an_upload_carries_meta_and_file_and_signs_the_meta(upload, name, target, kind):
    content = bytes(range(256)) + b"\r\n--wechatpay-kit"
    with calling(answer({"media_id": "m-1"})) as (gateway, caller):
        assert upload(caller, name, content) == "m-1"
        (request,) = gateway.requests
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    meta, file = email.message_from_bytes(head + request.body).get_payload()
    assert request.target == target
    assert meta.get_content_type() == "application/json"
    assert json.loads(meta.get_payload(decode=True)) == {
        "filename": name,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    assert request.is_signed(signed_body=meta.get_payload(decode=True))
    assert file.get_content_type() == kind
    assert file.get_payload(decode=True) == content
    assert f'form-data; name="file"; filename="{name}"'.encode() in request.body


@pytest.mark.parametrize(
    ("upload", "name", "content"),
    [
        (Client.upload_image, "a.gif", b"x"),
        (Client.upload_image, "jpg", b""),
        (Client.upload_image, "a.jpg", b""),
        (Client.upload_image, "a.jpg", bytes(2 * 1024 * 1024 + 1)),
        (Client.upload_image, 'a"\r\nX: y.jpg', b"x"),
        (Client.upload_image, "../a.jpg", b"x"),
        (Client.upload_image, "a" * 125 + ".jpg", b"x"),
        (Client.upload_video, "a.jpg", b"x"),
        (Client.upload_video, "a.mp4", bytes(5 * 1024 * 1024 + 1)),
    ],
)
def test_a_file_that_the_gateway_would_refuse_is_not_sent(upload, name, content):
    with pytest.raises(ParameterError):
        upload(client(), name, content)


def test_any_other_call_is_signed_and_verified_the_same_way():
    with calling(answer({"ok": True})) as (gateway, caller):
        reply = caller.request("post", "/v3/x", json={"name": "张三"}, serial="ABC")
        got = caller.request("GET", "/v3/x?a=1", query={"b": "c d", "c": "毛"})
        raw = caller.request("PUT", "/v3/x", body=b"raw")
        requests = gateway.requests
    assert reply.json() == got.json() == raw.json() == {"ok": True}
    assert reply.verified
    assert all(request.is_signed() for request in requests)
    assert [request.method for request in requests] == ["POST", "GET", "PUT"]
    assert json.loads(requests[0].body) == {"name": "张三"}
    assert requests[0].headers["wechatpay-serial"] == "ABC"
    assert requests[1].target == "/v3/x?a=1&b=c%20d&c=%E6%AF%9B"
    assert requests[2].body == b"raw"


def test_another_call_that_may_change_something_is_not_repeated_unasked():
    with calling(unsigned(b"{}", 500)) as (gateway, caller):
        with pytest.raises(OutcomeUnknownError):
            caller.request("POST", "/v3/x", json={})
        assert len(gateway.requests) == 1
        with pytest.raises(OutcomeUnknownError):
            caller.request("POST", "/v3/x", json={}, idempotent=True)
        assert len(gateway.requests) == 4


@pytest.mark.parametrize(
    "arguments", [{"json": {}, "body": b""}, {"serial": "a\r\nb"}, {"serial": ""}]
)
def test_arguments_that_contradict_are_refused(arguments):
    with pytest.raises(ParameterError):
        client().request("POST", "/v3/x", **arguments)


def test_a_client_shows_no_secret_and_has_working_clocks():
    caller = Client(merchant())
    assert "PRIVATE" not in repr(caller)
    assert MCHID in repr(caller)
    assert caller.trade_bill(date(2020, 1, 1)).day == date(2020, 1, 1)
    assert len(signed_headers(b"")) == 5
