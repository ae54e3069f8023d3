"""What DynamoStore does beyond the contract of test_store.py, which it passes too.

Against moto's server, over real HTTP through boto3. That proves nothing about concurrency: moto
is no DynamoDB, and it answers one request at a time here (see dynamo_server.py). What the races
below show is that a claim that is refused by a condition is decided anew.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import boto3.session
import msgspec
import pytest

from core.dynamo_server import REGION, Between, dynamo_backend, endpoint, table_of
from core.facts_at_hand import (
    BUSY,
    CONFLICT,
    DONE,
    EXPIRED,
    FRESH,
    StoreTime,
    claim,
    closed,
    complete,
    conflicting,
    fail,
    failing,
    losing,
    order,
    outcome,
    paid,
    refund_record,
    refunded,
)
from deliveries import MCHID, NOW, delivery, receiving_kit, refund, transaction
from wechatpay_kit import ConfigError, StoreBusyError, StoreError
from wechatpay_kit.store import open_store
from wechatpay_kit.store.dynamodb import LAYOUT, DynamoStore, create_table

WORKER = Path(__file__).parent / "workers" / "dynamo.py"
OLD = NOW - timedelta(days=500)
HORIZON = NOW - timedelta(days=400)
SHORT = timedelta(seconds=0.4)
PATIENT = timedelta(seconds=30)


@pytest.fixture
def store_time():
    return StoreTime()


@pytest.fixture
def store(tmp_path, store_time):
    with closing(dynamo_backend(tmp_path, store_time)) as store:
        yield store


@pytest.fixture
def between():
    with Between() as proxy:
        yield proxy


@pytest.fixture
def proxied(tmp_path, store_time, between):
    """Opens a store that reaches its table through the proxy."""
    opened = []

    def open_proxied(**options):
        opened.append(
            DynamoStore(
                table_of(tmp_path),
                endpoint_url=between.url,
                **{"now": store_time, "wait": PATIENT} | options,
            )
        )
        return opened[-1]

    yield open_proxied
    for store in opened:
        store.close()


@pytest.fixture
def client():
    session = boto3.session.Session(region_name=REGION)
    with closing(session.client("dynamodb", endpoint_url=endpoint())) as client:
        yield client


def items(client, folder):
    return client.scan(TableName=table_of(folder))["Items"]


def at_once(*calls):
    """Run each in a thread, all at once; what they return, in order."""
    results, start = [None] * len(calls), threading.Barrier(len(calls))

    def run(index, call):
        start.wait(10)
        results[index] = call()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


# Clocks


def test_a_successor_waits_longer_than_the_lease_for_another_machines_clock(tmp_path, store_time):
    owner, other = (dynamo_backend(tmp_path, store_time, skew=timedelta(seconds=5)) for _ in "12")
    with closing(owner), closing(other), losing(owner, paid()):
        store_time.advance(64.9)
        assert outcome(other, paid()) is BUSY
        assert other.is_claimed(paid().key)
        assert other.unsettled(MCHID) == []
        store_time.advance(0.2)
        assert not other.is_claimed(paid().key)
        assert len(other.unsettled(MCHID)) == 1
        assert outcome(other, paid()) is FRESH


def test_the_margin_is_in_the_condition_itself(proxied, between, store_time, client, tmp_path):
    """Between our reading and our taking its owner renews, on a clock far behind."""
    store = proxied()

    def renewed(forward):
        client.update_item(
            TableName=table_of(tmp_path),
            Key={"pk": {"S": f"claim/{paid().key}"}, "sk": {"S": "claim"}},
            UpdateExpression="SET lease_until = :until",
            ExpressionAttributeValues={":until": {"N": str(store_time() - 4)}},
        )
        return forward()

    with losing(store, paid()):
        store_time.advance(66)
        between.faults["UpdateItem"] = [renewed]
        assert outcome(store, paid()) is BUSY


def test_five_seconds_are_the_default(tmp_path, store_time):
    store = DynamoStore(table_of(tmp_path), endpoint_url=endpoint(), now=store_time)
    with closing(store), losing(store, paid()):
        store_time.advance(64.9)
        assert outcome(store, paid()) is BUSY
        store_time.advance(0.2)
        assert outcome(store, paid()) is FRESH


def test_a_machine_whose_clock_is_ahead_does_not_let_itself_in(tmp_path, store_time):
    ahead = StoreTime()
    ahead.advance(4.9)
    owner = DynamoStore(table_of(tmp_path), endpoint_url=endpoint(), now=store_time)
    other = DynamoStore(table_of(tmp_path), endpoint_url=endpoint(), now=ahead)
    with closing(owner), closing(other):
        with claim(owner, paid(), hold=timedelta(seconds=3)) as held:
            ahead.advance(3)
            assert outcome(other, paid()) is BUSY
            held.complete_plugin("stock")
        assert outcome(other, paid()) is DONE


def test_a_machine_that_lets_itself_in_all_the_same_shuts_its_predecessor_out(tmp_path, store_time):
    far_ahead = StoreTime()
    far_ahead.advance(600)
    owner, other = dynamo_backend(tmp_path, store_time), dynamo_backend(tmp_path, far_ahead)
    with closing(owner), closing(other), losing(owner, paid()):
        complete(other, paid(source="query"))
        assert owner.order(MCHID, "T1001").source == "query"


def test_the_margin_does_not_shorten_a_lambdas_last_second(tmp_path, store_time):
    store = DynamoStore(table_of(tmp_path), endpoint_url=endpoint(), now=store_time)
    with closing(store):
        with claim(store, paid(), hold=timedelta(seconds=1)):
            store_time.advance(0.9)
        assert outcome(store, paid()) is DONE


# Outcomes that no one told us of


def test_a_claim_whose_answer_is_lost_is_ours_and_no_conflict(proxied, between):
    store = proxied()
    between.faults["TransactWriteItems"] = [between.answer_lost]
    with claim(store, paid()) as held:
        assert (held.outcome, held.attempt, held.fence) == (FRESH, 1, 1)
        held.complete_plugin("stock")
        assert outcome(proxied(), paid()) is BUSY
    assert outcome(store, paid()) is DONE


def test_a_claim_that_never_arrived_is_made_again(proxied, between):
    between.faults["TransactWriteItems"] = [between.request_lost]
    with claim(proxied(), paid()) as held:
        assert (held.outcome, held.attempt, held.fence) == (FRESH, 1, 1)


def test_a_second_attempt_whose_answer_is_lost_knows_what_was_completed(proxied, between):
    store = proxied()
    with failing(store, paid()) as held:
        held.complete_plugin("stock")
    between.faults["UpdateItem"] = [between.answer_lost]
    with claim(store, paid()) as held:
        assert (held.outcome, held.attempt, held.fence) == (FRESH, 2, 2)
        assert held.completed == {"stock"}


def test_a_refunds_claim_whose_answer_is_lost_is_ours(proxied, between):
    store = proxied()
    complete(store, refunded("ABNORMAL"))
    between.faults["TransactWriteItems"] = [between.answer_lost]
    with claim(store, refunded("SUCCESS")) as held:
        assert (held.outcome, held.attempt, held.fence) == (FRESH, 1, 2)
    assert store.refund(MCHID, "R1").status == "SUCCESS"


@pytest.mark.parametrize(
    "fact", [paid(), refunded(), conflicting(paid())], ids=["payment", "refund", "conflict"]
)
def test_a_completion_whose_answer_is_lost_is_done(proxied, between, fact):
    store = proxied()
    with claim(store, fact) as held:
        assert held.outcome is FRESH
        for operation in ("TransactWriteItems", "UpdateItem"):
            between.faults[operation] = [between.answer_lost]
    assert sorted(map(len, between.faults.values())) == [0, 1]
    assert outcome(store, fact) is DONE
    assert store.unsettled(MCHID) == []


def test_a_completion_that_never_arrives_is_not_done_and_says_so(proxied, between, store_time):
    store = proxied(wait=SHORT)
    with pytest.raises(StoreBusyError), claim(store, paid()):
        between.faults["any"] = [between.request_lost] * 50
    between.faults.clear()
    assert store.order(MCHID, "T1001") is None
    assert outcome(store, paid()) is BUSY
    store_time.advance(66)
    assert outcome(store, paid()) is FRESH


def test_a_completion_of_unknown_outcome_is_refused_now_and_done_at_the_next_delivery(
    proxied, between
):
    store = proxied(wait=SHORT)
    with pytest.raises(StoreBusyError), claim(store, paid()):
        between.faults["TransactWriteItems"] = [between.answer_lost] + [between.request_lost] * 50
    between.faults.clear()
    assert outcome(store, paid()) is DONE
    assert store.order(MCHID, "T1001").state == "paid"


@pytest.mark.parametrize("fact", [paid(), refunded()], ids=["payment", "refund"])
def test_a_plugins_completion_whose_answer_is_lost_is_remembered(proxied, between, fact):
    store = proxied()
    with failing(store, fact) as held:
        between.faults["any"] = [between.answer_lost]
        held.complete_plugin("stock")
    with claim(store, fact) as held:
        assert held.completed == {"stock"}


def test_a_release_whose_answer_is_lost_has_released(proxied, between):
    store = proxied()
    with failing(store, paid(), "no paper"):
        between.faults["any"] = [between.answer_lost]
    assert "no paper" in store.unsettled(MCHID)[0].last_error
    assert outcome(store, paid()) is FRESH


def test_a_release_that_fails_hides_no_hooks_exception(proxied, between):
    store = proxied(wait=SHORT)
    with failing(store, paid()):
        between.faults["any"] = [between.request_lost] * 50
    between.faults.clear()
    assert outcome(store, paid()) is BUSY  # its lease ends by itself


def test_records_whose_answers_are_lost_are_kept_once(proxied, between):
    store = proxied()
    between.faults["UpdateItem"] = [between.answer_lost]
    assert store.add_order(order(state="placing")) == order(state="placing")
    between.faults["UpdateItem"] = [between.answer_lost]
    store.order_answered(MCHID, "T1001", state="open", prepay_id="wx1", at=NOW)
    assert store.order(MCHID, "T1001").prepay_id == "wx1"
    between.faults["TransactWriteItems"] = [between.answer_lost]
    assert store.add_refund(refund_record()) == refund_record()
    between.faults["TransactWriteItems"] = [between.answer_lost]
    store.refund_answered(refund_record(status="PROCESSING"))
    assert store.refunds(MCHID, "T1001") == [refund_record(status="PROCESSING")]


def test_a_lost_answer_is_asked_for_under_the_same_token_and_a_refusal_under_another(
    proxied, between
):
    between.faults["TransactWriteItems"] = [
        between.refused("TransactionCanceledException", reasons=["TransactionConflict", "None"]),
        between.request_lost,
        between.refused("TransactionInProgressException"),
        between.refused("InternalServerError", status=500),
        between.refused("ThrottlingException"),
    ]
    with claim(proxied(), paid()) as held:
        assert held.outcome is FRESH
        tokens = [b["ClientRequestToken"] for b in between.bodies if "ClientRequestToken" in b]
    refused, *unknown, after = tokens
    assert len(unknown) == 4
    assert len(set(unknown)) == 1
    assert len({refused, unknown[0], after}) == 3


# Busy, in time


@pytest.mark.parametrize(
    "refusal",
    [
        {"code": "ProvisionedThroughputExceededException"},
        {"code": "ThrottlingException"},
        {"code": "RequestLimitExceeded"},
        {"code": "TransactionConflictException"},
        {"code": "InternalServerError", "status": 500},
        {"code": "ServiceUnavailable", "status": 503},
    ],
    ids=lambda refusal: refusal["code"],
)
def test_what_passes_is_waited_for_and_is_busy_when_it_does_not_pass(proxied, between, refusal):
    between.faults["any"] = [between.refused(**refusal)] * 2
    complete(proxied(), paid())
    between.faults["any"] = [between.refused(**refusal)] * 500
    began = time.monotonic()
    with pytest.raises(StoreBusyError, match=rf"DynamoDB table t\w+.*{refusal['code']}"):
        outcome(proxied(wait=SHORT), paid("T2"))
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    "reason", ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"]
)
def test_a_transaction_cancelled_by_a_passing_reason_is_made_again(proxied, between, reason):
    refusal = between.refused("TransactionCanceledException", reasons=["None", reason])
    between.faults["TransactWriteItems"] = [refusal] * 3
    complete(proxied(), paid())
    assert between.operations.count("TransactWriteItems") == 5


def test_a_conflict_with_another_transaction_is_decided_anew_by_what_that_one_wrote(
    proxied, between, store
):
    """Two claims meet: ours is cancelled, and then its condition fails."""
    proxy = proxied()

    def conflict(_forward):
        complete(store, paid())
        return between.refused("TransactionCanceledException", reasons=["TransactionConflict"])(0)

    between.faults["TransactWriteItems"] = [conflict]
    assert outcome(proxy, paid()) is DONE


def test_an_open_conflict_about_what_is_completed_is_done_in_the_same_transaction(proxied, between):
    store = proxied()
    fail(store, conflicting(paid(), "unknown_order"))
    complete(store, paid())
    (last,) = between.bodies[-1:]
    assert len(last["TransactItems"]) == 3
    assert store.unsettled(MCHID) == []
    assert outcome(store, conflicting(paid(), "unknown_order")) is DONE


def test_a_conflict_taken_between_reading_and_completing_is_left_to_its_owner(
    proxied, between, store
):
    proxy, conflict = proxied(), conflicting(paid(), "unknown_order")
    fail(store, conflict)
    work = claim(store, conflict)

    def taken(forward):
        work.__enter__()
        return forward()

    with claim(proxy, paid()):
        between.faults["TransactWriteItems"] = [taken, between.answer_lost]
    assert outcome(proxy, paid()) is DONE
    assert outcome(proxy, conflict) is BUSY
    assert not work.__exit__(None, None, None)
    assert outcome(proxy, conflict) is DONE


@pytest.mark.parametrize("fact", [closed(), paid(transaction_id="4200002")], ids=["closed", "paid"])
def test_a_condition_that_fails_is_decided_anew(proxied, between, store, fact):
    def overtaken(forward):
        complete(store, paid())
        return forward()

    between.faults["TransactWriteItems"] = [overtaken]
    assert outcome(proxied(), fact) is CONFLICT


def test_a_refund_status_overtaken_between_reading_and_taking_does_not_fire(
    proxied, between, store
):
    def overtaken(forward):
        complete(store, refunded("SUCCESS"))
        return forward()

    between.faults["TransactWriteItems"] = [overtaken]
    assert outcome(proxied(), refunded("ABNORMAL")) is DONE


def test_a_plugin_completed_between_reading_and_taking_is_not_run_again(
    proxied, between, store_time
):
    """The owner's clock is behind: it works on while its successor reads."""
    ahead = proxied(now=lambda: store_time() + 70)
    owner = proxied()
    with losing(owner, paid()) as stale:

        def completes(forward):
            stale.complete_plugin("stock")
            return forward()

        between.faults["UpdateItem"] = [completes]
        with claim(ahead, paid()) as held:
            assert held.outcome is FRESH
            assert held.completed == {"stock"}


