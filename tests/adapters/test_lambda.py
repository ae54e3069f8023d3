"""The Lambda adapter: events read, answers shaped, the kit built once."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from types import MappingProxyType, SimpleNamespace

import pytest

from adapters.lambda_events import HTTP_API_CONTEXT, KINDS, PATH, headers_of, http_api, rest_api
from deliveries import KEYS, Expecting, Recorder, delivery, receiving_kit, transaction
from wechatpay_kit import ConfigError
from wechatpay_kit_lambda import notify_handler


class Context:
    """Of Lambda's context, what the handler asks for."""

    def __init__(self, milliseconds: int) -> None:
        self.milliseconds = milliseconds

    def get_remaining_time_in_millis(self) -> int:
        return self.milliseconds


@pytest.fixture
def kit(store, recorder):
    return receiving_kit(store, recorder, Expecting())


@pytest.fixture
def handler(kit):
    return notify_handler(lambda: kit)


def frozen(value):
    """The same, but whoever changes it is told."""
    if isinstance(value, dict):
        return MappingProxyType({name: frozen(inner) for name, inner in value.items()})
    return tuple(map(frozen, value)) if isinstance(value, list) else value


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("encoded", [False, True], ids=["plain", "base64"])
def test_a_payment_fires_whatever_brought_it(handler, recorder, kind, encoded):
    event = KINDS[kind](*delivery(), encoded=encoded)
    answer = handler(event, None)
    assert (answer["statusCode"], answer["body"]) == (204, "")
    assert recorder.names() == ["on_paid"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spell", [str.lower, str.upper, str.title, str.swapcase])
def test_headers_are_found_in_any_case(handler, kind, spell):
    headers, body = delivery()
    event = KINDS[kind]([(spell(name), value) for name, value in headers], body)
    assert handler(event, None)["statusCode"] == 204


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", ["T1001", "BOOM"])
def test_the_event_is_never_changed(handler, kind, number):
    event = KINDS[kind](*delivery(transaction(number)))
    before = copy.deepcopy(event)
    handler(event, None)
    assert event == before
    assert handler(frozen(event), None)["statusCode"] == 204


@pytest.mark.parametrize(
    ("kind", "has_multi", "has_words"),
    [
        ("rest_api", True, False),
        ("http_api", False, False),
        ("function_url", False, False),
        ("alb_single", False, True),
        ("alb_multi", True, True),
    ],
)
def test_the_answer_takes_the_shape_of_the_event(handler, kind, has_multi, has_words):
    answer = handler(KINDS[kind]([], b"{}"), None)
    headers = "multiValueHeaders" if has_multi else "headers"
    words = {"statusDescription"} if has_words else set()
    assert answer.keys() == {"statusCode", "body", "isBase64Encoded", headers} | words
    assert answer["statusCode"] == 400
    assert answer["isBase64Encoded"] is False
    assert json.loads(answer["body"])["code"] == "FAIL"
    assert headers_of(answer) == {"Content-Type": "application/json"}
    if has_multi:
        assert answer[headers] == {"Content-Type": ["application/json"]}
    if has_words:
        assert answer["statusDescription"] == "400 Bad Request"
    json.dumps(answer)


def test_an_http_api_with_payload_1_0_is_read_as_a_rest_api(handler):
    headers, body = delivery()
    event = rest_api(headers, body, path="/live/wechatpay/notify") | {
        "version": "1.0",
        "requestContext": {"stage": "live"},
    }
    assert handler(event, None)["statusCode"] == 204


@pytest.mark.parametrize("kind", ["rest_api", "alb_multi"])
def test_a_doubled_signature_header_is_refused(handler, kind):
    headers, body = delivery()
    event = KINDS[kind](headers, body)
    for values in event["multiValueHeaders"].values():
        values.append(values[0])
    assert handler(event, None)["statusCode"] == 400


@pytest.mark.parametrize("kind", ["http_api", "function_url"])
def test_a_doubled_signature_header_joined_by_a_comma_is_refused(handler, kind):
    headers, body = delivery()
    assert handler(KINDS[kind](headers * 2, body), None)["statusCode"] == 400


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("absent", [None, "left out"])
def test_absent_headers_and_body_are_refused_as_any_stranger_is(handler, recorder, kind, absent):
    event = KINDS[kind]([], None)
    for field in ("headers", "multiValueHeaders", "body", "isBase64Encoded"):
        if absent:
            event.pop(field, None)
        elif field in event:
            event[field] = None
    assert handler(event, None)["statusCode"] == 400
    assert [rejected.reason for rejected in recorder.of("on_rejected")] == ["missing_header"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("missing", [True, False])
def test_a_body_is_plain_unless_the_event_says_otherwise(handler, kind, missing):
    event = KINDS[kind](*delivery())
    event.pop("isBase64Encoded") if missing else event.update(isBase64Encoded=None)
    assert handler(event, None)["statusCode"] == 204


def test_a_body_that_is_no_unicode_is_refused(handler):
    headers, _ = delivery()
    event = http_api(headers, b"") | {"body": "\ud83e"}
    assert handler(event, None)["statusCode"] == 401


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "post"])
def test_what_is_no_post_is_not_allowed(handler, recorder, kind, method):
    answer = handler(KINDS[kind](*delivery(), method=method), None)
    assert (answer["statusCode"], headers_of(answer)) == (405, {"Allow": "POST"})
    assert recorder.events == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["/", "/wechatpay/notify/", "/wechatpay", "/WECHATPAY/notify", ""])
