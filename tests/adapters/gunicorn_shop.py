"""A shop for gunicorn to preload: its kit is made, and its store used, before the workers fork.

Set up by ``WECHATPAY_*`` and by ``TOLD``, the file that its hooks write a line to.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime

from flask import Flask

from wechatpay_kit import Kit, OrderRecord, hookimpl
from wechatpay_kit_flask import notify_blueprint


class Fulfilment:
    @hookimpl
    async def on_paid(self, event):
        tell("on_paid", event.out_trade_no)

    @hookimpl
    def on_duplicate(self, event):
        tell("on_duplicate", event.out_trade_no)

    @hookimpl
    def on_rejected(self, event):
        tell("on_rejected", event.reason)


def tell(hook, what):
    line = f"{os.getpid()} {hook} {what}\n".encode()
    handle = os.open(os.environ["TOLD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(handle, line)  # one write: lines of two processes do not mix
    os.close(handle)


kit = Kit.from_env(plugins=[Fulfilment()], receive_only=True, max_body=8192)
kit.store.add_order(
    OrderRecord(
        mchid=kit.merchant.mchid,
        out_trade_no="T1001",
        appid=kit.merchant.appid,
        total=100,
        currency="CNY",
        state="open",
        created_at=datetime.now(UTC),
    )
)
app = Flask("shop")
app.register_blueprint(notify_blueprint(kit), url_prefix="/wechatpay")
