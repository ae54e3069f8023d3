"""Use a kit, fork, and use it in the parent and its children at once; each says what it saw.

A process of its own, so that nothing of the test's is forked with it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time

from shop import Effects, deliver, hookimpl, job, make_kit, say

import wechatpay_kit.client

CHILDREN = 4
FORKS = []  # how long each took, in seconds


class AsyncEffects(Effects):
    """Its hook needs a loop that runs: one that was forked away would never run it."""

    @hookimpl
    async def on_paid(self, event):
        await asyncio.sleep(0)
        self.add("on_paid", event.out_trade_no, event.attempt)


def in_children(work, number=CHILDREN):
    """Fork; run ``work(index)`` in each child and ``work(number)`` here; all results."""
    children = []
    for index in range(number):
        reading, writing = os.pipe()
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            code = 1
            try:
                result = json.dumps(work(index)).encode()
                os.write(writing, result)
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        FORKS.append(time.monotonic() - began)
        os.close(writing)
        children.append((pid, reading))
    results = [work(number)]
    for pid, reading in children:
        with open(reading, "rb") as pipe:  # noqa: PTH123 - a descriptor, not a path
            said = pipe.read()
        _, ended = os.waitpid(pid, 0)
        results.append(json.loads(said) if ended == 0 else f"died: {ended}")
    return results


def statuses(kit, deliveries):
    """Deliver all until each is answered 204; the statuses on the way."""
    seen, end = [], time.monotonic() + 15
    for one in deliveries:
        while True:
            seen.append(deliver(kit, one))
            if seen[-1] == 204 or time.monotonic() > end:
                break
    return seen


def idle(task, kit):
    """The kit was used, and nothing is under way when the fork comes."""
    first, *rest = task["deliveries"]
    seen = [deliver(kit, first)]
    later = in_children(lambda _: statuses(kit, [first, *rest]))
    return seen + [status for answers in later for status in answers]


def at_work(task, kit):
    """Threads of the parent are in the middle of deliveries at every fork."""
    stop, seen = threading.Event(), []

    def work():
        while not stop.is_set():
            for one in task["deliveries"]:
                deliver(kit, one)

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for one in task["late"]:  # a new fact for each round: the child writes
        (_, answers) = in_children(lambda index, one=one: index or statuses(kit, [one]), 1)
        seen.append(answers)
        if max(FORKS) > task["longest_fork"]:
            break
    stop.set()
    for thread in threads:
        thread.join()
    return {"answers": seen, "slowest": max(FORKS)}


def calls(task, kit):
    """Orders are placed before and after, over connections that were open at the fork."""

    def place(index):
        number = f"T-fork-{index}"
        order = kit.create_order(
            out_trade_no=number, total=100, description="Plush QQ", openid="oPayer"
        )
        params = order.request_payment()
        found = kit.client.query_order(out_trade_no=number)
        return [order.state, params["package"], found.out_trade_no]

    place("before")
    return in_children(place)


def first_use(task, kit):
    """A fork while another thread is about to make the client: the child makes its own."""
    inside, go_on = threading.Event(), threading.Event()

    class SlowClient(wechatpay_kit.client.Client):
        def __init__(self, *args, **named):
            if threading.current_thread() is not threading.main_thread():
                inside.set()
                go_on.wait(20)
            super().__init__(*args, **named)

    wechatpay_kit.client.Client = SlowClient
    thread = threading.Thread(target=lambda: kit.client)
    thread.start()
    inside.wait(20)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, b"made" if kit.client else b"")
        os._exit(0)
    os.close(writing)
    said = []
    with open(reading, "rb") as pipe:  # noqa: PTH123 - a descriptor, not a path
        reader = threading.Thread(target=lambda: said.append(pipe.read().decode()))
        reader.start()
        reader.join(5)
        if reader.is_alive():
            os.kill(pid, 9)
            reader.join()
    os.waitpid(pid, 0)
    go_on.set()
    thread.join()
    return said[0]


def main():
    task = job()
    plugin = AsyncEffects if task.get("is_async") else Effects
    kit = make_kit(task, plugin(task["effects"]))
    modes = {"idle": idle, "at_work": at_work, "calls": calls, "first_use": first_use}
    say(modes[task["mode"]](task, kit))
    kit.close()


main()
