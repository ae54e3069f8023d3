"""Trade bills: when they exist, what is in them, how they are fetched."""

from __future__ import annotations

import gzip
import hashlib
from datetime import timedelta
from urllib.parse import urlsplit

import pytest

from sandbox.gateway_client import GatewayClient, exchange
from wechatpay_kit_sandbox import Sandbox, generate_keys

HOUR = timedelta(hours=1)


class Day:
    """A sandbox whose clock stands at noon of a day, and can be moved to the next."""

    def __init__(self, sandbox):
        sandbox.set_rate(0)
        tomorrow = (sandbox.now() + timedelta(days=1)).replace(
            hour=12, minute=0, second=0, microsecond=0
        )
        sandbox.advance_to(tomorrow)
        self.sandbox = sandbox
        self.date = tomorrow.date().isoformat()
        self.noon = tomorrow


@pytest.fixture
def day(sandbox):
    return Day(sandbox)


def apply(client, date, **query):
    extra = "".join(f"&{name}={value}" for name, value in query.items())
    return client.get(f"/v3/bill/tradebill?bill_date={date}{extra}")


def fetch(client, answer):
    url = urlsplit(answer.json["download_url"])
    return client.get(f"{url.path}?{url.query}")


def rows(content):
    assert content.startswith("\ufeff".encode())
    lines = content.decode("utf-8-sig").split("\r\n")
    assert lines.pop() == ""
    return lines


def trade(sandbox, client, number="T000001", **changes):
    client.place(number, **changes)
    return sandbox.pay(number, notify=False).order


def test_bill_of_a_day_with_a_payment_and_a_refund(day, client):
    order = trade(day.sandbox, client, description="茶, 绿\n热", attach="a,b")
    day.sandbox.advance(HOUR)
    refund = client.refund("T000001", "R1", refund=50).json
    day.sandbox.finish_refund("R1")
    day.sandbox.advance(timedelta(hours=21))
    answer = apply(client, day.date)
    client.verified(answer)
    bill = fetch(client, answer)
    common = f"`{client.appid},`{client.mchid},`0,`,`{order.transaction_id},`T000001,`oPayer,`JSAPI"
    assert answer.json["hash_type"] == "SHA1"
    assert answer.json["hash_value"] == hashlib.sha1(bill.body).hexdigest()
    assert rows(bill.body) == [
        "交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,交易状态,"
        "付款银行,货币种类,应结订单金额,代金券金额,微信退款单号,商户退款单号,退款金额,充值券退款金额,"
        "退款类型,退款状态,商品名称,商户数据包,手续费,费率,订单金额,申请退款金额,费率备注",
        f"`{day.date} 12:00:00,{common},`SUCCESS,`OTHERS,"
        "`CNY,`1.00,`0.00,`0,`0,`0.00,`0.00,`,`,"
        "`茶\\  绿\\n热,`a\\ b,`0.01000,`0.60%,`1.00,`0.00,`",
        f"`{day.date} 13:00:00,{common},`REFUND,`OTHERS,"
        f"`CNY,`0.00,`0.00,`{refund['refund_id']},`R1,`0.50,`0.00,"
        "`ORIGINAL,`SUCCESS,`茶\\  绿\\n热,`a\\ b,`0.00000,`0.60%,`0.00,`0.50,`",
        "总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,申请退款总金额",
        "`2,`1.00,`0.50,`0.00,`0.01000,`1.00,`0.50",
    ]


@pytest.mark.parametrize(
    ("kind", "columns", "summary", "numbers"),
    [
        ("ALL", 27, 7, ["T000001", "T000002", "T000002"]),
        ("SUCCESS", 20, 4, ["T000001", "T000002"]),
        ("REFUND", 29, 7, ["T000002"]),
    ],
)
def test_kinds_of_bills(day, client, kind, columns, summary, numbers):
    trade(day.sandbox, client, "T000001")
    trade(day.sandbox, client, "T000002", amount={"total": 123456})
    client.refund("T000002", "R1", refund=123456, total=123456)
    day.sandbox.advance_to(day.noon + timedelta(hours=22))
    header, *data, summary_header, totals = rows(
        fetch(client, apply(client, day.date, bill_type=kind)).body
    )
    assert len(header.split(",")) == columns
    assert [len(row.split(",`")) for row in data] == [columns] * len(data)
    assert len(summary_header.split(",")) == len(totals.split(",`")) == summary
    position = header.split(",").index("商户订单号")
    assert [row.split(",`")[position] for row in data] == numbers
    assert totals.startswith(f"`{len(data)},")


def test_fees_are_rounded_to_fen_and_given_back_with_refunds(day, client):
    trade(day.sandbox, client, amount={"total": 123456})
    client.refund("T000001", "R1", refund=123456, total=123456)
    day.sandbox.advance_to(day.noon + timedelta(hours=22))
    header, payment, refund, *_ = rows(fetch(client, apply(client, day.date)).body)
    position = header.split(",").index("手续费")
    assert payment.split(",`")[position] == "7.41000"
    assert refund.split(",`")[position] == "-7.41000"


def test_bill_keeps_the_refund_status_of_its_day(day, client):
    trade(day.sandbox, client)
    client.place("T000002")
    client.refund("T000001", "R1")
    day.sandbox.finish_refund("R1", "ABNORMAL")
    day.sandbox.advance_to(day.noon + timedelta(hours=22))
    day.sandbox.finish_refund("R1", "SUCCESS")
    header, _, refund, *_ = rows(fetch(client, apply(client, day.date)).body)
    assert refund.split(",`")[header.split(",").index("退款状态")] == "CHANGE"


