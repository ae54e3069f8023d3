"""What the workers have in common: their job, a kit for it, and effects that outlive them."""

from __future__ import annotations

import base64
import json
import os
import sys
from datetime import UTC, datetime, timedelta

from wechatpay_kit import Kit, Merchant, hookimpl
from wechatpay_kit.store.sqlite import SqliteStore


def job():
    """The first line of standard input."""
    return json.loads(sys.stdin.readline())


def hear():
    return json.loads(sys.stdin.readline())


def say(said):
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


class Effects:
    """A plugin whose effects are lines of a file: what a killed process did stays done."""

    def __init__(self, path):
        self._path = path

    def add(self, *words):
        line = " ".join(map(str, words)).encode() + b"\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(descriptor, line)  # one write of one line: whole, whoever else writes
        os.close(descriptor)

    @hookimpl
    def on_paid(self, event):
        self.add("on_paid", event.out_trade_no, event.attempt)

    @hookimpl
    def on_refund(self, event):
        self.add("on_refund", event.out_refund_no, event.attempt)

    @hookimpl
    def on_conflict(self, event):
        self.add("on_conflict", event.out_trade_no, event.reason)
        return True


def make_kit(task, *plugins, store=None, **options):
    merchant = Merchant.from_env(environ=task["environ"], receive_only=task.get("receive_only"))
    if "clock" in task:
        moment = datetime.fromtimestamp(task["clock"], UTC)
        options["clock"] = lambda: moment
    if store is None:
        store = SqliteStore(
            task["store"], **{k: timedelta(seconds=v) for k, v in task.get("terms", {}).items()}
        )
    return Kit(merchant, plugins=plugins, store=store, **options)


def deliver(kit, delivery):
    """The status of one delivery of the job."""
    headers = [tuple(pair) for pair in delivery["headers"]]
    return kit.receiver.receive(headers, base64.b64decode(delivery["body"])).status
