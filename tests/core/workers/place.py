"""Place an order or a refund, and die by SIGKILL at the moment that the job names."""

from __future__ import annotations

import os
import signal

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from shop import job, say

from wechatpay_kit import Kit, Merchant, RsaSigner
from wechatpay_kit.store.sqlite import SqliteStore


def die(*_args, **_named):
    os.kill(os.getpid(), signal.SIGKILL)


class DyingSigner:
    """Dies at its first signature: all is recorded, and nothing has been sent."""

    serial_no = "0" * 40
    sign = staticmethod(die)


class DyingStore(SqliteStore):
    """Dies with the gateway's answer in its hand, before it is recorded."""

    order_answered = refund_answered = die


def main():
    task = job()
    env = {k.removeprefix("WECHATPAY_").lower(): v for k, v in task["environ"].items()}
    key, serial = env.pop("private_key").encode(), env.pop("serial_no")
    signer = RsaSigner(load_pem_private_key(key, None), serial)
    merchant = Merchant(**env, signer=DyingSigner() if task["dies"] == "before sending" else signer)
    dies_late = task["dies"] == "before recording"
    kit = Kit(merchant, store=(DyingStore if dies_late else SqliteStore)(task["store"]))
    getattr(kit, task["call"])(**task["arguments"])
    say("survived")


main()