def test_a_server_that_says_nothing_is_busy_within_what_wechat_pay_waits(proxied, between):
    store = proxied(wait=timedelta(seconds=2))  # the default
    between.faults["any"] = [between.stalls] * 50
    began = time.monotonic()
    with pytest.raises(StoreBusyError, match="did not answer"):
        outcome(store, paid())
    assert time.monotonic() - began < 5


def test_a_shorter_wait_of_the_caller_bounds_every_request_of_its_claim(proxied, between):
    store = proxied()
    throttled = between.refused("ThrottlingException")
    began = time.monotonic()
    with failing(store, paid(), wait=timedelta(seconds=0.2)) as held:
        between.faults["any"] = [throttled] * 500
        with pytest.raises(StoreBusyError):
            held.complete_plugin("stock")
    with pytest.raises(StoreBusyError), claim(store, paid(), wait=timedelta(seconds=0.2)):
        pytest.fail("claimed")
    assert time.monotonic() - began < 4


def test_a_duplicate_needs_no_time_left(store):
    complete(store, paid())
    for limit in ("hold", "wait"):
        assert outcome(store, paid(), **{limit: timedelta(0)}) is DONE


# Errors that do not pass


@pytest.mark.parametrize(
    ("code", "message", "remedy"),
    [
        ("AccessDeniedException", "is not authorized to perform", "IAM policy"),
        ("ExpiredTokenException", "The security token is expired", "credentials"),
        ("UnrecognizedClientException", "The security token is invalid", "credentials"),
        ("ValidationException", "The provided key element does not match", "what it needs"),
        ("ValidationException", "Item size has exceeded the maximum", "400 KB"),
    ],
)
def test_what_does_not_pass_names_table_fault_and_remedy(proxied, between, code, message, remedy):
    store = proxied()
    between.faults["any"] = [between.refused(code, message=message)]
    with pytest.raises(StoreError, match=rf"table t\w+.*{code}.*{message}.*{remedy}") as raised:
        store.order(MCHID, "T1001")
    assert not isinstance(raised.value, StoreBusyError)
    assert between.operations == ["GetItem"]


