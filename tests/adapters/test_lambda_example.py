"""examples/aws_lambda: the template is sound, its alarms count, and its README's story happens."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from cfnlint.decode import decode
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

from adapters.lambda_deployment import Shop, aws_environment, paid, sqlite_shop
from adapters.lambda_events import http_api
from adapters.lambda_runtime import FunctionError, LambdaFunction
from core.dynamo_server import REGION, endpoint, table_of
from deliveries import MCHID, changed, without
from wechatpay_kit.store.dynamodb import LAYOUT, DynamoStore
from wechatpay_kit_sandbox import Sandbox

EXAMPLE = Path(__file__).parents[2] / "examples" / "aws_lambda"


@pytest.fixture
def shop(tmp_path):
    shop = sqlite_shop(tmp_path)
    yield shop
    shop.close()


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    decoded, problems = decode(str(EXAMPLE / "template.yaml"))
    assert problems == []
    return json.loads(json.dumps(decoded))


@pytest.fixture(scope="module")
def resources(template) -> dict[str, Any]:
    """What SAM makes of the template, once the code is packaged."""
    packaged = json.loads(json.dumps(template))
    packaged["Resources"]["Notify"]["Properties"]["CodeUri"] = "s3://bucket/key"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_DEFAULT_REGION", REGION)
        translated = Translator({}, Parser()).translate(packaged, {"MchId": MCHID})
    return translated["Resources"]


def of_type(resources: dict[str, Any], kind: str) -> dict[str, Any]:
    return {name: found["Properties"] for name, found in resources.items() if found["Type"] == kind}


def test_cfn_lint_finds_nothing():
    command = [Path(sys.executable).with_name("cfn-lint"), EXAMPLE / "template.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_sam_makes_a_function_behind_an_http_api(resources):
    (function,) = of_type(resources, "AWS::Lambda::Function").values()
    assert function["Handler"] == "app.handler"
    assert function["Architectures"] == ["arm64"]
    assert function["LoggingConfig"]["LogFormat"] == "JSON"
    (api,) = of_type(resources, "AWS::ApiGatewayV2::Api").values()
    assert "post" in api["Body"]["paths"]["/wechatpay/notify"]


def test_the_table_is_what_the_store_needs_and_can_be_restored(resources):
    (table,) = of_type(resources, "AWS::DynamoDB::Table").values()
    assert {name: table[name] for name in LAYOUT} == LAYOUT
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert "TimeToLiveSpecification" not in table
    assert resources["Orders"]["DeletionPolicy"] == "Retain"


def test_the_function_may_do_what_it_needs_and_no_more(resources):
    roles = of_type(resources, "AWS::IAM::Role")
    assert roles.keys() == {"NotifyRole"}
    assert "ManagedPolicyArns" not in roles["NotifyRole"]
    (policy,) = roles["NotifyRole"]["Policies"]
    for statement in policy["PolicyDocument"]["Statement"]:
        assert "*" not in json.dumps([statement["Action"], statement["Resource"]])
    named = re.search(r"A process that receives or places needs (.*?) on the table", _store_doc())
    allowed = re.findall(r"dynamodb:(\w+)", json.dumps(policy))
    assert sorted(allowed) == sorted(re.findall(r"[A-Z]\w+", named[1]))


def _store_doc() -> str:
    return " ".join(sys.modules[DynamoStore.__module__].__doc__.split())


def test_no_private_key_goes_to_the_function(template):
    variables = template["Resources"]["Notify"]["Properties"]["Environment"]["Variables"]
    assert not any("PRIVATE" in name for name in variables)


def test_logs_are_kept_for_a_time_and_every_alarm_counts_what_a_filter_finds(resources):
    groups = of_type(resources, "AWS::Logs::LogGroup")
    assert all("RetentionInDays" in group for group in groups.values())
    counted = {
        json.dumps(transformation["MetricName"])
        for found in of_type(resources, "AWS::Logs::MetricFilter").values()
        for transformation in found["MetricTransformations"]
    }
    alarms = of_type(resources, "AWS::CloudWatch::Alarm").values()
    own = {json.dumps(a["MetricName"]) for a in alarms if a["Namespace"] == "WeChatPay"}
    assert own == counted
    assert all(alarm["AlarmActions"] for alarm in alarms)


def matches(pattern: str, line: dict[str, Any]) -> bool:
    """CloudWatch's filter syntax, as far as the template uses it; no field, no match."""
    conditions = pattern.strip("{} ").split("&&")
    return all(_holds(condition.strip(" ()"), line) for condition in conditions)


def _holds(condition: str, line: dict[str, Any]) -> bool:
    path, operator, literal = re.fullmatch(
        r"\$\.(\S+) (=|!=|>=|NOT EXISTS) ?(.*)", condition
    ).groups()
    value: Any = line
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    if operator == "NOT EXISTS" or value is None:
        return operator == "NOT EXISTS" and value is None
    expected = json.loads(literal)
    return {"=": value == expected, "!=": value != expected}.get(operator) or (
        operator == ">=" and value >= expected
    )


SIGNATURE = "Wechatpay-Signature"


def counted(template, shop: Shop, *events: dict[str, Any]) -> dict[str, int]:
    """How often each filter of the template matches the log that ``events`` leave."""
    function = shop.deploy()
    for event in events:
        function.invoke(event)
    filters = of_type(template["Resources"], "AWS::Logs::MetricFilter")
    return {
        name: sum(matches(found["FilterPattern"], line) for line in function.lines())
        for name, found in filters.items()
    }


