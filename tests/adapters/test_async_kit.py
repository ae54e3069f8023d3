"""The kit's calls as awaitables, against a real gateway; and the lifespan that closes kits."""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
import os
import subprocess
import sys
import threading
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread
import pytest
import trio
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from adapters.asgi import post, served, shop_app
from deliveries import KEYS, Expecting, Recorder, delivery, receiving_kit
from wechatpay_kit import (
    HookError,
    Kit,
    Merchant,
    OrderNotExistError,
    Outcome,
    SqliteStore,
    UnknownOrderError,
    hookimpl,
)
from wechatpay_kit_sandbox import Sandbox
from wechatpay_kit_starlette import AsyncKit, lifespan, notify_routes

pytestmark = pytest.mark.anyio

PATIENCE = 10  # seconds until a test that hangs is a test that failed
NO_IO = {"register", "trade_bill"}  # of Kit's public methods: nothing to await

numbers = (f"T{number}" for number in itertools.count(100001))


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(keys=KEYS, notify_url="http://127.0.0.1:1/notify") as sandbox:
        yield sandbox


@pytest.fixture
def kit_with(sandbox, tmp_path):
    """Kits that place orders at the sandbox, each with a store of its own."""
    kits = []

    def make(*plugins, kind=Kit):
        store = SqliteStore(tmp_path / f"{len(kits)}.db")
        kits.append(
            kind(Merchant.from_env(environ=sandbox.environment()), plugins=plugins, store=store)
        )
        return kits[-1]

    yield make
    for kit in kits:
        kit.close()


async def place(shop):
    return await shop.create_order(
        out_trade_no=next(numbers), total=100, description="QQ", openid="oPayer"
    )


async def paid_unheard(shop, sandbox):
    """The number of an order that is paid, of which nobody has been told."""
    order = await place(shop)
    sandbox.pay(order.out_trade_no, notify=False)
    return order.out_trade_no


# Whose calls they are


def test_it_has_exactly_the_kits_public_methods_that_do_io():
    public = {
        name
        for name, value in vars(Kit).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }
    assert public >= NO_IO
    awaitable = {name for name, v in vars(AsyncKit).items() if inspect.iscoroutinefunction(v)}
    assert awaitable - {"run"} == public - NO_IO


@pytest.mark.parametrize(
    "name", sorted({n for n, v in vars(AsyncKit).items() if inspect.iscoroutinefunction(v)})
)
def test_each_is_called_and_documented_as_the_kits_own(name):
    if name == "run":
        return
    ours, theirs = getattr(AsyncKit, name), getattr(Kit, name)
    assert inspect.signature(ours) == inspect.signature(theirs)
    assert ours.__doc__ == theirs.__doc__


