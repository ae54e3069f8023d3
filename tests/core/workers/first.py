"""The first messages of a process, decoded by many threads at once, on both ways in."""

from __future__ import annotations

import base64
import sys
import threading

from shop import job, say

from wechatpay_kit import models


def main():
    task = job()
    messages = [(base64.b64decode(body), getattr(models, kind)) for kind, body in task["messages"]]
    start = threading.Barrier(16)
    sys.setswitchinterval(1e-6)  # what a busy machine does now and then, all the time

    def work():
        start.wait(30)
        for body, kind in messages:
            models.decode(body, kind)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    say("alive")


main()
