"""The function as AWS runs it: the official runtime client, a process, a deadline that kills."""

from __future__ import annotations

import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import boto3
import pytest

from adapters.lambda_deployment import dynamodb_shop, paid, sqlite_shop
from adapters.lambda_events import KINDS, headers_of, http_api, rest_api
from adapters.lambda_runtime import FunctionError, InitError, LambdaFunction, TimedOutError
from core.dynamo_server import REGION, endpoint
from deliveries import KEYS, envelope, refund, signed


@pytest.fixture
def shop(tmp_path, request):
    make = {"sqlite": sqlite_shop, "dynamodb": dynamodb_shop}
    shop = make[getattr(request, "param", "sqlite")](tmp_path)
    yield shop
    shop.close()


over_both_stores = pytest.mark.parametrize("shop", ["sqlite", "dynamodb"], indirect=True)


@over_both_stores
@pytest.mark.parametrize("encoded", [False, True], ids=["plain", "base64"])
def test_every_kind_of_event_fires_and_is_answered_in_its_shape(shop, encoded):
    function = shop.deploy()
    shop.place(*(f"T-{kind}" for kind in KINDS))
    for kind, event in KINDS.items():
        answer = function.invoke(event(*paid(f"T-{kind}"), encoded=encoded))
        assert answer["statusCode"] == 204, kind
        assert answer["body"] == "", kind
        assert answer["isBase64Encoded"] is False, kind
        assert ("statusDescription" in answer) == kind.startswith("alb"), kind
    assert [number for number, *_ in shop.fired()] == [f"T-{kind}" for kind in KINDS]
    assert function.environments == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_utf_8_body_is_verified_byte_for_byte(shop, kind):
    function = shop.deploy()
    shop.place("T1001")
    summary = '支付成功 🧸 \u2028\u00e9e\u0301 \\ " \t'
    assert function.invoke(KINDS[kind](*paid(summary=summary)))["statusCode"] == 204


@pytest.mark.parametrize("kind", KINDS)
def test_null_headers_and_body_are_a_refusal_not_an_error(shop, kind):
    event = KINDS[kind]([], None)
    for field in ("headers", "multiValueHeaders"):
        if field in event:
            event[field] = None
    answer = shop.deploy().invoke(event)
    assert answer["statusCode"] == 400
    assert json.loads(answer["body"])["code"] == "FAIL"
    assert headers_of(answer)["Content-Type"] == "application/json"


def test_an_event_that_does_not_say_whether_it_is_base64_is_plain(shop):
    shop.place("T1001")
    event = http_api(*paid())
    del event["isBase64Encoded"]
    assert shop.deploy().invoke(event)["statusCode"] == 204


def test_a_thousand_deliveries_in_one_environment_fire_once_each(shop):
    function = shop.deploy()
    numbers = [f"T{number:05}" for number in range(500)]
    shop.place(*numbers)
    for number in numbers:
        event = rest_api(*paid(number))
        assert [function.invoke(event)["statusCode"] for _ in range(2)] == [204, 204]
    assert [number for number, *_ in shop.fired()] == numbers
    assert function.environments == 1


def test_a_hook_that_raises_is_500_and_the_environment_goes_on(shop):
    function = shop.deploy()
    shop.place("BOOM01", "T1001")
    assert function.invoke(http_api(*paid("BOOM01")))["statusCode"] == 500
    assert function.invoke(http_api(*paid("T1001")))["statusCode"] == 204
    assert function.environments == 1
    assert "on_paid raised RuntimeError" in function.log.read_text(encoding="utf-8")


def test_an_async_hook_runs(shop):
    function = shop.deploy()
    shop.place("T1001")
    assert function.invoke(http_api(*paid("T1001")))["statusCode"] == 204
    now = datetime.now(UTC)
    body = envelope(refund("R1", success_time=now.isoformat()), "REFUND.SUCCESS")
    assert function.invoke(http_api(signed(body, at=now), body))["statusCode"] == 204
    assert [number for number, *_ in shop.fired()] == ["T1001", "R1"]


def test_a_hook_that_outlives_the_time_out_is_killed_and_told_again(shop):
    function = shop.deploy(timeout=3.0)
    shop.place("HANG01")
    with pytest.raises(TimedOutError):
        function.invoke(http_api(*paid("HANG01")))
    assert shop.fired() == []
    # The lease was cut to the time that was left, so it is over: nobody waits out its 60 s.
    assert function.invoke(http_api(*paid("HANG01")))["statusCode"] == 204
    assert [(number, attempt) for number, attempt, _ in shop.fired()] == [("HANG01", 2)]
    assert function.environments == 2