def test_a_missing_table_is_named_with_what_makes_it():
    store = DynamoStore("not-made-yet", endpoint_url=endpoint())
    for act in (
        lambda: outcome(store, paid()),
        lambda: store.add_order(order()),
        lambda: store.unsettled(MCHID),
        lambda: store.purge(MCHID, NOW),
    ):
        with pytest.raises(StoreError, match=r"not-made-yet.*create_table"):
            act()
    store.close()


def test_a_server_that_cannot_be_reached_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    store = DynamoStore("wechatpay", endpoint_url=address, wait=SHORT)
    with pytest.raises(StoreError, match=r"table wechatpay cannot be reached"):
        store.order(MCHID, "T1001")


@pytest.mark.parametrize("status", [200, 404, 502])
def test_an_answer_that_is_no_dynamodbs_is_neither_nothing_nor_done(proxied, between, status):
    """botocore takes any 200 for an answer: a portal's page would be an item that is not there."""
    between.faults["any"] = [lambda _forward: (status, b"<html>sign in</html>", None)] * 50
    store = proxied(wait=SHORT)
    for act in (
        lambda: store.order(MCHID, "T1001"),
        lambda: store.add_order(order()),
        lambda: outcome(store, paid()),
    ):
        with pytest.raises(StoreError):
            act()


