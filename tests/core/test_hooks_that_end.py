"""Hooks that try to end the process, hide what happened, or raise what cannot be told."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from deliveries import MCHID, Expecting, Recorder, delivery, receiving_kit
from wechatpay_kit import hookimpl
from wechatpay_kit.plugins import Plugins

KEY = f"order/{MCHID}/T1001"
ENDS = [SystemExit, GeneratorExit]


class Once:
    """Raises at its first call, however its ``on_paid`` is made; then has its effect."""

    def __init__(self, error):
        self.error = error
        self.calls = 0

    def act(self):
        self.calls += 1
        if self.calls == 1:
            raise self.error


class Plain(Once):
    @hookimpl
    def on_paid(self, event):
        self.act()


class Async(Once):
    @hookimpl
    async def on_paid(self, event):
        await asyncio.sleep(0)
        self.act()


class Wrapper(Once):
    @hookimpl(wrapper=True)
    def on_paid(self, event):
        self.act()
        return (yield)


class AfterWrapper(Once):
    @hookimpl(wrapper=True)
    def on_paid(self, event):
        result = yield
        self.act()
        return result


KINDS = [Plain, Async, Wrapper, AfterWrapper]


def deliver(kit):
    return kit.receiver.receive(*delivery()).status


def the_line(caplog):
    (line,) = [r for r in caplog.records if r.wechatpay_kit["line"] == "delivery"]
    return line.levelno, line.wechatpay_kit


@pytest.fixture(autouse=True)
def _logged(caplog):
    caplog.set_level(logging.INFO, "wechatpay_kit")


# Ending the process


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_that_ends_the_process_has_failed(kind, end, store, caplog):
    plugin = kind(end("bye"))
    kit = receiving_kit(store, Expecting(), shop := Recorder(), plugin)
    assert deliver(kit) == 500
    level, said = the_line(caplog)
    assert level == logging.ERROR
    assert (said["outcome"], said["reason"]) == ("failed", "hook_error")
    (left,) = kit.unsettled()
    assert (left.key, left.reason) == (KEY, "failed")
    assert end.__name__ in left.last_error
    assert not store.is_claimed(KEY)  # released: the next delivery need not wait for the lease
    assert deliver(kit) == 204
    assert plugin.calls == 2
    assert shop.names() == ["on_paid"]
    assert kit.unsettled() == []


@pytest.mark.parametrize("end", [*ENDS, KeyboardInterrupt])
def test_the_background_loop_works_after_a_hook_tried_to_end_it(end):
    plugins = Plugins()
    plugin = Async(end())
    plugins.register(plugin)
    with pytest.raises(RuntimeError, match=f"{end.__name__}; a hook must not end"):
        plugins.fire("on_paid", event=None)
    loops = [t for t in threading.enumerate() if t.name == "wechatpay-kit-hooks"]
    plugins.fire("on_paid", event=None)
    assert plugin.calls == 2
    assert [t for t in threading.enumerate() if t.name == "wechatpay-kit-hooks"] == loops


def test_an_async_hook_that_ends_the_process_by_the_callers_loop_has_failed(store):
    plugin = Async(SystemExit(3))
    kit = receiving_kit(store, Expecting(), plugin)
    with asyncio.Runner() as runner:

        def run_async(function, *args):
            return runner.run(function(*args))

        statuses = [kit.receiver.receive(*delivery(), run_async=run_async).status for _ in "ab"]
    assert statuses == [500, 204]


def test_a_question_that_ends_the_process_has_failed(store):
    class Orders(Once):
        @hookimpl
        def expected_order(self, out_trade_no):
            self.act()

    kit = receiving_kit(store, Expecting(), Orders(SystemExit()), shop := Recorder())
    assert [deliver(kit), deliver(kit)] == [500, 204]
    assert shop.names() == ["on_paid"]


@pytest.mark.parametrize("hook", ["on_duplicate", "on_rejected"])
def test_a_telling_that_ends_the_process_changes_nothing(hook, store):
    class Ends:
        @hookimpl
        def on_paid(self, event):
            pass

        @hookimpl
        def on_duplicate(self, event):
            raise SystemExit

        @hookimpl
        def on_rejected(self, event):
            raise SystemExit

    kit = receiving_kit(store, Expecting(), Ends())
    if hook == "on_duplicate":
        assert [deliver(kit), deliver(kit)] == [204, 204]
    else:
        assert kit.receiver.receive([], b"").status == 400


@pytest.mark.parametrize("kind", [Plain, Wrapper, AfterWrapper])
def test_an_interrupt_goes_on_but_is_logged_and_leaves_the_claim_free(kind, store, caplog):
    plugin = kind(KeyboardInterrupt())
    kit = receiving_kit(store, Expecting(), Recorder(), plugin)
    with pytest.raises(KeyboardInterrupt):
        deliver(kit)
    level, said = the_line(caplog)
    assert (level, said["status"]) == (logging.ERROR, 500)
    (left,) = kit.unsettled()
    assert (left.key, left.last_error) == (KEY, "KeyboardInterrupt: ")
    assert not store.is_claimed(KEY)
    assert deliver(kit) == 204
    assert plugin.calls == 2


# Hiding it


class Swallowing:
    """What a shop writes so that nothing ever fails."""

    def __init__(self):
        self.swallowed = []

    @hookimpl(wrapper=True)
    def on_paid(self, event):
        try:
            return (yield)
        except Exception as error:  # noqa: BLE001 - what such a shop writes
            self.swallowed.append(error)
            return []


@pytest.mark.parametrize("kind", [Plain, Async])
def test_a_wrapper_that_swallows_does_not_make_it_done(kind, store, caplog):
    plugin = kind(RuntimeError("out of paper"))
    swallowing, shop = Swallowing(), Recorder()
    kit = receiving_kit(store, Expecting(), plugin, shop, swallowing)
    assert deliver(kit) == 500
    _, said = the_line(caplog)
    assert said["reason"] == "hook_error"
    assert kind.__name__ in said["detail"]
    assert "Recorder" not in said["detail"]
    (left,) = kit.unsettled()
    assert left.key == KEY
    assert deliver(kit) == 204
    assert plugin.calls == 2
    assert shop.names() == ["on_paid"]  # it had completed, and is not told again
    assert len(swallowing.swallowed) == 1
    assert deliver(kit) == 204
    assert shop.names() == ["on_paid", "on_duplicate"]


def test_a_wrapper_that_swallows_for_ever_is_told_for_ever(store):
    class Broken:
        @hookimpl
        def on_paid(self, event):
            raise RuntimeError

    kit = receiving_kit(store, Expecting(), Broken(), Swallowing())
    assert [deliver(kit) for _ in range(3)] == [500] * 3
    (left,) = kit.unsettled()
    assert left.attempts == 3


# Raising what cannot be told


class Mute(Exception):  # noqa: N818 - what it is
    def __str__(self):
        raise ValueError("no text")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("caf\udce9 \ud800"), "RuntimeError: caf\\udce9 \\ud800"),
        (Mute(), "Mute"),
        (RuntimeError("茶\x00\n"), "RuntimeError: 茶\x00\n"),
        (RuntimeError("\udcff" * 2000), None),
    ],
    ids=["surrogates", "no text", "control characters", "long"],
)
@pytest.mark.parametrize("kind", [Plain, Async])
def test_whatever_a_hook_raises_its_claim_is_released(kind, error, told, store, caplog):
    caplog.set_level(logging.CRITICAL, "wechatpay_kit")  # a report of pytest's must be UTF-8
    plugin = kind(error)
    kit = receiving_kit(store, Expecting(), plugin)
    assert deliver(kit) == 500
    (left,) = kit.unsettled()
    assert left.key == KEY
    if told:
        assert left.last_error == told
    assert not store.is_claimed(KEY)
    assert deliver(kit) == 204
