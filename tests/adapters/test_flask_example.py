"""What the README shows, as it stands in ``examples/``: a shop, its login, its mini-program."""

from __future__ import annotations

import importlib
import json
import logging
import os
import shutil
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from flask import Flask

from adapters.serving import served
from deliveries import APPID, merchant
from wechatpay_kit_sandbox import Sandbox

EXAMPLES = Path(__file__).parents[2] / "examples"
NODE = shutil.which("node")


@pytest.fixture
def example(monkeypatch):
    """Imports a module of ``examples/`` afresh."""
    monkeypatch.syspath_prepend(EXAMPLES)
    names = [path.stem for path in EXAMPLES.glob("*.py")]
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def front():
    """A port that is known before the shop exists, because its notify address is in its settings.

    Whatever app is put into ``front.app`` answers there.
    """
    front = SimpleNamespace(app=Flask("not_yet"))
    with served(lambda environ, start_response: front.app(environ, start_response)) as port:
        front.port = port
        yield front


@pytest.fixture
def sandbox(front):
    with Sandbox(notify_url=f"http://127.0.0.1:{front.port}/wechatpay/notify") as sandbox:
        yield sandbox


@pytest.fixture
def shop(example, front, sandbox, monkeypatch, tmp_path):
    """The example, as it stands, in the environment that a running sandbox prints."""
    for name, value in sandbox.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)  # the store of a sandbox is a file where the shop runs
    shop = example("flask_shop")
    front.app = shop.app
    yield shop
    shop.kit.close()


def ask(port, method, path, document=None):
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        body = None if document is None else json.dumps(document)
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def place(port):
    status, placed = ask(port, "POST", "/orders", {"code": "from wx.login"})
    assert status == 200
    return placed


def shipped(caplog):
    return [r.getMessage() for r in caplog.records if r.getMessage().startswith("ship ")]


@pytest.mark.usefixtures("shop")
def test_an_order_is_paid_notified_and_shipped_once(front, sandbox, caplog):
    placed = place(front.port)
    number = placed["out_trade_no"]
    assert placed["payment"].keys() == {"timeStamp", "nonceStr", "package", "signType", "paySign"}
    assert placed["payment"]["package"] == f"prepay_id={sandbox.order(number).prepay_id}"
    assert ask(front.port, "GET", f"/orders/{number}") == (200, {"trade_state": "NOTPAY"})
    with caplog.at_level(logging.WARNING):
        paid = sandbox.pay(number)
        again = sandbox.resend(paid.notification.id)
        assert ask(front.port, "GET", f"/orders/{number}") == (200, {"trade_state": "SUCCESS"})
    assert (paid.attempt.status, again.status) == (204, 204)
    assert shipped(caplog) == [f"ship {number}"]


@pytest.mark.usefixtures("shop")
def test_a_lost_notification_is_made_up_for_by_asking(front, sandbox, caplog):
    number = place(front.port)["out_trade_no"]
    with caplog.at_level(logging.WARNING):
        sandbox.pay(number, notify=False)
        assert shipped(caplog) == []
        for _ in range(2):
            assert ask(front.port, "GET", f"/orders/{number}")[1] == {"trade_state": "SUCCESS"}
    assert shipped(caplog) == [f"ship {number}"]


def test_the_readme_can_call_it_under_30_lines():
    assert len((EXAMPLES / "flask_shop.py").read_text(encoding="utf-8").splitlines()) < 30


# wx.login


@pytest.fixture
def login(example, monkeypatch):
    monkeypatch.setenv("APP_SECRET", "a mini-program's secret")
    return example("wx_login")


def official():
    return SimpleNamespace(appid=APPID, is_official=True)


def test_the_code_is_exchanged_under_the_orders_appid(login, monkeypatch):
    asked = []

    def get(url, *, params, timeout):
        asked.append((url, params, timeout))
        return SimpleNamespace(json=lambda: {"openid": "oUser", "session_key": "x"})

    monkeypatch.setattr(requests, "get", get)
    assert login.openid_of("the code", official()) == "oUser"
    ((url, params, timeout),) = asked
    assert url == "https://api.weixin.qq.com/sns/jscode2session"
    assert params == {
        "appid": APPID,
        "secret": "a mini-program's secret",
        "js_code": "the code",
        "grant_type": "authorization_code",
    }
    assert timeout == 5


