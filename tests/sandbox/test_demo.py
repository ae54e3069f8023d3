"""The demo as a user runs it: one command, the whole story, and a failure that is one."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta

import pytest

from wechatpay_kit_sandbox import Sandbox
from wechatpay_kit_sandbox.clock import BEIJING
from wechatpay_kit_sandbox.demo import StoryError, story, tell
from wechatpay_kit_sandbox.demo.stage import leave_midnight_behind

MONEY = r"8800 fen \(¥88\.00\)"
NUMBER = r"DEMO\d{14}"
NOTIFIED = r"http://127\.0\.0\.1:\d+/wechatpay/notify, answered 204 in \d+ ms"

# Every line of the story, in order.
TOLD = (
    (r"sandbox", r"http://127\.0\.0\.1:\d+"),
    (r"shop", r"http://127\.0\.0\.1:\d+"),
    r" 1\. An order is placed",
    (r"out_trade_no", rf"{NUMBER}A"),
    (r"total", MONEY),
    (r"prepay_id", r"wx\S+"),
    r" 2\. Parameters for wx\.requestPayment",
    (r"timeStamp", r"\d{10}"),
    (r"nonceStr", r"\w{32}"),
    (r"package", r"prepay_id=wx\S+"),
    (r"signType", r"RSA"),
    (r"paySign", r"\S{56}… \(344 characters\)"),
    (r"checked", r"paySign verifies with the merchant's public key"),
    r" 3\. The user pays",
    (r"trade_state", r"SUCCESS"),
    (r"transaction_id", r"4200\d{24}"),
    (r"delivered to", NOTIFIED),
    r" 4\. The notification, verified and decrypted by the shop",
    (r"id", r"[0-9a-f-]{36}"),
    (r"signed by", r"PUB_KEY_ID_\d+"),
    (r"event_type", r"TRANSACTION\.SUCCESS"),
    (r"transaction_id", r"4200\d{24}"),
    (r"amount\.total", MONEY),
    r" 5\. on_paid fired once",
    (r"on_paid", rf"1 time, for {NUMBER}A"),
    (r"event\.key", rf"order/\d+/{NUMBER}A"),
    (r"order", r"paid"),
    r" 6\. The same notification again, twice at once",
    (r"answers", r"204 and 204"),
    (r"on_duplicate", r"2 times"),
    (r"on_paid", r"still 1 time: nothing is shipped twice"),
    r" 7\. A forged, a stale and a tampered notification",
    (r"forged", r"401 signature does not verify"),
    (r"stale", r"401 timestamp outside the window"),
    (r"tampered", r"401 signature does not verify"),
    (r"on_rejected", r"3 times"),
    r" 8\. Part of the money is refunded",
    (r"out_refund_no", rf"{NUMBER}A-R1"),
    (r"refund_id", r"50\d{27}"),
    (r"amount", rf"3000 fen \(¥30\.00\) of {MONEY}"),
    (r"accepted as", r"PROCESSING"),
    (r"delivered to", NOTIFIED),
    (r"on_refund", rf"1 time, SUCCESS, for {NUMBER}A-R1"),
    r" 9\. A second order, never paid",
    (r"out_trade_no", rf"{NUMBER}B"),
    (r"queried", r"NOTPAY"),
    (r"closed", r"CLOSED at the gateway, settlement fired"),
    (r"on_closed", rf"1 time, for {NUMBER}B"),
    r"10\. Tomorrow, 10:00: the day's bill",
    (r"clock", r"[\d-]{10} [\d:]{8} turned to [\d-]{10} 10:00:00, Beijing"),
    (r"bill of", r"[\d-]{10}, \d+ bytes"),
    (r"SHA-1", r"[0-9a-f]{40}, as announced"),
    (r"row", rf"[\d:]{{8}}  SUCCESS  {NUMBER}A     {MONEY}"),
    (r"row", rf"[\d:]{{8}}  REFUND   {NUMBER}A-R1  3000 fen \(¥30\.00\)"),
)


SHOPS = {
    "flask": "a shop in Flask",
    "starlette": "a shop in Starlette",
    "lambda": "a shop with a Lambda handler",
}


def run(*arguments, **environment):
    """The command as the console script runs it."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "wechatpay_kit.cli", "demo", *arguments],
        env=os.environ | {"PYTHONIOENCODING": "utf-8"} | environment,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def expected(adapter):
    return [
        rf"A sandbox of WeChat Pay and {SHOPS[adapter]}, talking HTTP on this machine\.",
        *(line if isinstance(line, str) else rf" {{4}}{line[0]} +{line[1]}" for line in TOLD),
        r"All of it happened, each step checked, in \d+\.\d s\.",
    ]


@pytest.fixture(scope="module", params=SHOPS)
def done(request):
    """One run with each adapter, and how many seconds it took."""
    began = time.monotonic()
    done = run("--adapter", request.param)
    done.seconds = time.monotonic() - began
    done.adapter = request.param
    return done


def test_the_same_story_is_told_with_each_adapter(done):
    assert (done.returncode, done.stderr) == (0, "")
    assert done.seconds < 20
    told = [line for line in done.stdout.splitlines() if line]
    assert len(told) == len(expected(done.adapter))
    for line, pattern in zip(told, expected(done.adapter), strict=True):
        assert re.fullmatch(pattern, line), (line, pattern)


def test_values_of_the_story_fit_together(done):
    told = done.stdout
    (number,) = set(re.findall(rf"({NUMBER})A", told))
    assert set(re.findall(rf"{NUMBER}B", told)) == {f"{number}B"}
    assert len(set(re.findall(r"4200\d{24}", told))) == 1
    assert len(set(re.findall(r"\bwx\d+\w+", told))) == 1
    assert len(set(re.findall(r"/wechatpay/notify", told))) == 1