def test_other_paths_are_not_found_where_the_handler_has_one(kit, recorder, kind, path):
    handler = notify_handler({PATH: lambda: kit})
    for method in ("POST", "GET"):
        event = KINDS[kind](*delivery(), path=path, method=method)
        assert handler(event, None)["statusCode"] == 404
    assert recorder.events == []
    assert handler(KINDS[kind](*delivery()), None)["statusCode"] == 204


@pytest.mark.parametrize("kind", KINDS)
def test_any_path_will_do_where_the_handler_has_none(handler, kind):
    event = KINDS[kind](*delivery(), path="/elsewhere")
    assert handler(event, None)["statusCode"] == 204


def test_the_name_of_an_http_apis_stage_is_no_part_of_the_path(kit):
    context = HTTP_API_CONTEXT | {"stage": "live"}
    event = http_api(*delivery(), path="/live/wechatpay/notify", context=context)
    assert notify_handler({PATH: lambda: kit})(event, None)["statusCode"] == 204


def test_two_merchants_have_a_path_each(store, recorder, caplog):
    other = "1900000002"
    handler = notify_handler(
        {
            "/a/notify": lambda: receiving_kit(store, recorder, Expecting()),
            "/b/notify": lambda: receiving_kit(store, Recorder(), Expecting(), mchid=other),
        }
    )
    headers, body = delivery()
    caplog.clear()
    assert handler(http_api(headers, body, path="/b/notify"), None)["statusCode"] == 422
    (line,) = (record.wechatpay_kit for record in caplog.records)
    assert (line["mchid"], line["reason"]) == (other, "other_merchant")
    assert handler(http_api(headers, body, path="/a/notify"), None)["statusCode"] == 204
    assert recorder.names() == ["on_paid"]


