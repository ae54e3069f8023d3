"""Request signatures: what is checked, in which order, and in which words."""

from __future__ import annotations

import json
import time

import pytest

from sandbox.gateway_client import exchange

JSAPI = "/v3/pay/transactions/jsapi"
CERTIFICATES = "/v3/certificates"
WECHATPAY_HEADERS = (
    "Wechatpay-Timestamp",
    "Wechatpay-Nonce",
    "Wechatpay-Signature",
    "Wechatpay-Serial",
    "Wechatpay-Signature-Type",
)


def test_answer_is_signed_by_the_public_key_that_the_request_names(shared_client):
    answer = shared_client.get(CERTIFICATES)
    assert answer.status == 200
    assert shared_client.verified(answer) == shared_client.key_id
    assert answer.headers["Wechatpay-Signature-Type"] == "WECHATPAY2-SHA256-RSA2048"
    assert answer.headers["Request-ID"].endswith("-0")


@pytest.mark.parametrize("serial", [None, "00", "PUB_KEY_ID_0000000000000024101100397200000006"])
def test_answer_to_any_other_serial_is_signed_by_the_certificate(shared_client, serial):
    answer = shared_client.get(CERTIFICATES, headers={"Wechatpay-Serial": serial})
    assert shared_client.verified(answer) == shared_client.certificate_serial


def test_answer_without_a_body_is_signed_too(shared_client, number):
    shared_client.place(number)
    answer = shared_client.close(number)
    assert (answer.status, answer.body) == (204, b"")
    assert shared_client.verified(answer) == shared_client.key_id
    assert "Content-Length" not in answer.headers


def test_business_refusal_is_signed(shared_client):
    answer = shared_client.query("T-nobody")
    assert answer.status == 404
    shared_client.verified(answer)


def test_headers_are_those_of_the_real_gateway(shared_client):
    headers = shared_client.get(CERTIFICATES).headers
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    assert headers["Content-Language"] == "zh-CN"
    assert headers["Cache-Control"] == "no-cache, must-revalidate"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Keep-Alive"] == "timeout=8"


@pytest.mark.parametrize(
    ("target", "message", "has_request_id"),
    [
        (JSAPI, "签名信息错误，验签失败", False),
        (
            "/v3/refund/domestic/refunds",
            "Http头Authorization值格式错误，请参考《微信支付商户REST API签名规则》",
            True,
        ),
        (
            CERTIFICATES,
            "Http头Authorization值格式错误，请参考《微信支付商户REST API签名规则》",
            True,
        ),
        (
            "/v3/bill/tradebill?bill_date=2026-01-01",
            "Http头Authorization值格式错误，请参考《微信支付商户REST API签名规则》",
            True,
        ),
    ],
)
@pytest.mark.parametrize("authorization", [None, "", "garbled", "WECHATPAY2-SHA256-RSA2048 x"])
def test_garbled_authorization(shared_client, target, message, has_request_id, authorization):
    method = "POST" if target in {JSAPI, "/v3/refund/domestic/refunds"} else "GET"
    answer = shared_client.send(method, target, headers={"Authorization": authorization})
    assert (answer.status, answer.json) == (401, {"code": "SIGN_ERROR", "message": message})
    assert ("Request-ID" in answer.headers) == has_request_id
    assert not any(name in answer.headers for name in WECHATPAY_HEADERS)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(",", ", "),
        lambda text: text.replace(",", ",,", 1),
        lambda text: text.replace('mchid="', 'mchid=" '),
        lambda text: text + ',mchid="1"',
        lambda text: text.replace("timestamp=", "time="),
        lambda text: text.replace('timestamp="', 'timestamp="+'),
        lambda text: text.replace(" ", "  ", 1),
        lambda text: [text, text],
    ],
)
def test_authorization_is_read_strictly(shared_client, change):
    good = shared_client.authorization("GET", CERTIFICATES, b"")
    answer = shared_client.get(CERTIFICATES, headers={"Authorization": change(good)})
    assert answer.status == 401
    assert answer.json["message"].startswith("Http头Authorization值格式错误")


def test_wrong_scheme(shared_client):
    answer = shared_client.get(CERTIFICATES, scheme="WECHATPAY2-SM2-WITH-SM3")
    assert answer.status == 401
    assert answer.json["message"] == "HTTP头Authorization认证类型不正确"


@pytest.mark.parametrize("skew", [-301, -302, 302])
def test_stale_timestamp_is_refused_before_the_signature(shared_client, skew):
    stale = str(int(time.time()) + skew)
    answer = shared_client.get(CERTIFICATES, timestamp=stale, signature="bm9uZQ==")
    assert answer.status == 401
    assert answer.json["message"] == "Http头Authorization中的timestamp与发起请求的时间不得超过5分钟"


