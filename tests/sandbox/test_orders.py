"""Placing, querying and closing orders, in the real gateway's codes and words."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from sandbox.gateway_client import GatewayClient
from wechatpay_kit_sandbox import ControlError, Sandbox

JSAPI = "/v3/pay/transactions/jsapi"
DIFFERS = "请求重入时，参数与首次请求时不一致"


def refused(answer):
    return answer.status, answer.json["code"], answer.json["message"]


def test_order_is_answered_with_a_prepay_id(shared_client, number):
    answer = shared_client.place(number)
    assert answer.status == 200
    prepay_id = answer.json["prepay_id"]
    assert prepay_id.startswith("wx20")
    assert len(prepay_id) == 36


def test_same_order_again_gets_a_new_prepay_id(shared_client, number):
    first = shared_client.place(number, attach="a", amount={"total": 100})
    again = shared_client.place(number, amount={"currency": "CNY", "total": 100}, attach="a")
    assert again.status == 200
    assert again.json["prepay_id"] != first.json["prepay_id"]


@pytest.mark.parametrize(
    "change",
    [
        {"amount": {"total": 101}},
        {"description": "红茶"},
        {"attach": "a"},
        {"payer": {"openid": "oOther"}},
        {"notify_url": "http://127.0.0.1:1/other"},
    ],
)
def test_same_number_with_other_parameters_is_refused(shared_client, number, change):
    shared_client.place(number)
    answer = shared_client.place(number, **change)
    assert refused(answer) == (400, "INVALID_REQUEST", DIFFERS)


def test_time_expire_counts_on_the_first_call_only(sandbox, client):
    soon = (sandbox.now() + timedelta(hours=1)).isoformat(timespec="seconds")
    later = (sandbox.now() + timedelta(hours=2)).isoformat(timespec="seconds")
    assert client.place("T000001", time_expire=soon).status == 200
    assert client.place("T000001", time_expire=later).status == 200
    assert sandbox.order("T000001").time_expire.isoformat() == soon


def test_paid_order_cannot_be_placed_again(shared_sandbox, shared_client, number):
    shared_client.place(number)
    shared_sandbox.pay(number, notify=False)
    assert refused(shared_client.place(number)) == (400, "ORDERPAID", "该订单已支付")


def test_closed_order_cannot_be_placed_again(shared_client, number):
    shared_client.place(number)
    assert shared_client.close(number).status == 204
    assert shared_client.place(number).json["code"] == "ORDER_CLOSED"


def test_another_merchants_body_is_refused(shared_client, number):
    assert refused(shared_client.place(number, mchid="1900000001")) == (
        400,
        "PARAM_ERROR",
        "http header中的mchid与post payload中的mchid不匹配",
    )
    answer = shared_client.post(
        f"/v3/pay/transactions/out-trade-no/{number}/close", {"mchid": "1900000001"}
    )
    assert answer.json["code"] == "PARAM_ERROR"


def test_appid_of_another_merchant_is_refused(shared_client, number):
    answer = shared_client.place(number, appid="wx0000000000000000")
    assert (answer.status, answer.json["code"]) == (400, "APPID_MCHID_NOT_MATCH")


TRADE_NO = "输入源“/body/out_trade_no”映射到值字段“商户订单号”字符串规则校验失败，"


@pytest.mark.parametrize(
    ("change", "field", "value", "message"),
    [
        (
            {"out_trade_no": "T 00001"},
            "/out_trade_no",
            "T 00001",
            TRADE_NO + r"字符串必须匹配正则表达式“^[0-9a-zA-Z_\-\|\*]+$”",
        ),
        (
            {"out_trade_no": "T000001\n"},
            "/out_trade_no",
            "T000001\n",
            TRADE_NO + r"字符串必须匹配正则表达式“^[0-9a-zA-Z_\-\|\*]+$”",
        ),
        ({"out_trade_no": "T0001"}, "/out_trade_no", "T0001", TRADE_NO + "字符数 5，小于最小值 6"),
        (
            {"out_trade_no": "T" * 33},
            "/out_trade_no",
            "T" * 33,
            TRADE_NO + "字符数 33，大于最大值 32",
        ),
        (
            {"attach": "茶" * 43},
            "/attach",
            "茶" * 43,
            "输入源“/body/attach”映射到值字段“附加数据”字符串规则校验失败，"
            "字节数 129，大于最大值 128",
        ),
        (
            {"description": "茶🍵"},
            "/description",
            "茶🍵",
            "输入源“/body/description”映射到值字段“商品描述”字符串规则校验失败，不支持4字节字符",
        ),
        (
            {"amount": {"total": 0}},
            "/amount/total",
            0,
            "输入源“/body/amount/total”映射到数值字段“总金额”规则校验失败，值低于最小值 1",
        ),
        (
            {"amount": {"total": "100"}},
            "/amount/total",
            "100",
            "无法将 JSON 输入源“/body/amount/total”映射到目标字段“总金额”中，"
            "此字段需要一个 integer 类型的 Json 值",
        ),
        (
            {"amount": {"total": True}},
            "/amount/total",
            True,
            "无法将 JSON 输入源“/body/amount/total”映射到目标字段“总金额”中，"
            "此字段需要一个 integer 类型的 Json 值",
        ),
        (
            {"payer": {"openid": 1}},
            "/payer/openid",
            1,
            "无法将 JSON 输入源“/body/payer/openid”映射到目标字段“用户标识”中，"
            "此字段需要一个 string 类型的 Json 值",
        ),
        (
            {"payer": {}},
            "/payer/openid",
            "",
            "输入源“/body/payer/openid”映射到字段“用户标识”必填性规则校验失败，此字段为必填项",
        ),
        (
            {"notify_url": None},
            "/notify_url",
            "",
            "输入源“/body/notify_url”映射到字段“通知地址”必填性规则校验失败，此字段为必填项",
        ),
    ],
)
def test_field_that_breaks_its_rule(shared_client, number, change, field, value, message):
    answer = shared_client.place(number, **change)
    assert refused(answer) == (400, "PARAM_ERROR", message)
    assert answer.json["detail"] == {"location": "body", "field": field, "value": value}


@pytest.mark.parametrize(
    "change",
    [
        {"notify_url": "https://shop.example/notify?a=1"},
        {"notify_url": "ftp://shop.example/notify"},
        {"amount": {"total": 1, "currency": "USD"}},
        {"amount": {"total": 2**63}},
        {"amount": {"total": 1.0}},
        {"amount": []},
        {"attach": 5},
        {"support_fapiao": "yes"},
        {"limit_pay": "no_credit"},
        {"limit_pay": ["no_money"]},
        {"detail": {"goods_detail": [{"merchant_goods_id": "g", "quantity": 0, "unit_price": 1}]}},
        {"detail": {"goods_detail": [{"merchant_goods_id": "g", "goods_name": "n" * 257}]}},
        {
            "detail": {
                "goods_detail": [
                    {
                        "merchant_goods_id": "g",
                        "goods_name": "n" * 200,
                        "quantity": 1,
                        "unit_price": 1,
                    }
                ]
                * 30
            }
        },
        {"scene_info": {"device_id": "d"}},
        {"time_expire": "2026-01-01 00:00:00"},
        {"time_expire": "2026-13-01T00:00:00+08:00"},
        {"time_expire": "2099-01-01T00:00:00+08:00"},
        {"time_expire": 1},
    ],
)
def test_other_faults_are_parameter_errors_too(shared_client, number, change):
    answer = shared_client.place(number, **change)
    assert (answer.status, answer.json["code"]) == (400, "PARAM_ERROR")
    assert answer.json["detail"]["location"] == "body"


def test_field_that_the_api_does_not_know(shared_client, number):
    answer = shared_client.place(number, trade_type="JSAPI")
    assert refused(answer) == (400, "PARAM_ERROR", "请求中含有未在API文档中定义的参数")
    assert answer.json["detail"] == {"location": None, "value": ["/body/trade_type"]}


def test_null_is_no_value(shared_client, number):
    body = json.dumps(shared_client.order(number) | {"attach": None}).encode()
    assert shared_client.send("POST", JSAPI, body).json["code"] == "PARAM_ERROR"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"a":"\xff"}', b"[" * 5000, b"\xef\xbb\xbf{}"]
)
def test_body_that_is_no_json_object(shared_client, body):
    answer = shared_client.send("POST", JSAPI, body)
    assert (answer.status, answer.json["code"]) == (400, "PARAM_ERROR")


def test_every_optional_field_is_taken(shared_client, number):
    answer = shared_client.place(
        number,
        attach="",
        goods_tag="WXG",
        limit_pay=["no_credit"],
        support_fapiao=True,
        detail={
            "cost_price": 100,
            "invoice_id": "i",
            "goods_detail": [
                {
                    "merchant_goods_id": "g",
                    "wechatpay_goods_id": "1",
                    "goods_name": "茶",
                    "quantity": 1,
                    "unit_price": 100,
                }
            ],
        },
        scene_info={
            "payer_client_ip": "127.0.0.1",
            "device_id": "pos-1",
            "store_info": {"id": "1", "name": "n", "area_code": "440305", "address": "a"},
        },
        settle_info={"profit_sharing": False},
    )
    assert answer.status == 200
    assert shared_client.query(number).json["scene_info"] == {"device_id": "pos-1"}


def test_unpaid_order_as_queried(shared_client, number):
    shared_client.place(number, attach="a")
    assert shared_client.query(number).json == {
        "appid": shared_client.appid,
        "mchid": shared_client.mchid,
        "out_trade_no": number,
        "trade_state": "NOTPAY",
        "trade_state_desc": "订单未支付",
        "amount": {"total": 100},
    }


def test_paid_order_as_queried_by_either_number(shared_sandbox, shared_client, number):
    shared_client.place(number, attach="a")
    paid = shared_sandbox.pay(number, notify=False).order
    answer = shared_client.query(number).json
    assert answer.pop("success_time") == paid.paid_at.isoformat(timespec="seconds")
    assert answer == {
        "appid": shared_client.appid,
        "mchid": shared_client.mchid,
        "out_trade_no": number,
        "transaction_id": paid.transaction_id,
        "trade_state": "SUCCESS",
        "trade_state_desc": "支付成功",
        "trade_type": "JSAPI",
        "bank_type": "OTHERS",
        "attach": "a",
        "payer": {"openid": "oPayer"},
        "amount": {
            "total": 100,
            "payer_total": 100,
            "currency": "CNY",
            "payer_currency": "CNY",
        },
    }
    assert len(paid.transaction_id) == 28
    by_id = f"/v3/pay/transactions/id/{paid.transaction_id}?mchid={shared_client.mchid}"
    assert shared_client.get(by_id).json["out_trade_no"] == number


def test_order_that_does_not_exist(shared_client):
    for path in ("out-trade-no/T-nobody", "id/4200000000000000000000000000"):
        answer = shared_client.get(f"/v3/pay/transactions/{path}?mchid={shared_client.mchid}")
        assert refused(answer) == (404, "ORDER_NOT_EXIST", "订单不存在")


@pytest.mark.parametrize("query", ["", "?mchid=", "?mchid=1900000001", "?mchid={}&sp_mchid=1"])
def test_query_with_a_wrong_mchid(shared_client, query):
    path = "/v3/pay/transactions/out-trade-no/T-nobody" + query.format(shared_client.mchid)
    assert shared_client.get(path).json["code"] == "PARAM_ERROR"


def test_number_in_the_path_is_checked(shared_client):
    answer = shared_client.query("T1")
    assert answer.json["code"] == "PARAM_ERROR"
    assert answer.json["detail"]["location"] == "uri_template"
    assert answer.json["detail"]["field"] == "/out_trade_no"


def test_number_with_a_bar_is_the_same_however_it_is_encoded(shared_client, number):
    shared_client.place(f"{number}|a")
    assert shared_client.query(f"{number}%7Ca").json["out_trade_no"] == f"{number}|a"
    assert shared_client.query(f"{number}|a").status == 200


def test_close_can_be_repeated(shared_client, number):
    shared_client.place(number)
    assert [shared_client.close(number).status for _ in range(2)] == [204, 204]
    assert shared_client.query(number).json["trade_state"] == "CLOSED"


def test_paid_order_cannot_be_closed(shared_sandbox, shared_client, number):
    shared_client.place(number)
    shared_sandbox.pay(number, notify=False)
    assert refused(shared_client.close(number)) == (400, "ORDERPAID", "该订单已支付")


def test_closing_an_unknown_number_burns_it(shared_client, number):
    assert shared_client.close(number).status == 204
    assert shared_client.query(number).json["code"] == "ORDER_NOT_EXIST"
    assert refused(shared_client.place(number)) == (400, "INVALID_REQUEST", DIFFERS)
    assert shared_client.close(number).status == 204


def test_unpaid_order_closes_by_itself_after_seven_days(sandbox, client):
    client.place("T000001")
    sandbox.advance(timedelta(days=7))
    assert client.query("T000001").json["trade_state"] == "CLOSED"


def test_expired_order_cannot_be_paid_but_is_not_closed(sandbox, client):
    expiry = sandbox.now() + timedelta(minutes=5)
    client.place("T000001", time_expire=expiry.isoformat(timespec="seconds"))
    sandbox.advance(timedelta(minutes=5))
    with pytest.raises(ControlError, match="expired"):
        sandbox.pay("T000001")
    assert client.query("T000001").json["trade_state"] == "NOTPAY"
    assert client.place("T000001").json["message"] == "订单已过期"
    assert client.close("T000001").status == 204


def test_expiry_sooner_than_a_minute_is_moved_to_a_minute(sandbox, client):
    past = sandbox.now() - timedelta(hours=1)
    assert client.place("T000001", time_expire=past.isoformat(timespec="seconds")).status == 200
    order = sandbox.order("T000001")
    assert order.time_expire - order.created_at == timedelta(minutes=1)


def test_state_is_each_sandboxs_own(keys, shared_client, number):
    shared_client.place(number)
    with Sandbox(keys=keys) as other:
        assert GatewayClient(other.environment()).query(number).status == 404