def test_without_credentials_it_says_so(monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    store = DynamoStore("wechatpay", endpoint_url=endpoint())
    with closing(store), pytest.raises(StoreError, match=r"wechatpay.*credentials.*configuration"):
        store.order(MCHID, "T1001")


def test_without_a_region_it_is_refused_at_once(monkeypatch):
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(ConfigError, match="AWS_DEFAULT_REGION"):
        DynamoStore("wechatpay")
    DynamoStore("wechatpay", region=REGION).close()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("import wechatpay_kit.store.dynamodb", "ImportError: DynamoStore needs boto3"),
        ("from wechatpay_kit import DynamoStore", "ImportError: DynamoStore needs boto3"),
        (
            "from wechatpay_kit.store import open_store; open_store('dynamodb://wechatpay')",
            "ConfigError: dynamodb://wechatpay: DynamoStore needs boto3",
        ),
    ],
    ids=["module", "name", "setting"],
)
@pytest.mark.parametrize("missing", ["boto3", "botocore"])
def test_without_boto3_it_says_what_to_install(line, said, missing):
    code = f"import sys; sys.modules[{missing!r}] = None\n{line}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"{said}, which is not installed: pip install 'wechatpay-kit[dynamodb]'" in done.stderr


def test_an_order_of_more_than_400_kb_is_refused(store):
    with pytest.raises(StoreError, match="400 KB"):
        store.add_order(order(body=b"x" * 410_000))
    with pytest.raises(StoreError, match="400 KB"):
        store.add_refund(refund_record(body=b"x" * 410_000))