@pytest.mark.parametrize("skew", [-297, 0, 298])
def test_timestamp_within_five_minutes_passes(shared_client, skew):
    answer = shared_client.get(CERTIFICATES, timestamp=str(int(time.time()) + skew))
    assert answer.status == 200


def test_unknown_merchant(shared_client):
    answer = shared_client.get(CERTIFICATES, mchid="1900000001")
    assert (answer.status, answer.json["code"]) == (400, "MCH_NOT_EXISTS")
    refund = shared_client.send("POST", "/v3/refund/domestic/refunds", b"{}", mchid="1900000001")
    assert (refund.status, refund.json["code"]) == (404, "MCH_NOT_EXISTS")


def test_unknown_serial_number(shared_client):
    answer = shared_client.get(CERTIFICATES, serial_no="A" * 40)
    assert answer.status == 401
    assert answer.json["message"] == "商户证书序列号有误。请使用签名私钥匹配的证书序列号"


def test_bad_signature_explains_itself(shared_client, number):
    body = json.dumps(shared_client.order(number)).encode()
    answer = shared_client.send("POST", JSAPI, body, signed_body=body + b" ")
    assert (answer.status, answer.json["code"], answer.json["message"]) == (
        401,
        "SIGN_ERROR",
        "签名错误",
    )
    shown = answer.json["detail"]["sign_information"]
    assert (shown["method"], shown["url"]) == ("POST", JSAPI)
    expected = shown["expected_sign_message"]
    assert expected.startswith(f"POST\n{JSAPI}\n")
    assert expected.endswith(f"\n{body.decode()}\n")
    assert shown["sign_message_length"] == len(expected.encode())
    assert answer.json["detail"]["detail"] == {"issue": "sign not match"}
    assert not any(name in answer.headers for name in WECHATPAY_HEADERS)
    # what it says is what it takes
    again = shared_client.authorization(
        "POST", JSAPI, b"", signed=expected.encode(), **fields(shown)
    )
    assert shared_client.send("POST", JSAPI, body, headers={"Authorization": again}).status == 200


def fields(shown):
    _, _, timestamp, nonce, *_ = shown["expected_sign_message"].split("\n")
    return {"timestamp": timestamp, "nonce_str": nonce}


@pytest.mark.parametrize("signature", ["!!!", "bm9uZQ==", "WECHATPAY/SIGNTEST/bm9uZQ==", "bm9uZQ"])
def test_signature_that_is_none(shared_client, signature):
    answer = shared_client.get(CERTIFICATES, signature=signature)
    assert (answer.status, answer.json["message"]) == (401, "签名错误")


@pytest.mark.parametrize(
    "target",
    [
        "/v3/pay/transactions/out-trade-no/T%7C000001?mchid={}",
        "/v3/pay/transactions/out-trade-no/%54000001?mchid={}",
        "/v3/pay/transactions/out-trade-no/T|00001?mchid={}",
        "/v3/pay/transactions/out-trade-no/T000001?mchid={}&",
        "/v3/pay/transactions/out-trade-no/T000001?%6dchid={}",
    ],
)
def test_target_is_signed_as_it_was_sent(shared_client, target):
    target = target.format(shared_client.mchid)
    assert shared_client.get(target).status in {200, 404}


def test_target_encoded_otherwise_than_signed_is_refused(shared_client):
    target = f"/v3/pay/transactions/out-trade-no/T%7C000001?mchid={shared_client.mchid}"
    other = shared_client.authorization("GET", target.replace("%7C", "|"), b"")
    answer = shared_client.get(target, headers={"Authorization": other})
    assert (answer.status, answer.json["message"]) == (401, "签名错误")
    assert answer.json["detail"]["sign_information"]["url"] == target


@pytest.mark.parametrize("missing", ["User-Agent", "Accept"])
@pytest.mark.parametrize(
    ("method", "target"),
    [("GET", CERTIFICATES), ("POST", "/v3/refund/domestic/refunds")],
)
def test_certificates_and_refunds_ask_for_agent_and_accept_before_anything(
    shared_client, method, target, missing
):
    answer = shared_client.send(method, target, headers={missing: None, "Authorization": None})
    assert (answer.status, answer.json) == (
        400,
        {"code": "INVALID_REQUEST", "message": "Http头缺少Accept或User-Agent"},
    )


def test_transactions_do_not_ask_for_an_agent(shared_client):
    answer = shared_client.send("POST", JSAPI, headers={"User-Agent": None, "Authorization": None})
    assert answer.status == 401


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/v3/pay/transactions/miniprogram", 404),
        ("GET", "/", 404),
        ("GET", "/v3/certificates/", 404),
        ("GET", JSAPI, 405),
        ("DELETE", CERTIFICATES, 405),
        ("POST", "/v3/bill/tradebill", 405),
    ],
)
def test_unknown_path_or_method_has_an_empty_body(shared_client, method, target, status):
    answer = exchange(shared_client.address, method, target, b"", {})
    assert (answer.status, answer.body) == (status, b"")
