"""Settings by reference: fetched once, followed when they change, never shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta

import boto3
import pytest

from adapters.lambda_events import http_api
from core.dynamo_server import REGION, endpoint
from deliveries import APPID, KEYS, MCHID, Clock, Expecting, Recorder, delivery, private_pem
from wechatpay_kit import ConfigError, Kit, Merchant
from wechatpay_kit_lambda import Environment, notify_handler

APIV3_KEY = KEYS.merchant.apiv3_key.decode()
NEXT_KEY = "SANDBOX-another-key-of-32-bytes!"
TTL = timedelta(minutes=5)
PATIENT = timedelta(seconds=30)  # moto on a busy machine


class Wall:
    """Unix seconds, turned by hand."""

    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0

    def __call__(self) -> float:
        return self.seconds

    def pass_by(self, delta: timedelta) -> None:
        self.seconds += delta.total_seconds()


@pytest.fixture
def wall():
    return Wall()


@pytest.fixture(autouse=True)
def aws(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint())
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    return Account()


class Account:
    """Its secrets and parameters, and what an operator does with them."""

    def __init__(self) -> None:
        self._secrets = boto3.client("secretsmanager")
        self._parameters = boto3.client("ssm")
        # With patience: what moto loads with the first call takes it longer than a kit would wait.
        self._parameters.get_parameters(Names=["/none"])
        for secret in self._secrets.list_secrets()["SecretList"]:
            self.forget(secret["Name"])

    def secret(self, name: str, value: str) -> str:
        """Create a secret or rotate it; its ARN."""
        try:
            return self._secrets.create_secret(Name=name, SecretString=value)["ARN"]
        except self._secrets.exceptions.ResourceExistsException:
            return self._secrets.put_secret_value(SecretId=name, SecretString=value)["ARN"]

    def binary(self, name: str, value: bytes) -> None:
        self._secrets.create_secret(Name=name, SecretBinary=value)

    def forget(self, name: str) -> None:
        self._secrets.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)

    def parameter(self, name: str, value: str) -> None:
        self._parameters.put_parameter(Name=name, Value=value, Type="SecureString", Overwrite=True)


def settings(**references: str) -> dict[str, str]:
    return {
        "WECHATPAY_BASE_URL": "http://127.0.0.1:9",
        "WECHATPAY_MCHID": MCHID,
        "WECHATPAY_APPID": APPID,
        "WECHATPAY_SERIAL_NO": KEYS.merchant.serial_no,
        "WECHATPAY_APIV3_KEY": APIV3_KEY,
        "WECHATPAY_PUBLIC_KEY_ID": KEYS.public_key.serial,
        "WECHATPAY_PUBLIC_KEY": KEYS.public_key.pem.decode(),
    } | {f"WECHATPAY_{name.upper()}": value for name, value in references.items()}


def test_a_kit_is_made_from_secrets_and_parameters(aws):
    pem = private_pem(KEYS.merchant.private_key).decode()
    aws.secret("shop/wechatpay", json.dumps({"apiv3_key": APIV3_KEY, "private_key": pem}))
    aws.parameter("/shop/public_key", KEYS.public_key.pem.decode())
    environ = Environment(
        settings(
            apiv3_key="secretsmanager:shop/wechatpay#apiv3_key",
            private_key="secretsmanager:shop/wechatpay#private_key",
            public_key="ssm:/shop/public_key",
        ),
        timeout=PATIENT,
    )
    made = Merchant.from_env(environ=environ)
    assert made.private_key.private_numbers() == KEYS.merchant.private_key.private_numbers()
    assert made.keys.serials == (KEYS.public_key.serial,)


def test_a_secret_may_be_named_by_its_arn_and_be_whole_or_binary(aws):
    arn = aws.secret("shop/apiv3_key", APIV3_KEY)
    aws.binary("shop/binary", APIV3_KEY.encode())
    environ = Environment(
        {"A": f"secretsmanager:{arn}", "B": "secretsmanager:shop/binary"}, timeout=PATIENT
    )
    assert (environ["A"], environ["B"]) == (APIV3_KEY, APIV3_KEY)


def test_other_values_pass_as_they_are():
    environ = Environment({"PLAIN": "x", "URL": "https://shop.example/#a", "EMPTY": ""})
    assert (environ["PLAIN"], environ["URL"], environ["EMPTY"]) == (
        "x",
        "https://shop.example/#a",
        "",
    )
    assert environ.get("ABSENT") is None
    assert (len(environ), sorted(environ)) == (3, ["EMPTY", "PLAIN", "URL"])


def test_what_is_not_read_is_not_fetched():
    environ = Environment(settings(private_key="secretsmanager:not/ours"))
    assert "WECHATPAY_PRIVATE_KEY" in environ
    made = Merchant.from_env(environ=environ, receive_only=True)
    assert made.mchid == MCHID


def test_a_secret_is_fetched_once(aws):
    aws.secret("shop/wechatpay", json.dumps({"a": "1", "b": "2"}))
    environ = Environment(
        {"A": "secretsmanager:shop/wechatpay#a", "B": "secretsmanager:shop/wechatpay#b"},
        timeout=PATIENT,
    )
    assert environ["A"] == "1"
    aws.forget("shop/wechatpay")
    assert (environ["A"], environ["B"]) == ("1", "2")


@pytest.mark.parametrize(
    ("reference", "value", "said"),
    [
        ("secretsmanager:shop/absent", None, "ResourceNotFound"),
        ("ssm:/shop/absent", None, "ParameterNotFound"),
        ("secretsmanager:", None, "SecretId"),
        ("secretsmanager:shop/one#apiv3_key", "not JSON, s3cret", "no JSON object"),
        ("secretsmanager:shop/one#apiv3_key", '{"other": "s3cret"}', "no JSON object"),
        ("secretsmanager:shop/one#apiv3_key", '{"apiv3_key": ["s3cret"]}', "no JSON object"),
        ("secretsmanager:shop/one#apiv3_key", '["s3cret"]', "no JSON object"),
    ],
)
def test_an_error_names_variable_and_reference_and_never_the_value(aws, reference, value, said):
    if value is not None:
        aws.secret("shop/one", value)
    environ = Environment(settings(apiv3_key=reference), timeout=PATIENT)
    with pytest.raises(ConfigError) as raised:
        Merchant.from_env(environ=environ, receive_only=True)
    assert f"WECHATPAY_APIV3_KEY={reference}" in str(raised.value)
    assert said in str(raised.value)
    assert "s3cret" not in f"{raised.value}{raised.value.__cause__}{raised.value.__context__}"
    assert "s3cret" not in repr(environ)


def test_without_boto3_the_error_says_what_to_install():
    code = """