FOREIGN = {
    "sqs": {"Records": [{"eventSource": "aws:sqs", "body": "{}"}]},
    "schedule": {"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}},
    "the console's test": {"key1": "value1", "key2": "value2"},
    "non-proxy integration": {"id": "EV-1", "event_type": "TRANSACTION.SUCCESS", "resource": {}},
    "websocket": {"requestContext": {"connectionId": "c", "eventType": "MESSAGE"}, "body": "{}"},
    "authorizer": rest_api([], b"") | {"type": "REQUEST", "methodArn": "arn:aws:execute-api:…"},
    "authorizer 2.0": http_api([], b"") | {"type": "REQUEST", "routeArn": "arn:aws:execute-api:…"},
    "lattice": {"version": "2.0", "method": "POST", "path": "/", "requestContext": {}},
    "null context": {"version": "2.0", "requestContext": None},
    "empty": {},
    "null": None,
    "list": [1],
    "text": "{}",
}


@pytest.mark.parametrize("event", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_event_is_an_error_that_names_what_was_expected(handler, event):
    with pytest.raises(ConfigError) as raised:
        handler(event, None)
    message = str(raised.value)
    for named in ("API Gateway", "REST", "HTTP API", "proxy", "Function URL", "Load Balancer"):
        assert named in message
    assert "value1" not in message


@pytest.mark.parametrize(
    ("body", "encoded", "said"),
    [
        ({"id": "1"}, False, "is a dict, not text"),
        ("§", True, "no Base64"),
        ("A", True, "no Base"),
    ],
)
def test_a_body_that_no_http_source_sends_is_an_error_that_says_so(handler, body, encoded, said):
    event = http_api([], b"") | {"body": body, "isBase64Encoded": encoded}
    with pytest.raises(ConfigError, match=said):
        handler(event, None)


@pytest.mark.parametrize(
    ("context", "deadline"),
    [
        (None, None),
        (Context(3000), timedelta(seconds=2.5)),
        (Context(500), timedelta(0)),
        (Context(0), timedelta(0)),
    ],
)
def test_the_deadline_is_lambdas_less_a_margin(context, deadline):
    told = []

    def receive(headers, body, *, deadline):
        told.append(deadline)
        return SimpleNamespace(status=204, headers=(), body=b"")

    receiver = SimpleNamespace(receive=receive, check_ready=lambda: None)
    kit = SimpleNamespace(receiver=receiver, store=None)
    notify_handler(lambda: kit)(http_api(*delivery()), context)
    assert told == [deadline]


def test_with_no_time_left_nothing_is_begun(handler, recorder):
    assert handler(http_api(*delivery()), Context(0))["statusCode"] == 503
    assert recorder.events == []
    assert handler(http_api(*delivery()), Context(3000))["statusCode"] == 204


def test_the_kit_is_built_with_the_first_delivery_and_once(kit):
    built = []
    handler = notify_handler(lambda: built.append(kit) or kit)
    assert built == []
    assert handler(http_api(*delivery(), method="GET"), None)["statusCode"] == 405
    assert built == []
    for _ in range(3):
        handler(http_api(*delivery()), None)
    handler.build()
    assert built == [kit]


def test_threads_that_come_together_build_one_kit(kit):
    built = []
    together = threading.Barrier(8, timeout=30)
    slow = threading.Event()

    def factory():
        built.append(kit)
        slow.wait(0.05)  # long enough for the others to come; too short only weakens the test
        return kit

    handler = notify_handler(factory)

    def deliver(_):
        together.wait()
        return handler(http_api(*delivery()), None)["statusCode"]

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(deliver, range(8))) <= {204, 503}
    assert built == [kit]


def test_what_the_factory_raises_is_raised_and_tried_again(kit):
    outcomes = [ConfigError("WECHATPAY_MCHID is missing"), kit]

    def factory():
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    handler = notify_handler(factory)
    with pytest.raises(ConfigError, match="WECHATPAY_MCHID"):
        handler(http_api(*delivery()), None)
    assert handler(http_api(*delivery()), None)["statusCode"] == 204


def test_a_kit_that_nobody_listens_to_is_refused(store):
    with pytest.raises(ConfigError, match="no plugin implements on_paid"):
        notify_handler(lambda: receiving_kit(store)).build()


def test_a_sqlite_store_is_refused_on_lambda_alone(kit, monkeypatch):
    notify_handler(lambda: kit).build()
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "notify")
    with pytest.raises(ConfigError, match=r"SQLite.*memory of its own.*dynamodb://"):
        notify_handler(lambda: kit).build()


def test_receiving_imports_neither_requests_nor_sqlite3():
    code = """
import json, sys
from wechatpay_kit import Kit, StoreError, hookimpl
from wechatpay_kit_lambda import Environment, notify_handler

class Fulfilment:
    @hookimpl
    def on_paid(self, event):
        pass

class Unreachable:
    def order(self, *number):
        raise StoreError("the database does not answer")

handler = notify_handler(
    lambda environ: Kit.from_env(environ=environ, plugins=[Fulfilment()], store=Unreachable(),
                                 receive_only=True),
    environ=Environment(),
)
handler.build()
answer = handler(json.load(sys.stdin), None)
heavy = ("requests", "sqlite3", "boto3", "botocore", "asyncio", "http.client", "urllib.request")
print(answer["statusCode"], *[name for name in heavy if name in sys.modules])
"""
    settings = {
        "WECHATPAY_BASE_URL": "http://127.0.0.1:9",
        "WECHATPAY_MCHID": KEYS.merchant.mchid,
        "WECHATPAY_APIV3_KEY": KEYS.merchant.apiv3_key.decode(),
        "WECHATPAY_PUBLIC_KEY_ID": KEYS.public_key.serial,
        "WECHATPAY_PUBLIC_KEY": KEYS.public_key.pem.decode(),
    }
    # Without coverage's own start-up in that process: it keeps its data in SQLite.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    event = http_api(*delivery(at=datetime.now(UTC)))
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(event),
        env=env | settings,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["503"]  # verified, decrypted, and on to the store
