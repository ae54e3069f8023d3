"""The Starlette adapter's threads and hooks: nothing blocks the loop, nothing stops half-way."""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
import threading

import anyio
import anyio.to_thread
import pluggy
import pytest
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from adapters.asgi import (
    OLDER_BASES_LEAK,
    bound,
    connected,
    head,
    on_asyncio,
    post,
    shop_app,
)
from deliveries import (
    MCHID,
    Clock,
    Expecting,
    Recorder,
    delivery,
    merchant,
    receiving_kit,
    transaction,
)
from wechatpay_kit import Kit, SqliteStore, hookimpl
from wechatpay_kit.hookspecs import PROJECT, Hooks
from wechatpay_kit_starlette import AsyncKit

pytestmark = pytest.mark.anyio

PATIENCE = 10  # seconds until a test that hangs is a test that failed


async def waited(event):
    assert await anyio.to_thread.run_sync(event.wait, PATIENCE)


async def alive(_request):
    return PlainTextResponse("alive")


class Passing(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        return await call_next(request)


def payment(out_trade_no):
    """A delivery of its own: another order, another transaction."""
    number = f"4200{out_trade_no[1:]:>024}"
    return delivery(transaction(out_trade_no, transaction_id=number))


PAYMENTS = [payment(f"T{number}") for number in range(2001, 2021)]


# Threads


class WatchedClock(Clock):
    def __init__(self, threads):
        super().__init__()
        self._threads = threads

    def __call__(self):
        self._threads.add(threading.get_ident())
        return super().__call__()


class WatchedStore(SqliteStore):
    def __init__(self, path, threads):
        super().__init__(path)
        self._threads = threads

    def claim(self, *args, **kwargs):
        self._threads.add(threading.get_ident())
        return super().claim(*args, **kwargs)

    def order(self, *args):
        self._threads.add(threading.get_ident())
        return super().order(*args)


async def test_what_blocks_runs_in_threads_and_async_hooks_on_the_applications_loop(tmp_path):
    verifying, storing, hooks, awaited = set(), set(), set(), set()

    class Shop:
        @hookimpl
        def on_paid(self, event):
            hooks.add(threading.get_ident())

        @hookimpl
        async def on_duplicate(self, event):
            await anyio.lowlevel.checkpoint()
            awaited.add(threading.get_ident())

    store = WatchedStore(tmp_path / "wechatpay.db", storing)
    app = shop_app(receiving_kit(store, Shop(), Expecting(), clock=WatchedClock(verifying)))
    for _ in range(2):
        assert (await post(app, delivery())).status_code == 204
    for threads in (verifying, storing, hooks):
        assert threads
        assert threading.get_ident() not in threads
    assert awaited == {threading.get_ident()}
    store.close()


async def test_the_loop_serves_others_while_a_plain_hook_blocks(store):
    started, finish = threading.Event(), threading.Event()

    class Slow:
        @hookimpl
        def on_paid(self, event):
            started.set()
            assert finish.wait(PATIENCE)

    app = shop_app(receiving_kit(store, Slow(), Expecting()), routes=[Route("/alive", alive)])
    async with anyio.create_task_group() as clients:
        clients.start_soon(post, app, delivery())
        await waited(started)
        answer = await post(app, ([], b""), method="GET", path="/alive")
        assert answer.text == "alive"
        finish.set()


async def test_a_delivery_needs_none_of_the_threads_that_others_hold(store, recorder):
    app = shop_app(receiving_kit(store, recorder, Expecting()))
    others = anyio.to_thread.current_default_thread_limiter()
    holders = [object() for _ in range(int(others.total_tokens))]
    for holder in holders:
        others.acquire_on_behalf_of_nowait(holder)
    with anyio.fail_after(PATIENCE):
        assert (await post(app, delivery())).status_code == 204
    for holder in holders:
        others.release_on_behalf_of(holder)


async def test_as_many_threads_as_were_asked_for_and_no_more(store):
    together = threading.Barrier(2, timeout=PATIENCE)
    lock = threading.Lock()
    at_work, most = 0, 0

    class Shop:
        @hookimpl
        def on_paid(self, event):
            nonlocal at_work, most
            with lock:
                at_work += 1
                most = max(most, at_work)
            together.wait()
            with lock:
                at_work -= 1

    app = shop_app(receiving_kit(store, Shop(), Expecting()), threads=2)
    async with anyio.create_task_group() as clients:
        for one in PAYMENTS[:6]:
            clients.start_soon(post, app, one)
    assert most == 2


async def test_an_async_hook_that_needs_threads_itself_does_not_wait_for_its_own(store):
    shipped = []

    class Shop:
        @hookimpl
        async def on_paid(self, event):
            with anyio.fail_after(PATIENCE):  # here, for the delivery around it is not cancelled
                await anyio.to_thread.run_sync(shipped.append, event.out_trade_no)
                await shop.run(shipped.append, event.out_trade_no)

    kit = receiving_kit(store, Shop(), Expecting())
    shop = AsyncKit(kit, threads=1)
    app = shop_app(kit, threads=1)
    statuses = []

    async def client(one):
        statuses.append((await post(app, one)).status_code)

    async with anyio.create_task_group() as clients:
        for one in PAYMENTS:
            clients.start_soon(client, one)
    assert statuses == [204] * len(PAYMENTS)
    assert len(shipped) == 2 * len(PAYMENTS)


# Clients that hang up


class AsyncSlow:
    """Starts, and finishes when it is told to; both may be waited for from any thread."""

    def __init__(self):
        self.started, self.finish = threading.Event(), threading.Event()
        self.shipped = []

    @hookimpl
    async def on_paid(self, event):
        self.started.set()
        await anyio.lowlevel.checkpoint()
        await waited(self.finish)
        await anyio.lowlevel.checkpoint()
        self.shipped.append(event.out_trade_no)


class PlainSlow(AsyncSlow):
    @hookimpl
    def on_paid(self, event):
        self.started.set()
        assert self.finish.wait(PATIENCE)
        self.shipped.append(event.out_trade_no)


SLOW = pytest.mark.parametrize("slow", [AsyncSlow, PlainSlow])
BEHIND = pytest.mark.parametrize(
    "middleware",
    [(), pytest.param((Middleware(Passing),), marks=OLDER_BASES_LEAK)],
    ids=["bare", "base"],
)


@SLOW
@BEHIND
async def test_a_cancelled_delivery_that_has_begun_is_finished(store, recorder, slow, middleware):
    plugin = slow()
    app = shop_app(receiving_kit(store, recorder, plugin, Expecting()), middleware=middleware)
    cancelled = anyio.CancelScope()

    async def client():
        with cancelled:
            await post(app, delivery())

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as clients:
            clients.start_soon(client)
            await waited(plugin.started)
            cancelled.cancel()
            await anyio.wait_all_tasks_blocked()
            plugin.finish.set()
        assert cancelled.cancelled_caught
        assert (await post(app, delivery())).status_code == 204
    assert plugin.shipped == ["T1001"]
    assert recorder.names() == ["on_paid", "on_duplicate"]


@SLOW
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_cancelled_behind_anyios_back_leaves_its_delivery_to_finish(
    store, recorder, slow
):
    plugin = slow()
    app = shop_app(receiving_kit(store, recorder, plugin, Expecting()))
    task = asyncio.create_task(post(app, delivery()))
    await waited(plugin.started)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    plugin.finish.set()
    async with asyncio.timeout(PATIENCE):
        while (await post(app, delivery())).status_code == 503:
            pass  # the delivery that nobody waits for still holds the claim
    assert plugin.shipped == ["T1001"]
    assert recorder.names() == ["on_paid", "on_duplicate"]


async def test_a_delivery_cancelled_before_it_has_begun_reaches_nobody(store, recorder):
    plugin = PlainSlow()
    app = shop_app(receiving_kit(store, recorder, plugin, Expecting()), threads=1)
    cancelled = anyio.CancelScope()

    async def queued():
        with cancelled:
            await post(app, PAYMENTS[0])

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as clients:
            clients.start_soon(post, app, delivery())
            await waited(plugin.started)
            clients.start_soon(queued)
            await anyio.wait_all_tasks_blocked()
            cancelled.cancel()
            await anyio.wait_all_tasks_blocked()
            plugin.finish.set()
    assert cancelled.cancelled_caught
    assert plugin.shipped == ["T1001"]


@BEHIND
async def test_a_client_that_is_gone_when_the_answer_comes_changes_nothing(
    store, recorder, middleware
):
    app = shop_app(receiving_kit(store, recorder, Expecting()), middleware=middleware)
    await post(app, delivery(), hangs_up="late")
    assert recorder.names() == ["on_paid"]
    assert (await post(app, delivery())).status_code == 204
    assert recorder.names() == ["on_paid", "on_duplicate"]


@SLOW
@BEHIND
def test_a_client_that_hangs_up_does_not_stop_its_delivery(store, recorder, slow, middleware):
    plugin = slow()
    kit = receiving_kit(store, recorder, plugin, Expecting())
    headers, body = delivery()
    app = shop_app(kit, middleware=middleware, routes=[Route("/alive", alive)])
    with on_asyncio(app) as shop:
        with connected(shop.port) as client:
            client.sendall(head([*headers, ("Content-Length", str(len(body)))]) + body)
            assert plugin.started.wait(PATIENCE)
            reset = struct.pack("ii", 1, 0)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        assert shop.request("GET", "/alive").text == "alive"  # the loop has turned since
        plugin.finish.set()
        while (again := shop.post(headers, body)).status_code == 503:
            pass  # the delivery that nobody waits for still holds the claim
    assert again.status_code == 204
    assert plugin.shipped == ["T1001"]
    assert recorder.names() == ["on_paid", "on_duplicate"]


# Order, wrappers, exceptions


def three(log, failing, *, awaits):
    """An async plugin, a plain one and a wrapper; each logs, the ``failing`` one raises once."""
    to_fail = [failing]

    def say(text, name):
        log.append(text)
        if text in to_fail:
            to_fail.remove(text)
            raise OSError(name)

    class Awaited:
        if awaits:

            @hookimpl
            async def on_paid(self, event):
                await anyio.lowlevel.checkpoint()
                say("awaited", "awaited")
        else:

            @hookimpl
            def on_paid(self, event):
                say("awaited", "awaited")

    class Plain:
        @hookimpl
        def on_paid(self, event):
            say("plain", "plain")

    class Wrapping:
        @hookimpl(wrapper=True)
        def on_paid(self, event):
            say("before", "wrapping")
            try:
                result = yield
            except OSError as error:
                log.append(f"saw {error}")
                raise
            say("after", "wrapping")
            return result

    return Awaited(), Plain(), Wrapping()


@pytest.mark.parametrize("failing", [None, "awaited", "plain", "before", "after"])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_async_plain_and_wrapping_hooks_run_in_pluggys_order(store, order, failing):
    expected, log = [], []
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Hooks)
    twins = three(expected, failing, awaits=False)
    for place in order:
        manager.register(twins[place])
    try:
        manager.hook.on_paid(event=None)
    except OSError:
        expected.append("raised")

    plugins = three(log, failing, awaits=True)
    kit = receiving_kit(store, *(plugins[place] for place in order), Expecting())
    answer = await post(shop_app(kit), delivery())
    if answer.status_code == 500:
        log.append("raised")
    assert log == expected