@over_both_stores
def test_a_second_cold_start_knows_what_the_first_has_done(shop):
    function = shop.deploy()
    shop.place("T1001")
    assert function.invoke(http_api(*paid()))["statusCode"] == 204
    function.stop()
    assert function.invoke(http_api(*paid()))["statusCode"] == 204
    assert function.environments == 2
    assert len(shop.fired()) == 1


@over_both_stores
def test_two_environments_at_once_share_one_store_and_fire_once(shop):
    functions = [shop.deploy(), shop.deploy()]
    numbers = [f"T{number:05}" for number in range(20)]
    shop.place(*numbers)
    together = threading.Barrier(len(functions), timeout=60)

    def deliver(function: LambdaFunction) -> set[int]:
        statuses = set()
        for number in numbers:
            event = http_api(*paid(number))
            together.wait()
            statuses.add(function.invoke(event)["statusCode"])
        return statuses

    with ThreadPoolExecutor(len(functions)) as pool:
        answered = set().union(*pool.map(deliver, functions))
    assert answered <= {204, 503}
    for number in numbers:  # WeChat Pay comes again, to either
        assert functions[0].invoke(http_api(*paid(number)))["statusCode"] == 204
    assert sorted(number for number, *_ in shop.fired()) == numbers


@over_both_stores
def test_what_one_environment_is_at_is_busy_for_the_other(shop):
    first, second = shop.deploy(), shop.deploy()
    shop.place("WAIT01")
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(first.invoke, http_api(*paid("WAIT01")))
        shop.wait_for("WAIT01.began")
        assert second.invoke(http_api(*paid("WAIT01")))["statusCode"] == 503
        shop.let_go("WAIT01")
        assert under_way.result()["statusCode"] == 204
    assert second.invoke(http_api(*paid("WAIT01")))["statusCode"] == 204
    assert len(shop.fired()) == 1


def test_a_foreign_event_is_an_error_that_names_what_was_expected(shop):
    function = shop.deploy()
    with pytest.raises(FunctionError, match=r"API Gateway.*Function URL.*Load Balancer.*Records"):
        function.invoke({"Records": [{"eventSource": "aws:sqs", "body": "{}"}]})
    shop.place("T1001")
    assert function.invoke(http_api(*paid()))["statusCode"] == 204


def test_a_sqlite_store_is_refused_with_the_reason(shop):
    env = {"SHOP_SQLITE": "", "WECHATPAY_STORE": "sqlite:////tmp/orders.db", "SHOP_BUILD": "1"}
    with pytest.raises(InitError, match=r"SQLite store on Lambda.*dynamodb://"):
        shop.deploy(env=env).invoke(http_api(*paid()))


@pytest.mark.parametrize("shop", ["dynamodb"], indirect=True)
def test_secrets_by_reference_are_fetched_by_the_function(shop):
    secrets = boto3.client("secretsmanager", endpoint_url=endpoint(), region_name=REGION)
    value = json.dumps({"apiv3_key": KEYS.merchant.apiv3_key.decode()})
    name = secrets.create_secret(Name=f"shop-{uuid.uuid4()}", SecretString=value)["Name"]
    reference = f"secretsmanager:{name}#apiv3_key"
    function = shop.deploy("lambda_shop.following", env={"WECHATPAY_APIV3_KEY": reference})
    shop.place("T1001")
    assert function.invoke(http_api(*paid()))["statusCode"] == 204


def test_missing_settings_are_named_and_tried_again_with_the_next_event(shop):
    function = shop.deploy(env={"WECHATPAY_MCHID": ""})
    for _ in range(2):
        with pytest.raises(FunctionError, match="WECHATPAY_MCHID is missing") as raised:
            function.invoke(http_api(*paid()))
        assert raised.value.kind == "ConfigError"
    assert function.environments == 1


def test_each_delivery_is_one_line_of_json_with_its_fields(shop):
    function = shop.deploy()
    shop.place("T1001")
    function.invoke(http_api(*paid()))
    (line,) = [line for line in function.lines() if "wechatpay_kit" in line]
    assert line["level"] == "INFO"
    assert (
        line["wechatpay_kit"] | {"line": "delivery", "status": 204, "outcome": "fired"}
        == (line["wechatpay_kit"])
    )
    assert line["message"].startswith("delivery mchid=")