def test_what_goes_well_is_counted_by_no_alarm(template, shop):
    shop.place("T1001")
    delivered = http_api(*paid("T1001"))
    assert set(counted(template, shop, delivered, delivered).values()) == {0}


def test_a_failing_hook_is_a_server_error(template, shop):
    shop.place("BOOM01")
    found = counted(template, shop, http_api(*paid("BOOM01")))
    assert found == {"ServerErrors": 1, "Conflicts": 0, "Refusals": 0}


def test_a_conflict_is_a_conflict_and_as_it_is_unhandled_a_server_error(template, shop):
    shop.place("T1001", total=101)
    found = counted(template, shop, http_api(*paid("T1001")))
    assert found == {"ServerErrors": 1, "Conflicts": 1, "Refusals": 0}


def test_a_forgery_is_a_refusal_and_a_stranger_without_signature_is_not(template, shop):
    headers, body = paid("T1001")
    found = counted(
        template,
        shop,
        http_api(headers, body + b" "),
        http_api(without(headers, SIGNATURE), body),
        http_api([], b""),
    )
    assert found == {"ServerErrors": 0, "Conflicts": 0, "Refusals": 1}


def test_a_probe_of_wechat_pay_is_counted_by_no_alarm(template, shop):
    headers, body = paid("T1001")
    probe = changed(headers, SIGNATURE, "WECHATPAY/SIGNTEST/" + dict(headers)[SIGNATURE])
    assert set(counted(template, shop, http_api(probe, body)).values()) == {0}


@contextmanager
def gateway_before(function: LambdaFunction):
    """An HTTP API on loopback: a POST in, an event of payload format 2.0, its answer out."""

    class Front(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            event = http_api(self.headers.items(), body, path=self.path, encoded=True)
            answer = function.invoke(event)
            self.send_response(answer["statusCode"])
            self.end_headers()
            self.wfile.write(answer["body"].encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Front)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/wechatpay/notify"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_readmes_speak_of_what_the_template_has(template, name):
    text = (EXAMPLE / name).read_text(encoding="utf-8")
    given = set(re.findall(r"(\w+)=\"\$", text)) & template["Parameters"].keys()
    needed = {n for n, parameter in template["Parameters"].items() if "Default" not in parameter}
    assert needed <= given
    assert set(re.findall(r"\(output (\w+)\)", text)) <= template["Outputs"].keys()
    alarms = of_type(template["Resources"], "AWS::CloudWatch::Alarm")
    assert {
        f"{row}Alarm" for row in re.findall(r"^\| `(\w+)`", text, re.MULTILINE)
    } == alarms.keys()


def test_the_two_readmes_have_the_same_commands_and_sections():
    english, chinese = (
        (EXAMPLE / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md")
    )
    blocks = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
    assert blocks.findall(english) == blocks.findall(chinese)
    headings = re.compile(r"^#+ ", re.MULTILINE)
    assert headings.findall(english) == headings.findall(chinese)


def deploy(template, sandbox: Sandbox, table: str, log: Path) -> LambdaFunction:
    """The function as the template has it, with the secret that its README makes."""
    keys = sandbox.keys
    value = {
        "apiv3_key": keys.merchant.apiv3_key.decode(),
        "public_key": keys.public_key.pem.decode(),
    }
    secrets = boto3.client("secretsmanager", endpoint_url=endpoint(), region_name=REGION)
    arn = secrets.create_secret(Name=table, SecretString=json.dumps(value))["ARN"]
    given = {
        "MchId": keys.merchant.mchid,
        "PublicKeyId": keys.public_key.serial,
        "SecretArn": arn,
        "BaseUrl": sandbox.base_url,
        "Orders": table,
    }
    variables = template["Resources"]["Notify"]["Properties"]["Environment"]["Variables"]
    env = {name: filled_in(value, given) for name, value in variables.items()}
    handler = template["Resources"]["Notify"]["Properties"]["Handler"]
    return LambdaFunction(handler, log, env | aws_environment(), folder=EXAMPLE)


def filled_in(value: dict[str, str], given: dict[str, str]) -> str:
    if "Ref" in value:
        return given[value["Ref"]]
    return re.sub(r"\$\{(\w+)\}", lambda found: given[found[1]], value["Fn::Sub"])


def place_order(env: dict[str, str]) -> str:
    command = [sys.executable, str(EXAMPLE / "place_order.py")]
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def warm(function: LambdaFunction) -> None:
    """Start it; where moto takes over a second to answer, the machine is at fault."""
    for _ in range(10):
        with suppress(FunctionError):
            function.invoke(http_api([], None))
            return


def test_the_readmes_story_from_an_order_to_the_first_notification(template, tmp_path):
    table = table_of(tmp_path)
    with Sandbox() as sandbox:
        function = deploy(template, sandbox, table, tmp_path / "log.txt")
        with gateway_before(function) as notify_url:
            environment = {
                **sandbox.environment(),
                **aws_environment(),
                "WECHATPAY_NOTIFY_URL": notify_url,
                "WECHATPAY_STORE": f"dynamodb://{table}",
            }
            number = place_order(environment)
            warm(function)
            payment = sandbox.pay(number)
            attempts = [payment.attempt]
            while attempts[-1].status != 204 and len(attempts) < 10:
                attempts.append(sandbox.resend(payment.notification.id))
        function.stop()
    assert attempts[-1].status == 204
    store = DynamoStore(table, region=REGION, endpoint_url=endpoint())
    assert store.order(sandbox.keys.merchant.mchid, number).state == "paid"
    store.close()
    assert [line["message"] for line in function.lines() if line.get("logger") == "shop"] == [
        f"ship {number}"
    ]