import sys
sys.modules["botocore"] = None
from wechatpay_kit import ConfigError
from wechatpay_kit_lambda import Environment
try:
    Environment({"KEY": "ssm:/shop/key"})["KEY"]
except ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "KEY=ssm:/shop/key needs boto3" in done.stdout
    assert "wechatpay-kit[dynamodb]" in done.stdout


class Deployed:
    """A handler that follows its secrets, and the kits that it was given."""

    def __init__(self, store, wall: Wall, **references: str) -> None:
        self.kits: list[Kit] = []
        self._store = store
        self.recorder = Recorder()
        environ = Environment(settings(**references), ttl=TTL, timeout=PATIENT, now=wall)
        self.handler = notify_handler(self._make, environ=environ)

    def _make(self, environ: Environment) -> Kit:
        kit = Kit.from_env(
            environ=environ,
            plugins=[self.recorder, Expecting()],
            store=self._store,
            receive_only=True,
            clock=Clock(),
        )
        self.kits.append(kit)
        return kit

    def deliver(self, apiv3_key: str = APIV3_KEY) -> int:
        event = http_api(*delivery(apiv3_key=apiv3_key.encode()))
        return self.handler(event, None)["statusCode"]


def test_a_rotated_secret_arrives_when_its_time_to_live_is_over(aws, store, wall):
    aws.secret("shop/apiv3_key", APIV3_KEY)
    deployed = Deployed(store, wall, apiv3_key="secretsmanager:shop/apiv3_key")
    assert deployed.deliver() == 204
    aws.secret("shop/apiv3_key", NEXT_KEY)
    assert deployed.deliver() == 204
    assert deployed.deliver(NEXT_KEY) == 400
    wall.pass_by(TTL)
    assert deployed.deliver(NEXT_KEY) == 204
    assert deployed.deliver() == 400
    assert len(deployed.kits) == 2