def test_gzip_is_compressed_but_hashed_uncompressed(day, client):
    trade(day.sandbox, client)
    day.sandbox.advance_to(day.noon + timedelta(hours=22))
    answer = apply(client, day.date, tar_type="GZIP")
    assert answer.json["download_url"].endswith("&tartype=gzip")
    bill = fetch(client, answer)
    assert "Content-Encoding" not in bill.headers
    content = gzip.decompress(bill.body)
    assert hashlib.sha1(content).hexdigest() == answer.json["hash_value"]


def test_no_bill_before_ten_of_the_next_day(day, client):
    trade(day.sandbox, client)
    today = apply(client, day.date)
    assert (today.status, today.json["code"]) == (400, "INVALID_REQUEST")
    day.sandbox.advance_to(day.noon + timedelta(hours=21, minutes=59, seconds=59))
    early = apply(client, day.date)
    assert (early.status, early.json["code"], early.json["message"]) == (
        400,
        "STATEMENT_CREATING",
        "账单生成中",
    )
    day.sandbox.advance(timedelta(seconds=1))
    assert apply(client, day.date).status == 200


def test_day_without_trade_has_no_bill(day, client):
    client.place("T000001")
    day.sandbox.advance_to(day.noon + timedelta(hours=22))
    answer = apply(client, day.date)
    assert (answer.status, answer.json["code"], answer.json["message"]) == (
        400,
        "NO_STATEMENT_EXIST",
        "请求的账单文件不存在",
    )


def test_days_are_beijing_days(day, client):
    midnight = day.noon + timedelta(hours=12)
    day.sandbox.advance_to(midnight - timedelta(seconds=1))
    trade(day.sandbox, client, "T000001")
    day.sandbox.advance_to(midnight)
    trade(day.sandbox, client, "T000002")
    day.sandbox.advance_to(day.noon + timedelta(days=2))
    for date, number in ((day.date, "T000001"), (midnight.date().isoformat(), "T000002")):
        _, row, _, totals = rows(fetch(client, apply(client, date)).body)
        assert f",`{number}," in row
        assert totals.startswith("`1,")


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?bill_date=20261124",
        "?bill_date=2026-02-30",
        "?bill_date=2020-01-01",
        "?bill_date=2099-01-01",
        "?bill_date=2026-11-01&bill_type=SOME",
        "?bill_date=2026-11-01&tar_type=ZIP",
        "?bill_date=2026-11-01&sub_mchid=1",
    ],
)
def test_application_that_cannot_be_granted(shared_client, query):
    answer = shared_client.get(f"/v3/bill/tradebill{query}")
    assert answer.status == 400
    assert answer.json["code"] in {"PARAM_ERROR", "INVALID_REQUEST"}


@pytest.fixture
def ready(day, client):
    trade(day.sandbox, client)
    day.sandbox.advance_to(day.noon + timedelta(hours=22))
    return apply(client, day.date)


def test_download_is_not_signed(client, ready):
    bill = fetch(client, ready)
    assert bill.status == 200
    assert not [name for name in bill.headers if name.lower().startswith("wechatpay-")]


def test_download_url_names_the_host_that_the_client_asked(client, ready):
    host = f"{client.address.hostname}:{client.address.port}"
    assert ready.json["download_url"].startswith(f"http://{host}/v3/billdownload/file?token=")
    answer = client.get(ready_target(client), headers={"Host": "pay.test:81"})
    assert answer.json["download_url"].startswith("http://pay.test:81/v3/billdownload/file?")


def ready_target(client):
    yesterday = client.control("GET", "/orders").json["orders"][0]["paid_at"][:10]
    return f"/v3/bill/tradebill?bill_date={yesterday}"


def test_download_needs_a_signature(client, ready):
    url = urlsplit(ready.json["download_url"])
    answer = exchange(client.address, "GET", f"{url.path}?{url.query}", b"", {})
    assert (answer.status, answer.json["code"]) == (401, "SIGN_ERROR")


def test_download_url_lives_thirty_real_seconds(keys):
    seconds = [0.0]
    with Sandbox(keys=keys, monotonic=lambda: seconds[0]) as sandbox:
        client = GatewayClient(sandbox.environment())
        day = Day(sandbox)
        trade(sandbox, client)
        sandbox.advance(timedelta(hours=22))
        answer = apply(client, day.date)
        sandbox.advance(timedelta(days=1))
        seconds[0] += 29.9
        assert fetch(client, answer).status == 200
        seconds[0] += 0.1
        expired = fetch(client, answer)
        assert (expired.status, expired.json["code"]) == (400, "INVALID_REQUEST")
        client.verified(expired)


def test_unknown_token(shared_client):
    answer = shared_client.get("/v3/billdownload/file?token=nothing")
    assert (answer.status, answer.json["code"]) == (400, "INVALID_REQUEST")


def test_bill_of_another_merchant_is_refused(sandbox, client, ready):
    other = generate_keys().merchant
    sandbox.merchants[other.mchid] = other
    stranger = GatewayClient(sandbox.environment())
    stranger.mchid, stranger.key = other.mchid, other.private_key
    stranger.env = stranger.env | {"WECHATPAY_SERIAL_NO": other.serial_no}
    answer = fetch(stranger, ready)
    assert (answer.status, answer.json["code"]) == (403, "NO_AUTH")
    assert apply(stranger, ready_target(client)[-10:]).json["code"] == "NO_STATEMENT_EXIST"