def test_a_type_checker_sees_the_kits_signatures(tmp_path):
    pytest.importorskip("mypy", reason="the typing is checked where mypy is installed")
    checked = tmp_path / "checked.py"
    checked.write_text(
        """
from typing import assert_type
from wechatpay_kit import Kit, Order, Outcome, SettledTransaction, Unsettled
from wechatpay_kit_starlette import AsyncKit

async def use(kit: Kit) -> None:
    shop = AsyncKit(kit)
    order = await shop.create_order(
        out_trade_no="1", total=1, description="QQ", openid="o", attach="x"
    )
    assert_type(order, Order)
    assert_type(await shop.query_order(out_trade_no="1"), SettledTransaction)
    assert_type(await shop.close_order("1", force=True), Outcome)
    assert_type(await shop.unsettled(), list[Unsettled])
    assert_type(await shop.run(order.request_payment), dict[str, str])
    await shop.create_order(out_trade_no=1)  # type: ignore[call-arg, arg-type]
    await shop.create_order(  # type: ignore[call-arg]
        out_trade_no="1", total=1, description="QQ", openid="o", atach="x"
    )
    await shop.query_order("1")  # type: ignore[misc]
    await shop.run(order.request_payment, 1)  # type: ignore[call-arg]
    shop.no_such_call()  # type: ignore[attr-defined]
"""
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache", checked],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# The calls


async def test_an_order_from_its_placing_to_its_refund(kit_with, sandbox):
    heard = []

    class Shop:
        @hookimpl
        async def on_paid(self, event):
            await anyio.lowlevel.checkpoint()
            heard.append((event.out_trade_no, threading.get_ident()))

        @hookimpl
        async def on_refund(self, event):
            heard.append((event.refund.status, threading.get_ident()))

    kit = kit_with(Shop())
    shop = AsyncKit(kit)
    here = threading.get_ident()
    order = await place(shop)
    number = order.out_trade_no
    assert (await shop.run(order.request_payment))["package"].startswith("prepay_id=")
    assert (await shop.order(number)).state == "open"
    assert (await shop.query_order(out_trade_no=number)).settlement is Outcome.OPEN

    sandbox.pay(number, notify=False)
    assert (await shop.query_order(out_trade_no=number)).settlement is Outcome.FIRED
    assert (await shop.query_order(out_trade_no=number)).settlement is Outcome.DUPLICATE
    assert heard == [(number, here)]

    refund = {"out_trade_no": number, "out_refund_no": f"R{number}", "refund": 30, "total": 100}
    assert (await shop.create_refund(**refund)).status == "PROCESSING"
    sandbox.finish_refund(f"R{number}", notify=False)
    assert (await shop.query_refund(f"R{number}")).settlement is Outcome.FIRED
    assert heard == [(number, here), ("SUCCESS", here)]

    other = (await place(shop)).out_trade_no
    assert await shop.close_order(other) is Outcome.FIRED
    assert await shop.unsettled() == []
    assert await shop.purge() == 0
    await shop.close()
    assert (await shop.order(number)).state == "paid"  # it opens again


async def test_what_a_call_raises_is_raised_here(kit_with, sandbox):
    class Shop:
        @hookimpl
        async def on_paid(self, event):
            raise OSError("the warehouse is shut")

    shop = AsyncKit(kit_with(Shop()))
    with pytest.raises(UnknownOrderError):
        await shop.order("T0")
    with pytest.raises(OrderNotExistError):
        await shop.query_order(out_trade_no="T000000")
    with pytest.raises(HookError) as raised:
        await shop.query_order(out_trade_no=await paid_unheard(shop, sandbox))
    assert isinstance(raised.value.__cause__, OSError)


async def test_a_subclass_of_the_kit_is_asked_itself(kit_with):
    class Ours(Kit):
        def purge(self, before=None):
            return -1

    assert await AsyncKit(kit_with(Recorder(), kind=Ours)).purge() == -1


async def test_no_call_shows_secrets(kit_with):
    assert "PRIVATE" not in repr(AsyncKit(kit_with(Recorder())))


def test_one_kit_serves_one_loop_after_another(kit_with):
    shop = AsyncKit(kit_with(Recorder()), threads=1)
    for backend in ("asyncio", "trio", "asyncio"):
        assert anyio.run(shop.unsettled, backend=backend) == []


# Threads and hooks


async def test_as_many_threads_as_were_asked_for_and_no_more(kit_with):
    shop = AsyncKit(kit_with(Recorder()), threads=2)
    most = await busiest(shop, 6)
    assert most == 2


async def busiest(shop, calls):
    """The most of ``calls`` that ran at once; two must meet before either ends."""
    together = threading.Barrier(2, timeout=PATIENCE)
    lock = threading.Lock()
    at_work = most = 0

    def work():
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        together.wait()
        with lock:
            at_work -= 1

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            for _ in range(calls):
                tasks.start_soon(shop.run, work)
    return most


async def test_hooks_that_call_back_never_wait_for_the_call_they_are_part_of(kit_with, sandbox):
    heard = []

    class Shop:
        @hookimpl
        async def on_paid(self, event):
            with anyio.fail_after(PATIENCE):  # here, for the call around it is not cancelled
                heard.append((await shop.order(event.out_trade_no)).state)
                asked = await shop.query_order(out_trade_no=event.out_trade_no)
            heard.append(asked.settlement)

    shop = AsyncKit(kit_with(Shop()), threads=1)
    ready = [await paid_unheard(shop, sandbox) for _ in range(4)]
    async with anyio.create_task_group() as tasks:
        for number in ready:
            tasks.start_soon(lambda n=number: shop.query_order(out_trade_no=n))
    assert sorted(heard) == sorted(["open", Outcome.BUSY] * 4)


async def test_hooks_of_two_kits_that_call_each_other_do_not_wait_for_ever(kit_with, sandbox):
    class Shop:
        def __init__(self):
            self.is_in = anyio.Event()
            self.other = None

        @hookimpl
        async def on_paid(self, event):
            self.is_in.set()
            with anyio.fail_after(PATIENCE):
                await self.other.plugin.is_in.wait()
                await self.other.unsettled()

    class Paired(AsyncKit):
        plugin = None

    def paired():
        plugin = Shop()
        shop = Paired(kit_with(plugin), threads=1)
        shop.plugin = plugin
        return shop

    north, south = paired(), paired()
    north.plugin.other, south.plugin.other = south, north
    ready = [(shop, await paid_unheard(shop, sandbox)) for shop in (north, south)]
    async with anyio.create_task_group() as tasks:
        for shop, number in ready:
            tasks.start_soon(lambda s=shop, n=number: s.query_order(out_trade_no=n))


async def test_the_calls_of_hooks_are_bounded_too(kit_with, sandbox):
    most = []

    class Shop:
        @hookimpl
        async def on_paid(self, event):
            most.append(await busiest(shop, 6))

    shop = AsyncKit(kit_with(Shop()), threads=2)
    await shop.query_order(out_trade_no=await paid_unheard(shop, sandbox))
    assert most == [2]


async def test_what_a_hook_leaves_running_waits_like_any_other_call(kit_with, sandbox):
    over, release, started = anyio.Event(), threading.Event(), threading.Event()
    order = []

    async def later():
        await over.wait()
        await shop.run(order.append, "left behind")

    def hold():
        started.set()
        assert release.wait(PATIENCE)
        order.append("first")

    class Shop:
        @hookimpl
        async def on_paid(self, event):
            tasks.start_soon(later)

    shop = AsyncKit(kit_with(Shop()), threads=1)
    number = await paid_unheard(shop, sandbox)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            await shop.query_order(out_trade_no=number)
            tasks.start_soon(shop.run, hold)
            assert await anyio.to_thread.run_sync(started.wait, PATIENCE)
            over.set()
            await anyio.wait_all_tasks_blocked()
            release.set()
    assert order == ["first", "left behind"]


async def in_a_thread(anyio_backend, function, *args, **kwargs):
    """The framework's own way to a thread, which knows nothing of anyio."""
    call = functools.partial(function, *args, **kwargs)
    if anyio_backend == "trio":
        return await trio.to_thread.run_sync(call)
    return await asyncio.to_thread(call)


@pytest.mark.parametrize("to_thread", ["anyio", "own"])
async def test_a_call_that_a_hook_makes_in_any_thread_fires_on_the_applications_loop(
    kit_with, sandbox, anyio_backend, to_thread
):
    heard = []

    class Shop:
        @hookimpl
        async def on_paid(self, event):
            heard.append(threading.get_ident())
            if len(heard) > 1:
                return
            call = functools.partial(kit.query_order, out_trade_no=second)
            if to_thread == "anyio":
                await anyio.to_thread.run_sync(call)
            else:
                await in_a_thread(anyio_backend, call)

    kit = kit_with(Shop())
    shop = AsyncKit(kit)
    first, second = [await paid_unheard(shop, sandbox) for _ in range(2)]
    with anyio.fail_after(PATIENCE):
        await shop.query_order(out_trade_no=first)
    assert heard == [threading.get_ident()] * 2


async def test_a_call_that_a_plain_hook_of_a_delivery_makes_fires_on_the_applications_loop(
    kit_with, sandbox
):
    heard = []

    class Shop(Expecting):
        @hookimpl
        def on_duplicate(self, event):
            kit.query_order(out_trade_no=number)

        @hookimpl
        async def on_paid(self, event):
            heard.append((event.out_trade_no, threading.get_ident()))

    kit = kit_with(Shop())
    number = await paid_unheard(AsyncKit(kit), sandbox)
    app = shop_app(kit)
    notice = sandbox.notifications()[-1]
    signed = list(sandbox.seal.headers(notice.body, None).items()), notice.body
    for _ in range(2):
        await post(app, signed)
    assert heard == [(number, threading.get_ident())]


# Cancellation


async def test_a_call_that_has_begun_is_finished(kit_with, sandbox):
    started, finish, shipped = anyio.Event(), anyio.Event(), []

    class Shop:
        @hookimpl
        async def on_paid(self, event):
            started.set()
            await finish.wait()
            shipped.append(event.out_trade_no)

    shop = AsyncKit(kit_with(Shop()))
    number = await paid_unheard(shop, sandbox)
    cancelled = anyio.CancelScope()

    async def endpoint():
        with cancelled:
            await shop.query_order(out_trade_no=number)

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(endpoint)
            await started.wait()
            cancelled.cancel()
            await anyio.wait_all_tasks_blocked()
            finish.set()
    assert shipped == [number]
    asked = await shop.query_order(out_trade_no=number)
    assert asked.settlement is Outcome.DUPLICATE


async def test_a_call_that_waits_for_its_thread_can_be_given_up(kit_with):
    shop = AsyncKit(kit_with(Recorder()), threads=1)
    started, finish, made = threading.Event(), threading.Event(), []

    def hold():
        started.set()
        assert finish.wait(PATIENCE)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(shop.run, hold)
        assert await anyio.to_thread.run_sync(started.wait, PATIENCE)
        with anyio.move_on_after(0.01) as given_up:
            await shop.run(made.append, "call")
        finish.set()
    assert given_up.cancelled_caught
    assert made == []


# The lifespan


class Closing(SqliteStore):
    closed_in = None

    def close(self):
        super().close()
        self.closed_in = threading.get_ident()


@pytest.fixture
def closing(tmp_path):
    return Closing(tmp_path / "closing.db")


async def test_the_lifespan_closes_every_kit_in_a_thread(tmp_path):
    class Failing(Closing):
        def close(self):
            super().close()
            raise OSError("cannot close")

    stores = [Closing(tmp_path / "1.db"), Failing(tmp_path / "2.db"), Closing(tmp_path / "3.db")]
    kits = [receiving_kit(store, Recorder()) for store in stores]
    with pytest.raises(OSError, match="cannot close"):
        async with lifespan(*kits):
            assert [store.closed_in for store in stores] == [None] * 3
    assert None not in {store.closed_in for store in stores}
    assert threading.get_ident() not in {store.closed_in for store in stores}


async def test_the_lifespan_closes_when_the_application_is_cancelled(closing):
    with anyio.CancelScope() as scope:
        async with lifespan(receiving_kit(closing, Recorder())):
            scope.cancel()
            await anyio.sleep_forever()
    assert closing.closed_in


@pytest.mark.parametrize("framework", [Starlette, FastAPI])
def test_the_lifespan_composes_with_others_and_nothing_depends_on_it(closing, framework):
    kit = receiving_kit(closing, Recorder(), Expecting())
    said = []

    @asynccontextmanager
    async def other(_app):
        said.append("opened")
        yield
        said.append("closed")

    @asynccontextmanager
    async def composed(app):
        async with lifespan(kit), other(app):
            yield

    mounted = Mount("/wechatpay", routes=notify_routes(kit))
    with served(framework(routes=[mounted], lifespan=composed), lifespan="on"):
        assert said == ["opened"]
    assert said == ["opened", "closed"]
    assert closing.closed_in
    # Closed is not broken, and an application without the lifespan serves just as well.
    assert anyio.run(post, shop_app(kit), delivery()).status_code == 204
    closing.close()


# Without the extra


@pytest.mark.parametrize("missing", ["starlette", "anyio"])
def test_without_its_extra_importing_says_which_to_install(missing):
    code = f"import sys; sys.modules[{missing!r}] = None; import wechatpay_kit_starlette"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 1
    assert f"needs {missing}, which is not installed" in done.stderr
    assert "wechatpay-kit[starlette]" in done.stderr