def test_a_refused_code_is_no_user(login, monkeypatch):
    refusal = {"errcode": 40029, "errmsg": "invalid code"}
    monkeypatch.setattr(requests, "get", lambda *_, **__: SimpleNamespace(json=lambda: refusal))
    with pytest.raises(PermissionError, match="40029 invalid code"):
        login.openid_of("used", official())


def test_a_failed_exchange_does_not_tell_the_secret(login, monkeypatch):
    def get(url, *, params, timeout):
        raise requests.ConnectionError(f"no way to {url}?secret={params['secret']}")

    monkeypatch.setattr(requests, "get", get)
    with pytest.raises(ConnectionError) as caught:
        login.openid_of("code", official())
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_sandbox_has_one_user(login):
    assert login.openid_of("any", merchant()) == login.openid_of("other", merchant())


# The mini-program

HARNESS = """
const told = JSON.parse(process.argv[2])
const asked = []
let states = told.states
globalThis.setTimeout = (done) => setImmediate(done)
globalThis.wx = {
  login: async () => ({ code: 'CODE' }),
  request({ url, method, data, success, fail }) {
    asked.push(method + ' ' + url.replace('https://shop.example', ''))
    if (method === 'POST') {
      const order = { out_trade_no: 'T1001', payment: { package: 'prepay_id=wx1' } }
      return data.code === 'CODE' ? success({ statusCode: 200, data: order }) : fail('no code')
    }
    const state = states.length > 1 ? states.shift() : states[0]
    if (state === 'offline') return fail({ errMsg: 'request:fail' })
    success({ statusCode: state === '500' ? 500 : 200, data: { trade_state: state } })
  },
  requestPayment(parameters) {
    if (parameters.package !== 'prepay_id=wx1') throw new Error('other parameters')
    for (const callback of told.callbacks) parameters[callback]({ errMsg: told.errMsg })
  },
}
require(process.argv[1]).pay().then((state) => console.log(JSON.stringify({ state, asked })))
"""
PLACED, ASKED = "POST /orders", "GET /orders/T1001"


def paid_in_miniprogram(callbacks, err_msg, *states):
    told = json.dumps({"callbacks": callbacks, "errMsg": err_msg, "states": states})
    script = EXAMPLES / "miniprogram" / "pay.js"
    done = subprocess.run(
        [NODE, "-e", HARNESS, str(script), told],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(NODE is None, reason="node runs the mini-program's side")
@pytest.mark.parametrize(
    ("callbacks", "err_msg", "states", "state", "times"),
    [
        (["success", "complete"], "requestPayment:ok", ["SUCCESS"], "SUCCESS", 1),
        (["success", "complete"], "requestPayment:ok", ["NOTPAY", "SUCCESS"], "SUCCESS", 2),
        (["success", "complete"], "requestPayment:ok", ["NOTPAY"], "NOTPAY", 5),
        (["success", "complete"], "requestPayment:ok", ["500", "SUCCESS"], "SUCCESS", 2),
        (["success", "complete"], "requestPayment:ok", ["offline"], "UNKNOWN", 5),
        (["fail", "complete"], "requestPayment:fail cancel", ["NOTPAY"], "NOTPAY", 1),
        (["fail", "complete"], "requestPayment:fail cancel", ["SUCCESS"], "SUCCESS", 1),
        (["fail", "complete"], "requestPayment:fail (timeout)", ["offline"], "UNKNOWN", 1),
        (["complete"], "requestPayment:fail", ["SUCCESS"], "SUCCESS", 1),
    ],
)
def test_whatever_the_front_end_says_the_server_is_asked(callbacks, err_msg, states, state, times):
    told = paid_in_miniprogram(callbacks, err_msg, *states)
    assert told == {"state": state, "asked": [PLACED, *[ASKED] * times]}


def test_every_end_of_request_payment_asks():
    script = (EXAMPLES / "miniprogram" / "pay.js").read_text(encoding="utf-8")
    assert "success: ask, fail: ask, complete: ask" in script
