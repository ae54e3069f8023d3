"""The function that the runtime client runs in the tests, with a plugin that leaves traces.

What the order's number begins with says what its fulfilment does.
"""

from __future__ import annotations

import json
import os
import time
from datetime import timedelta
from pathlib import Path

from wechatpay_kit import Kit, SqliteStore, hookimpl
from wechatpay_kit_lambda import Environment, notify_handler


class SharedStore:
    """A store that the test's processes do share: this machine's, unlike Lambda's."""

    def __init__(self, path: str) -> None:
        self._store = SqliteStore(path)

    def __getattr__(self, name: str):
        return getattr(self._store, name)


class Fulfilment:
    @hookimpl
    def on_paid(self, event):
        number = event.out_trade_no
        if number.startswith("BOOM"):
            raise RuntimeError("the warehouse is closed")
        if number.startswith("HANG") and event.attempt == 1:
            time.sleep(3600)
        if number.startswith("WAIT"):
            wait_to_go(number)
        trace(number, event.attempt)

    @hookimpl
    async def on_refund(self, event):
        trace(event.out_refund_no, event.attempt)

    @hookimpl
    def on_conflict(self, event):
        return False


def trace(number: str, attempt: int) -> None:
    line = json.dumps([number, attempt, os.getpid()]) + "\n"
    with Path(os.environ["SHOP_TRACE"]).open("a", encoding="utf-8") as file:
        file.write(line)  # one short write in append mode: processes do not mix


def wait_to_go(number: str) -> None:
    folder = Path(os.environ["SHOP_TRACE"]).parent
    (folder / f"{number}.began").touch()
    while not (folder / f"{number}.go").exists():
        time.sleep(0.01)


def make_kit(environ=None) -> Kit:
    path = os.environ.get("SHOP_SQLITE")
    store = SharedStore(path) if path else None
    return Kit.from_env(environ=environ, plugins=[Fulfilment()], store=store, receive_only=True)


handler = notify_handler(make_kit)
following = notify_handler(make_kit, environ=Environment(timeout=timedelta(seconds=30)))

if "SHOP_BUILD" in os.environ:
    handler.build()