def test_what_an_error_says_holds_no_secret(proxied, between):
    between.faults["any"] = [between.refused("AccessDeniedException")]
    with pytest.raises(StoreError) as raised:
        proxied().add_order(order(body=b'{"openid":"oUpF8u"}'))
    assert "oUpF8u" not in str(raised.value)


# The address


def test_an_address_opens_that_table(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", endpoint())
    table = table_of(tmp_path)
    with closing(open_store(f"dynamodb://{table}")) as store:
        complete(store, paid())
        assert repr(store) == f"DynamoStore('{table}')"


@pytest.mark.parametrize(
    "url",
    [
        "dynamodb:",
        "dynamodb://",
        "dynamodb:///wechatpay",
        "dynamodb://wechatpay/orders",
        "dynamodb://wechatpay?region=x",
        "dynamodb://we chat",
        "dynamodb://支付",
        "dynamodb://ab",
        "dynamodb://user:secret@wechatpay",
    ],
)
def test_an_address_that_names_no_table_is_refused(url):
    with pytest.raises(ConfigError, match="dynamodb://"):
        open_store(url)


def test_the_address_of_a_table_keeps_its_capitals():
    with closing(open_store("dynamodb://WeChatPay_1.b-c")) as store:
        assert repr(store) == "DynamoStore('WeChatPay_1.b-c')"


# The table


def test_a_table_is_created_once_as_the_layout_says(tmp_path, client):
    create_table("made-once", endpoint_url=endpoint())
    with pytest.raises(StoreError, match="made-once"):
        create_table("made-once", endpoint_url=endpoint())
    table = client.describe_table(TableName="made-once")["Table"]
    assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert table["KeySchema"] == LAYOUT["KeySchema"]
    (index,) = table["GlobalSecondaryIndexes"]
    assert index["Projection"] == {"ProjectionType": "KEYS_ONLY"}


def everything(store, store_time):
    """Every call of a store, and every turn of a claim."""
    store.add_order(order())
    store.order_answered(MCHID, "T1001", state="open", prepay_id="wx1", at=NOW)
    fail(store, paid())
    with claim(store, paid()) as held:
        held.complete_plugin("stock")
    store.add_refund(refund_record())
    store.refund_answered(refund_record(status="PROCESSING"))
    for status in ("ABNORMAL", "SUCCESS", "ABNORMAL"):
        with claim(store, refunded(status)) as held:
            if held.outcome is FRESH:
                held.complete_plugin("stock")
    fail(store, conflicting(paid(transaction_id="4200002")))
    assert store.is_claimed(paid().key)
    assert len(store.refunds(MCHID, "T1001")) == 1
    assert len(store.unsettled(MCHID)) == 1
    store.purge(MCHID, NOW + timedelta(days=1))


def test_every_read_of_the_table_is_strongly_consistent(proxied, between, store_time):
    everything(proxied(), store_time)
    reads = {"GetItem", "Query", "BatchGetItem"}
    assert reads <= set(between.operations)
    for operation, body in zip(between.operations, between.bodies, strict=True):
        if operation in reads and "IndexName" not in body:
            asked = next(iter(body["RequestItems"].values())) if "RequestItems" in body else body
            assert asked["ConsistentRead"] is True


def writes(between):
    """Every single action that was written, with its operation's number."""
    for number, (operation, body) in enumerate(
        zip(between.operations, between.bodies, strict=True)
    ):
        if operation == "TransactWriteItems":
            yield from ((number, next(iter(a.values()))) for a in body["TransactItems"])
        elif operation in {"UpdateItem", "DeleteItem"}:
            yield number, body


def test_the_owner_writes_under_its_fence_and_nothing_but_under_a_condition(
    proxied, between, store_time
):
    store = proxied()
    with claim(store, paid()) as held:
        held.complete_plugin("stock")
    with claim(store, refunded()) as held:
        held.complete_plugin("stock")
    fail(store, refunded(number="R2"))
    statements = {}
    for number, action in writes(between):
        statements.setdefault(number, []).append(action.get("ConditionExpression", ""))
    assert len(statements) == 8
    for conditions in statements.values():
        assert any("#fence" in condition for condition in conditions)


def test_a_claim_and_its_record_are_done_in_one_transaction(proxied, between):
    complete(proxied(), paid())
    (last,) = (b for b in between.bodies[-1:])
    keys = {next(iter(a.values()))["Key"]["pk"]["S"] for a in last["TransactItems"]}
    assert keys == {f"claim/{paid().key}", f"order/{MCHID}/T1001"}


def test_more_than_a_batch_of_unsettled_facts_are_all_listed(store):
    for number in range(103):
        fail(store, paid(f"T{number}"), now=NOW + timedelta(seconds=number))
    assert [left.out_trade_no for left in store.unsettled(MCHID)] == [f"T{n}" for n in range(103)]


def test_keys_that_a_batch_leaves_unprocessed_are_asked_for_again(proxied, between):
    store = proxied()
    fail(store, paid())

    def leaves(forward):
        request = between.bodies[-1]["RequestItems"]
        return 200, json.dumps({"Responses": {}, "UnprocessedKeys": request}).encode(), "id"

    between.faults["BatchGetItem"] = [leaves, leaves]
    assert len(store.unsettled(MCHID)) == 1
    between.faults["BatchGetItem"] = [leaves] * 100
    with pytest.raises(StoreBusyError, match="UnprocessedKeys"):
        proxied(wait=SHORT).unsettled(MCHID)


def test_what_the_index_still_lists_and_the_table_no_longer_holds_so_is_not_shown(proxied, between):
    """An index is some milliseconds behind; what it proposes is looked up."""
    store = proxied()
    fail(store, paid())

    def late(forward):
        listed = forward()
        complete(store, paid())
        return listed

    between.faults["Query"] = [late]
    assert store.unsettled(MCHID) == []


def test_a_status_that_was_overtaken_is_no_operators_business(store):
    fail(store, refunded("ABNORMAL"))
    complete(store, refunded("SUCCESS"))
    assert len(store.unsettled(MCHID)) == 1
    assert outcome(store, refunded("ABNORMAL")) is DONE
    assert store.unsettled(MCHID) == []


def test_a_stale_owner_that_fails_beside_its_refunds_next_status_is_released(store, store_time):
    work = claim(store, refunded("ABNORMAL"))
    work.__enter__()
    store_time.advance(61)
    with claim(store, refunded("SUCCESS")) as held:
        assert held.outcome is FRESH
        error = ZeroDivisionError("late")
        assert not work.__exit__(type(error), error, None)
        (left,) = store.unsettled(MCHID)
        assert "late" in left.last_error
    assert store.refund(MCHID, "R1").status == "SUCCESS"


# Forgetting


def test_purging_leaves_nothing_behind_but_the_horizon(store, client, tmp_path):
    for fact in (
        paid(at=OLD, settled_at=OLD),
        refunded("ABNORMAL", at=OLD),
        refunded("SUCCESS", at=OLD),
    ):
        record = msgspec.structs.replace(fact.record, settled_at=OLD)
        complete(store, msgspec.structs.replace(fact, record=record), now=OLD)
    assert store.purge(MCHID, HORIZON) == 3
    assert [item["pk"]["S"] for item in items(client, tmp_path)] == [f"memory/{MCHID}"]
    assert outcome(store, refunded("SUCCESS", at=OLD)) is EXPIRED


def test_an_order_with_an_open_refund_or_conflict_is_kept(store):
    with claim(store, paid(at=OLD, settled_at=OLD), now=OLD):
        pass
    fail(store, refunded(at=OLD), now=OLD)
    assert store.purge(MCHID, HORIZON) == 0
    assert store.order(MCHID, "T1001") is not None


@pytest.mark.parametrize(
    ("kept", "done"),
    [
        (conflicting(paid(transaction_id="4200002", at=OLD), "second_payment"), OLD),
        (refunded(at=OLD), NOW),
        (refunded(at=NOW), OLD),
    ],
    ids=["a conflict", "done lately", "of late"],
)
def test_all_that_concerns_an_order_is_kept_with_what_must_be_kept(store, kept, done):
    complete(store, paid(at=OLD, settled_at=OLD), now=OLD)
    complete(store, refunded("ABNORMAL", at=OLD), now=OLD)
    complete(store, kept, now=done)
    assert store.purge(MCHID, HORIZON) == 0
    assert store.order(MCHID, "T1001") is not None
    for fact in (paid(at=OLD), refunded("ABNORMAL", at=OLD), kept):
        assert outcome(store, fact) is DONE


def test_a_horizon_moves_on_and_is_one_merchants(store):
    store.purge(MCHID, HORIZON - timedelta(days=10))
    assert outcome(store, paid("T1", at=HORIZON - timedelta(days=1))) is FRESH
    store.purge(MCHID, HORIZON)
    assert outcome(store, paid("T2", at=HORIZON - timedelta(days=1))) is EXPIRED
    assert outcome(store, paid("T2", at=OLD, mchid="1900000009")) is FRESH


def test_a_fact_without_a_time_is_expired_once_anything_was_purged(store):
    assert outcome(store, paid("T1", at=None)) is FRESH
    store.purge(MCHID, HORIZON)
    assert outcome(store, paid("T2", at=None)) is EXPIRED
    assert outcome(store, paid("T1", at=None)) is FRESH  # it was claimed before
    complete(store, paid("T1", at=None))
    assert store.purge(MCHID, NOW + timedelta(days=1)) == 0


def test_the_horizon_stands_before_anything_is_forgotten(proxied, between):
    store = proxied()
    with claim(store, paid("T1", at=OLD), now=OLD):
        pass
    between.faults["TransactWriteItems"] = [between.refused("AccessDeniedException")]
    with pytest.raises(StoreError):
        store.purge(MCHID, HORIZON)
    assert outcome(store, paid("T2", at=OLD)) is EXPIRED
    assert outcome(store, paid("T1", at=OLD)) is DONE
    assert store.purge(MCHID, HORIZON) == 1


def test_a_purge_while_a_claim_is_read_makes_no_old_fact_fresh(proxied, between, store):
    """The claim is read as missing because the purge has just deleted it."""
    with claim(store, paid(at=OLD), now=OLD):
        pass

    def purges_first(forward):
        store.purge(MCHID, HORIZON)
        return forward()

    between.faults["GetItem"] = [purges_first]
    assert outcome(proxied(), paid(at=OLD)) is EXPIRED


def test_what_is_claimed_again_while_it_is_purged_is_kept(proxied, between, store):
    """The index lists it as done; the condition finds what it has become."""
    fact = refunded("ABNORMAL", at=OLD)
    with claim(store, fact, now=OLD):
        pass

    def young(forward):
        listed = forward()
        client = store._table._client
        client.update_item(
            TableName=store._table.name,
            Key={"pk": {"S": f"claim/{fact.key}"}, "sk": {"S": "claim"}},
            UpdateExpression="SET done_at = :now",
            ExpressionAttributeValues={":now": {"N": str(NOW.timestamp())}},
        )
        return listed

    between.faults["Query"] = [young]
    assert proxied().purge(MCHID, HORIZON) == 0
    assert outcome(store, fact) is DONE


def test_a_fence_does_not_turn_back_when_its_subjects_lease_was_purged(store):
    abnormal, closed_refund = (
        msgspec.structs.replace(refunded(status, at=OLD), out_trade_no=None)
        for status in ("ABNORMAL", "CLOSED")
    )
    complete(store, abnormal, now=OLD)
    fail(store, closed_refund, now=OLD)
    assert store.purge(MCHID, HORIZON) == 1
    with claim(store, closed_refund) as held:
        assert (held.outcome, held.attempt, held.fence) == (FRESH, 2, 3)


# Threads, processes, forks


def test_of_many_threads_one_claims_each_order(store):
    for number in range(5):
        fresh = []

        def work(n=number, seen=fresh):
            with claim(store, paid(f"T{n}")) as held:
                if held.outcome is FRESH:
                    seen.append(held.fence)
                return held.outcome

        outcomes = at_once(*[work] * 8)
        assert fresh == [1]
        assert set(outcomes) <= {FRESH, BUSY, DONE}
        assert store.order(MCHID, f"T{number}").state == "paid"


def test_paid_and_closed_at_once_settle_one_of_them(store):
    def work(fact):
        with claim(store, fact) as held:
            return held.outcome

    for number in range(10):
        n = f"T{number}"
        found = at_once(lambda n=n: work(paid(n)), lambda n=n: work(closed(n)))
        assert found.count(FRESH) == 1
        assert set(found) <= {FRESH, BUSY, CONFLICT}
        state = "paid" if found[0] is FRESH else "closed"
        assert store.order(MCHID, n).state == state


def test_a_kit_on_it_fires_once_and_tells_what_is_unsettled(store, recorder):
    kit = receiving_kit(store, recorder)
    store.add_order(order(state="placing"))
    statuses = at_once(*[lambda: kit.receiver.receive(*delivery(transaction())).status] * 4)
    assert set(statuses) <= {204, 503}
    assert kit.receiver.receive(*delivery(transaction())).status == 204
    assert recorder.names().count("on_paid") == 1
    assert kit.receiver.receive(*delivery(refund(), "REFUND.SUCCESS")).status == 204
    assert recorder.names().count("on_refund") == 1
    recorder.conflicts_handled = False
    wrong = delivery(transaction("T1002"))
    assert kit.receiver.receive(*wrong).status == 500
    assert [left.reason for left in kit.unsettled()] == ["unknown_order"]
    assert kit.purge() == 0


def worker(**job):
    said = json.dumps(job | {"endpoint": endpoint()})
    return subprocess.Popen(
        [sys.executable, str(WORKER), said],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_processes_claim_each_fact_once(tmp_path):
    effects, keys = tmp_path / "effects", [f"k{number}" for number in range(20)]
    job = {"table": table_of(tmp_path), "does": "race", "keys": keys, "effects": str(effects)}
    workers = [worker(**job) for _ in range(2)]
    assert [w.stdout.readline() for w in workers] == ["ready\n"] * 2
    for w in workers:
        w.stdin.write("go\n")
        w.stdin.flush()
    for w in workers:
        w.communicate(timeout=60)
        assert w.returncode == 0
    assert sorted(effects.read_text().split()) == sorted(keys)


def test_a_fork_has_a_client_of_its_own(tmp_path):
    forking = worker(table=table_of(tmp_path), does="fork")
    forking.communicate(timeout=60)
    assert forking.returncode == 0


def test_the_client_is_made_with_the_store_and_not_by_the_first_delivery(tmp_path, monkeypatch):
    store = DynamoStore(table_of(tmp_path), endpoint_url=endpoint())
    monkeypatch.setattr(boto3.session, "Session", None)
    complete(store, paid())
    store.close()


def test_a_closed_store_opens_again(store):
    complete(store, paid())
    store.close()
    store.close()
    assert outcome(store, paid()) is DONE


def test_neither_the_kit_nor_sqlite_pays_for_boto3(tmp_path):
    code = (
        "import sys, wechatpay_kit, wechatpay_kit.store\n"
        f"wechatpay_kit.store.open_store('sqlite:///{tmp_path}/shop.db')\n"
        "print(*[m for m in ('boto3', 'botocore') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
