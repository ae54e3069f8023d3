"""Two merchants in one application, as the examples have it: each hears of its own money alone."""

from __future__ import annotations

import importlib
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from adapters import asgi, serving
from adapters.lambda_events import http_api
from wechatpay_kit import OrderRecord, SqliteStore
from wechatpay_kit_sandbox.testing import Deliveries, Reply, http_sender

EXAMPLES = Path(__file__).parents[2] / "examples"
MERCHANTS = {"north": Deliveries(), "south": Deliveries()}


@contextmanager
def flask(example):
    with serving.served(example.app) as port:
        yield http_sender(port)


@contextmanager
def starlette(example):
    with asgi.served(example.app) as port:
        yield http_sender(port)


@contextmanager
def aws_lambda(example):
    def send(method, path, headers, body):
        answer = example.handler(http_api(headers, body, method=method, path=path), None)
        return Reply(answer["statusCode"], answer["headers"].items(), answer["body"].encode())

    yield send


SHOPS = {
    "two_merchants_flask": flask,
    "starlette_shop": starlette,
    "two_merchants_lambda": aws_lambda,
}


@pytest.fixture(params=SHOPS)
def shop(request, monkeypatch, tmp_path):
    """The example as its user runs it, and the way to it."""
    url = f"sqlite:///{tmp_path / 'wechatpay.db'}"
    store = SqliteStore(tmp_path / "wechatpay.db")
    for name, weixin in MERCHANTS.items():
        settings = weixin.environment(f"https://shop.example/{name}/wechatpay/notify")
        for variable, value in (settings | {"WECHATPAY_STORE": url}).items():
            monkeypatch.setenv(variable.replace("WECHATPAY_", f"{name.upper()}_"), value)
        store.add_order(order_of(weixin))
    store.close()
    monkeypatch.syspath_prepend(EXAMPLES)
    for module in (request.param, "wx_login"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    example = importlib.import_module(request.param)
    with SHOPS[request.param](example) as send:
        yield example, send
    for module in (request.param, "wx_login"):
        sys.modules.pop(module, None)
    for kit in (getattr(example, name, None) for name in MERCHANTS):
        if kit is not None:
            kit.close()


def order_of(weixin):
    return OrderRecord(
        mchid=weixin.mchid,
        out_trade_no="T1001",
        appid=weixin.appid,
        total=100,
        currency="CNY",
        state="open",
        created_at=weixin.now(),
    )


def path_of(name):
    return f"/{name}/wechatpay/notify"


def test_each_merchant_hears_of_its_own_order_even_under_one_number(shop):
    example, send = shop
    for name, weixin in MERCHANTS.items():
        assert send("POST", path_of(name), *weixin.delivery())[0] == 204
    assert example.shipped == [(weixin.mchid, "T1001") for weixin in MERCHANTS.values()]


@pytest.mark.parametrize(("whose", "where"), [("north", "south"), ("south", "north")])
def test_a_delivery_for_another_merchants_mchid_is_422_and_the_log_names_the_paths(
    shop, caplog, whose, where
):
    """Signed and sealed rightly for the path's merchant, but about the other one's money."""
    example, send = shop
    about, at = MERCHANTS[whose], MERCHANTS[where]
    headers, body = at.delivery(at.transaction(mchid=about.mchid, appid=about.appid))
    caplog.clear()
    status, _, said = send("POST", path_of(where), headers, body)
    assert (status, said) == (422, b'{"code": "FAIL", "message": "not this merchant\'s"}')
    (line,) = (r.wechatpay_kit for r in caplog.records if hasattr(r, "wechatpay_kit"))
    assert (line["mchid"], line["reason"]) == (at.mchid, "other_merchant")
    assert line["detail"] == f"for mchid {about.mchid}; this address is {at.mchid}'s"
    assert example.shipped == []


@pytest.mark.parametrize(("whose", "where"), [("north", "south"), ("south", "north")])
def test_a_delivery_by_another_merchants_keys_is_refused_as_any_strangers(shop, whose, where):
    example, send = shop
    status, _, said = send("POST", path_of(where), *MERCHANTS[whose].delivery())
    assert status in {401, 503}, said  # 503: a kit that may ask for new keys could not
    assert example.shipped == []
