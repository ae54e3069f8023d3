"""The exported suite itself: it finds what is wrong with an adapter, and costs nothing unused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from documents import names_of
from wechatpay_kit import ExpectedOrder, Kit, Transaction, hookimpl
from wechatpay_kit.models import decode
from wechatpay_kit_sandbox.testing import Deliveries, changed, without
from wechatpay_kit_sandbox.testing.bodies import LETTERS

TESTS = Path(__file__).parents[1]

RECEIVE = "kit.receiver.receive(headers, body)"

# What is wrong with the document's adapter then, and the tests of the suite that must find it.
FAULTS = {
    "reads one byte less": ("max_body + 1))", "max_body))", "refused"),
    "strips the body": (RECEIVE, RECEIVE.replace("body", "body.strip()"), "byte_for_byte"),
    "decodes the body": (RECEIVE, RECEIVE.replace("body", "decoded(body)"), "byte_for_byte"),
    "takes one of doubled headers": ("value)\n", 'value.split(",")[0])\n', "doubled"),
    "answers GET": ('!= "POST"', '== "PUT"', "405"),
    "names no other method": ('[("Allow", "POST")]', "[]", "405"),
    "takes any path": ("!= NOTIFY", '== "/"', "404"),
    "lets loopback pass": (
        RECEIVE,
        f'Answer(204) if environ["HTTP_HOST"].startswith("127.") else {RECEIVE}',
        "relaxes",
    ),
    "types an empty answer": (
        "list(answer.headers)",
        '[*answer.headers, ("Content-Type", "text/html")]',
        "fires_once",
    ),
    "hides the answer": ("[answer.body]", "[]", "refused"),
    "says 200": (
        'f"{answer.status} ',
        'f"{200 if answer.status == 204 else answer.status} ',
        "once",
    ),
    "awaits no hook": (
        RECEIVE,
        RECEIVE.replace("body", "body, run_async=never"),
        "once",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_adapter_with_a_fault_fails(fault, tmp_path):
    assert "failed" in result_of(fault, tmp_path)


def test_an_adapter_without_one_passes(tmp_path):
    result = result_of(None, tmp_path)
    assert "passed" in result
    assert "failed" not in result


def result_of(fault, folder):
    """The last line of a run of the suite, as its user runs it."""
    before, after, keyword = FAULTS[fault] if fault else ("", "", "refused or fires_once")
    module = folder / "test_mine.py"
    module.write_text(
        "from documents import names_of\n"
        "from wechatpay_kit import Answer\n"
        f"names = names_of('docs/adapters.md', ({before!r}, {after!r}))\n"
        "decoded = lambda body: body.decode(errors='replace').encode()\n"
        "never = lambda hook, *arguments: None\n"
        "names |= {'Answer': Answer, 'decoded': decoded, 'never': never}\n"
        "mount, TestMine = names['mount'], names['TestMyAdapter']\n",
        encoding="utf-8",
    )
    options = ["-q", "-x", "-p", "no:cacheprovider", "-W", "error", "-k", keyword]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(module)],
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


def test_the_test_in_the_document_passes():
    names_of("docs/adapters.md")["test_a_payment_is_heard_once"]()


def test_importing_it_needs_no_extra_and_the_builders_no_pytest():
    unwanted = ("starlette", "uvicorn", "requests", "click", "pytest", "flask")
    code = (
        "import sys\n"
        "from wechatpay_kit_sandbox.testing import Deliveries, http_sender, shop_of\n"
        f"print(*[m for m in {unwanted} if m in sys.modules])"
    )
    assert said_by(code).split() == []


def test_without_pytest_the_suite_says_so():
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "try:\n    from wechatpay_kit_sandbox.testing import AdapterConformance\n"
        "except ImportError as error:\n    print(error)"
    )
    assert said_by(code) == (
        "the conformance suite needs pytest, which is not installed: pip install pytest\n"
    )


def said_by(code):
    # Without coverage's own start-up in that process, which imports more.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    return done.stdout


# The builders


@pytest.fixture(scope="module")
def weixin():
    return Deliveries()


def test_each_has_keys_of_its_own_and_says_the_time(weixin):
    other = Deliveries(clock=lambda: datetime(2026, 11, 24, 2, tzinfo=UTC))
    assert other.mchid != weixin.mchid
    assert dict(other.signed(b""))["Wechatpay-Timestamp"] == "1795485600"
    assert other.transaction()["success_time"] == "2026-11-24T09:59:30+08:00"


def test_plaintexts_are_what_the_models_read(weixin):
    paid = decode(json.dumps(weixin.transaction("T1", 7, bank_type="CMC")).encode(), Transaction)
    assert (paid.out_trade_no, paid.amount.total, paid.mchid) == ("T1", 7, weixin.mchid)
    assert paid.bank_type == "CMC"
    assert weixin.refund("R1", 7, "ABNORMAL")["refund_status"] == "ABNORMAL"


def test_a_kit_hears_what_is_delivered(weixin, tmp_path):
    told = []

    class Shop:
        @hookimpl
        def on_paid(self, event):
            told.append(event.out_trade_no)

        @hookimpl
        def on_refund(self, event):
            told.append(event.out_refund_no)

        @hookimpl
        def expected_order(self, out_trade_no):
            return ExpectedOrder(total=100, appid=weixin.appid)

    kit = Kit.from_env(
        environ=weixin.environment(),
        plugins=[Shop()],
        store=f"sqlite:///{tmp_path / 'shop.db'}",
        receive_only=True,
    )
    receive = kit.receiver.receive
    headers, body = weixin.delivery()
    assert receive(headers, body).status == 204
    assert receive(*weixin.delivery(weixin.refund(), "REFUND.SUCCESS")).status == 204
    assert receive(without(headers, "Wechatpay-Nonce"), body).status == 400
    assert receive(changed(headers, "Wechatpay-Nonce", "other"), body).status == 401
    stale = weixin.delivery(at=weixin.now() - timedelta(minutes=6))
    assert receive(*stale).status == 401
    kit.close()
    assert told == ["T1001", "R1"]


def test_letters_are_of_many_kinds():
    assert {len(letter.encode()) for letter in LETTERS} == {1, 2, 3, 4}
