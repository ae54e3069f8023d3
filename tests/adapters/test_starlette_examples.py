"""The examples for Starlette and FastAPI take a payment from a real sandbox, over HTTP."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import httpx
import pytest

from adapters.asgi import bound, served
from deliveries import KEYS
from wechatpay_kit_sandbox import Sandbox, generate_keys

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch):
    """Import an example as its user would run it: from its folder, by the environment."""
    monkeypatch.syspath_prepend(EXAMPLES)
    known = set(sys.modules)
    yield importlib.import_module
    for name in ("fastapi_shop", "starlette_shop", "wx_login"):
        if name not in known:
            sys.modules.pop(name, None)


def told(monkeypatch, sandbox, store, prefix="WECHATPAY_"):
    settings = sandbox.environment() | {"WECHATPAY_STORE": f"sqlite:///{store}"}
    for name, value in settings.items():
        monkeypatch.setenv(name.replace("WECHATPAY_", prefix), value)


def buys(client, sandbox, path=""):
    """Order, pay, be notified; the order's number."""
    placed = client.post(f"{path}/orders", json={"code": "from wx.login"}).raise_for_status().json()
    number = placed["out_trade_no"]
    assert placed["payment"]["package"].startswith("prepay_id=")
    before = client.get(f"{path}/orders/{number}").raise_for_status().json()
    assert before == {"trade_state": "NOTPAY"}
    assert sandbox.pay(number).attempt.status == 204
    after = client.get(f"{path}/orders/{number}").raise_for_status().json()
    assert after == {"trade_state": "SUCCESS"}
    return number


def test_the_fastapi_shop(example, monkeypatch, tmp_path):
    listener = bound()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with Sandbox(keys=KEYS, notify_url=f"{address}/wechatpay/notify") as sandbox:
        told(monkeypatch, sandbox, tmp_path / "wechatpay.db")
        shop = example("fastapi_shop")
        with (
            served(shop.app, listener, lifespan="on"),
            httpx.Client(base_url=address) as client,
        ):
            number = buys(client, sandbox)
    assert shop.shipped == [number]


def test_the_starlette_shop_of_two_merchants(example, monkeypatch, tmp_path):
    listener = bound()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with (
        Sandbox(keys=KEYS, notify_url=f"{address}/north/wechatpay/notify") as north,
        Sandbox(keys=generate_keys(), notify_url=f"{address}/south/wechatpay/notify") as south,
    ):
        told(monkeypatch, north, tmp_path / "wechatpay.db", "NORTH_")
        told(monkeypatch, south, tmp_path / "wechatpay.db", "SOUTH_")
        shop = example("starlette_shop")
        with (
            served(shop.app, listener, lifespan="on"),
            httpx.Client(base_url=address) as client,
        ):
            bought = [
                (sandbox.keys.merchant.mchid, buys(client, sandbox, path))
                for path, sandbox in (("/north", north), ("/south", south))
            ]
    assert shop.shipped == bought