def test_lines_are_aligned_and_fit_a_terminal(done):
    values = [line for line in done.stdout.splitlines() if line.startswith("    ")]
    assert {re.match(r" {4}\S+( \S+)? {2,}", line).end() for line in values} == {20}
    assert max(map(len, values)) <= 100


def test_an_output_that_knows_only_ascii():
    done = run(PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert SHOPS["flask"] in done.stdout  # who plays where no adapter is named
    assert "8800 fen (CNY 88.00)" in done.stdout
    assert "... (344 characters)" in done.stdout


def test_a_proxy_in_the_environment_is_not_asked_for_the_way_to_loopback():
    nowhere = "http://127.0.0.1:9"
    done = run(HTTP_PROXY=nowhere, http_proxy=nowhere, ALL_PROXY=nowhere)
    assert (done.returncode, done.stderr) == (0, "")


def test_nothing_is_left_behind(tmp_path):
    assert run(TMPDIR=str(tmp_path)).returncode == 0
    assert list(tmp_path.iterdir()) == []


# What fails, fails


def test_a_notification_that_nobody_takes_is_said_and_exits_non_zero(tmp_path):
    done = run("--notify-url", "http://127.0.0.1:9/notify", TMPDIR=str(tmp_path))
    assert done.returncode == 1
    assert " 3. The user pays" in done.stdout
    assert " 4. " not in done.stdout
    assert "All of it happened" not in done.stdout
    said = done.stderr.strip().splitlines()
    assert said[0].startswith(
        "This did not happen: The user pays: "
        "the notification to http://127.0.0.1:9/notify was not acknowledged: "
    )
    assert all(line.startswith("    log: call ") for line in said[1:])
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_notification_to_the_wrong_page_of_a_shop(shared_sandbox):
    with pytest.raises(StoryError, match=r"was not acknowledged: status 404"):
        tell(lambda line: None, notify_url=f"{shared_sandbox.base_url}/nowhere")


def test_an_adapter_that_there_is_not():
    done = run("--adapter", "django")
    assert done.returncode == 2
    assert "'django' is not one of 'flask', 'starlette', 'lambda'" in done.stderr


def test_a_setting_that_the_kit_refuses():
    done = run("--notify-url", "nonsense")
    assert done.returncode == 1
    assert "the stage could not be set: WECHATPAY_NOTIFY_URL" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("adapter", "module", "extra"),
    [("flask", "flask", "flask"), ("starlette", "anyio", "starlette")],
)
def test_without_its_extra_the_adapter_names_it(adapter, module, extra):
    code = (
        f"import sys; sys.argv[1:] = ['demo', '--adapter', '{adapter}']\n"
        "import wechatpay_kit_sandbox.server\n"  # which has anyio from Starlette
        f"sys.modules['{module}'] = None\n"
        "from wechatpay_kit.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"pip install 'wechatpay-kit[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


def shipped_twice(stage):
    (event,) = stage.told.of("on_paid")
    stage.told.on_paid(event)


def unheard(stage):
    stage.told._events.clear()


def paid_late(stage):
    stage.place(stage.second)
    stage.sandbox.pay(stage.second)


@pytest.mark.parametrize(
    ("before", "meddle", "said"),
    [
        (story._fulfil, shipped_twice, "on_paid fired 2 times, not once"),
        (story._deliver_twice, shipped_twice, "on_paid fired 2 times, not once"),
        (story._verify, unheard, "on_paid fired 0 times, not once"),
        (story._close, paid_late, "the shop answered 502: 400 ORDERPAID"),
        (story._refund, lambda stage: stage.sandbox.stop(), "does not answer"),
        (
            story._read_bill,
            lambda stage: (stage.place("LATE01"), stage.sandbox.pay("LATE01")),
            "its rows are",
        ),
    ],
    ids=["twice", "twice again", "unheard", "paid after all", "gateway gone", "another row"],
)
def test_a_step_that_is_not_as_told_breaks_the_story(monkeypatch, before, meddle, said):
    """The steps are real; what is done between two of them is what each must notice."""
    steps = []
    for title, step in story.STORY:
        if step is before:
            steps.append(("meddling", lambda stage: (meddle(stage), [])[1]))
        steps.append((title, step))
    monkeypatch.setattr("wechatpay_kit_sandbox.demo.STORY", steps)
    with pytest.raises(StoryError, match=said):
        tell(lambda line: None)


@pytest.mark.parametrize("adapter", SHOPS)
def test_the_process_is_left_as_it_was(monkeypatch, adapter):
    loggers = [logging.getLogger(name) for name in ("wechatpay_kit", "wechatpay_kit_sandbox")]

    def state():
        logs = [(list(log.handlers), log.level, log.propagate) for log in loggers]
        actors = [t.name for t in threading.enumerate() if t.name.startswith(("demo", "sandbox"))]
        return logs, dict(os.environ), actors

    for named in ({"no_proxy": "shop.example"}, {"NO_PROXY": "shop.example"}, {}):
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        for name, value in named.items():
            monkeypatch.setenv(name, value)
        before = state()
        tell(lambda line: None, adapter=adapter)
        assert state() == before


def test_started_just_before_midnight_the_story_is_the_next_days():
    midnight = datetime(2026, 11, 25, tzinfo=BEIJING)
    for before, day in ((timedelta(minutes=5), 24), (timedelta(seconds=30), 25)):
        start = (midnight - before).timestamp()
        with Sandbox(wall=lambda start=start: start) as sandbox:
            leave_midnight_behind(sandbox)
            assert sandbox.now().day == day