@pytest.mark.parametrize("failing", [None, "awaited", "plain", "before", "after"])
async def test_the_three_count_as_one_firing(store, recorder, failing):
    log = []
    kit = receiving_kit(store, *three(log, failing, awaits=True), recorder, Expecting())
    app = shop_app(kit)
    if failing:
        assert (await post(app, delivery())).status_code == 500
        assert [fact.key for fact in kit.unsettled()] == [f"order/{MCHID}/T1001"]
    for _ in range(2):
        assert (await post(app, delivery())).status_code == 204
    assert log.count("awaited") == (2 if failing == "awaited" else 1)
    assert log.count("plain") == (2 if failing == "plain" else 1)
    assert recorder.names() == ["on_paid", "on_duplicate"]
    assert kit.unsettled() == []


# On the loop's own thread


@pytest.mark.parametrize(
    "call",
    [
        lambda kit: kit.query_order(out_trade_no="T1"),
        lambda kit: kit.close_order("T1", force=True),
        lambda kit: kit.create_order(out_trade_no="T1", total=1, description="QQ", openid="o"),
        lambda kit: kit.create_refund(out_refund_no="R1", refund=1, total=1, out_trade_no="T1"),
        lambda kit: kit.query_refund("R1"),
    ],
)
async def test_a_call_on_the_loops_own_thread_raises_before_any_io(tmp_path, call):
    class Shop(Recorder):
        @hookimpl
        async def on_paid(self, event):
            pass

    path = tmp_path / "wechatpay.db"
    with bound() as gateway:
        gateway.listen()
        gateway.setblocking(False)  # noqa: FBT003 - the socket's own signature
        base_url = f"http://127.0.0.1:{gateway.getsockname()[1]}"
        kit = Kit(merchant(base_url=base_url), plugins=[Shop()], store=SqliteStore(path))
        with pytest.raises(RuntimeError, match=r"anyio\.to_thread\.run_sync"):
            call(kit)
        with pytest.raises(BlockingIOError):
            gateway.accept()
    assert not path.exists()