def test_a_secret_that_did_not_change_builds_no_second_kit(aws, store, wall):
    aws.parameter("/shop/apiv3_key", APIV3_KEY)
    deployed = Deployed(store, wall, apiv3_key="ssm:/shop/apiv3_key")
    for _ in range(3):
        assert deployed.deliver() == 204
        wall.pass_by(TTL)
    assert len(deployed.kits) == 1


def test_a_failed_refresh_keeps_the_old_and_is_tried_again_a_minute_later(aws, store, wall, caplog):
    aws.secret("shop/apiv3_key", APIV3_KEY)
    deployed = Deployed(store, wall, apiv3_key="secretsmanager:shop/apiv3_key")
    assert deployed.deliver() == 204
    aws.forget("shop/apiv3_key")
    wall.pass_by(TTL)
    for _ in range(2):
        assert deployed.deliver() == 204
    failures = [text for text in caplog.messages if "cannot be fetched again" in text]
    assert len(failures) == 1
    assert "secretsmanager:shop/apiv3_key" in failures[0]
    aws.secret("shop/apiv3_key", NEXT_KEY)
    wall.pass_by(timedelta(minutes=1))
    assert deployed.deliver(NEXT_KEY) == 204


def test_a_kit_that_cannot_be_built_from_the_new_secret_leaves_the_old(aws, store, wall, caplog):
    aws.secret("shop/apiv3_key", APIV3_KEY)
    deployed = Deployed(store, wall, apiv3_key="secretsmanager:shop/apiv3_key")
    assert deployed.deliver() == 204
    aws.secret("shop/apiv3_key", "too short, but s3cret")
    wall.pass_by(TTL)
    assert deployed.deliver() == 204
    assert "the old one stays" in caplog.text
    assert "s3cret" not in caplog.text
    aws.secret("shop/apiv3_key", NEXT_KEY)
    wall.pass_by(TTL)
    assert deployed.deliver(NEXT_KEY) == 204
    assert len(deployed.kits) == 2


def test_a_clock_that_was_set_back_does_not_delay_a_rotation(aws, store, wall):
    aws.secret("shop/apiv3_key", APIV3_KEY)
    deployed = Deployed(store, wall, apiv3_key="secretsmanager:shop/apiv3_key")
    assert deployed.deliver() == 204
    aws.secret("shop/apiv3_key", NEXT_KEY)
    wall.pass_by(-timedelta(days=1))
    assert deployed.deliver(NEXT_KEY) == 204


def test_a_delivery_under_way_keeps_the_kit_it_began_with(aws, store, wall):
    aws.secret("shop/apiv3_key", APIV3_KEY)
    deployed = Deployed(store, wall, apiv3_key="secretsmanager:shop/apiv3_key")
    assert deployed.deliver() == 204
    (old,) = deployed.kits
    aws.secret("shop/apiv3_key", NEXT_KEY)
    wall.pass_by(TTL)
    assert deployed.deliver(NEXT_KEY) == 204
    assert old.receiver.receive(*delivery()).status == 204


def test_two_merchants_of_one_function_both_follow_their_secrets(aws, store, wall):
    aws.secret("shop/apiv3_key", APIV3_KEY)
    deployed = Deployed(store, wall, apiv3_key="secretsmanager:shop/apiv3_key")
    environ = Environment(
        settings(apiv3_key="secretsmanager:shop/apiv3_key"), ttl=TTL, timeout=PATIENT, now=wall
    )
    handler = notify_handler({"/a": deployed._make, "/b": deployed._make}, environ=environ)

    def deliver(path: str, key: str) -> int:
        event = http_api(*delivery(apiv3_key=key.encode()), path=path)
        return handler(event, None)["statusCode"]

    assert [deliver(path, APIV3_KEY) for path in ("/a", "/b")] == [204, 204]
    aws.secret("shop/apiv3_key", NEXT_KEY)
    wall.pass_by(TTL)
    assert [deliver(path, NEXT_KEY) for path in ("/a", "/b")] == [204, 204]
