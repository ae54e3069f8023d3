"""How a shop's plugins are registered and called: what pluggy promises, and what the kit adds."""

from __future__ import annotations

import asyncio
import functools
import logging
import sys
import threading
import types
from typing import Any
from unittest.mock import MagicMock, Mock

import pytest

from core.refusals import UntouchedStore, assert_fail_body
from deliveries import (
    Clock,
    Expecting,
    Recorder,
    delivery,
    merchant,
    receiving_kit,
    refund,
)
from wechatpay_kit import Answer, ConfigError, Hooks, Kit, hookimpl
from wechatpay_kit.plugins import Plugins, application_loop


class Told:
    """What was called, in order; plugins made here write their names into it."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def plugin(self, name: str, **options: Any) -> object:
        told = self.names

        class Plugin:
            @hookimpl(**options)
            def on_paid(self, event):
                told.append(name)
                return name

        return Plugin()


class OnPaid:
    @hookimpl
    def on_paid(self, event):
        return "paid"


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def plugins():
    return Plugins()


def refused(plugins: Plugins, plugin: object) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        plugins.register(plugin)
    return caught.value.problems


# Order, wrappers and first results are pluggy's own


def test_the_last_registered_is_called_first_unless_marked(plugins, told):
    plugins.register(told.plugin("a"))
    plugins.register(told.plugin("last", trylast=True))
    plugins.register(told.plugin("first", tryfirst=True))
    plugins.register(told.plugin("b"))
    assert plugins.fire("on_paid", event=None) == ["first", "b", "a", "last"]
    assert told.names == ["first", "b", "a", "last"]


def test_what_a_plugin_raises_stops_the_rest_and_is_raised(plugins, told):
    class Failing:
        @hookimpl
        def on_paid(self, event):
            raise KeyError("warehouse")

    plugins.register(told.plugin("never"))
    plugins.register(Failing())
    with pytest.raises(KeyError, match="warehouse"):
        plugins.fire("on_paid", event=None)
    assert told.names == []


@pytest.mark.parametrize("style", ["wrapper", "hookwrapper"])
def test_a_wrapper_runs_around_the_others(style, plugins, told):
    class New:
        @hookimpl(wrapper=True)
        def on_paid(self, event):
            told.names.append("before")
            result = yield
            told.names.append("after")
            return [*result, "wrapped"]

    class Old:
        @hookimpl(hookwrapper=True)
        def on_paid(self, event):
            told.names.append("before")
            outcome = yield
            told.names.append("after")
            outcome.force_result([*outcome.get_result(), "wrapped"])

    plugins.register(New() if style == "wrapper" else Old())
    plugins.register(told.plugin("a"))
    assert plugins.fire("on_paid", event=None) == ["a", "wrapped"]
    assert told.names == ["before", "a", "after"]


def test_a_wrapper_sees_what_an_async_hook_returned(plugins):
    seen = []

    class Wrapper:
        @hookimpl(wrapper=True)
        def on_paid(self, event):
            seen.append((yield))
            return seen[-1]

    plugins.register(Wrapper())
    plugins.register(AsyncPlugin())
    plugins.fire("on_paid", event="e")
    assert seen == [["async e"]]


@pytest.mark.parametrize("hook", ["on_conflict", "expected_order"])
def test_the_first_result_ends_a_call_that_asks_for_one(hook, plugins):
    asked = []

    def answering(name, answer):
        class Plugin:
            @hookimpl
            def on_conflict(self, event):
                asked.append(name)
                return answer

            @hookimpl
            def expected_order(self, out_trade_no):
                asked.append(name)
                return answer

        return Plugin()

    for name, answer in (("never", "x"), ("yes", True), ("pass", None)):
        plugins.register(answering(name, answer))
    argument = {"event": None} if hook == "on_conflict" else {"out_trade_no": "T10012"}
    assert plugins.fire(hook, **argument) is True
    assert asked == ["pass", "yes"]


def test_nobody_answering_is_none(plugins):
    assert plugins.fire("expected_order", out_trade_no="T10012") is None
    assert plugins.fire("on_paid", event=None) == []


def test_a_hook_may_leave_its_arguments_out(plugins):
    class Brief:
        @hookimpl
        def on_paid(self):
            return "brief"

    plugins.register(Brief())
    assert plugins.fire("on_paid", event=None) == ["brief"]


def test_a_module_and_static_and_class_methods_are_plugins_too(plugins):
    module = types.ModuleType("shop_fulfilment")
    module.on_paid = hookimpl(lambda event: f"module {event}")

    class Static:
        @staticmethod
        @hookimpl
        def on_paid(event):
            return f"static {event}"

        @classmethod
        @hookimpl
        def on_closed(cls, event):
            return f"{cls.__name__} {event}"

    assert plugins.register(module) == "shop_fulfilment"
    plugins.register(Static())
    assert plugins.fire("on_paid", event=1) == ["static 1", "module 1"]
    assert plugins.fire("on_closed", event=1) == ["Static 1"]


def test_a_subclass_of_hooks_need_not_implement_them_all(plugins):
    class Typed(Hooks):
        @hookimpl
        def on_paid(self, event):
            return "typed"

    plugins.register(Typed())
    assert plugins.fire("on_paid", event=None) == ["typed"]
    assert not plugins.listens("on_refund")


def test_a_hook_of_another_name_may_be_given_by_specname(plugins):
    class Renamed:
        @hookimpl(specname="on_paid")
        def ship(self, event):
            return "shipped"

    plugins.register(Renamed())
    assert plugins.fire("on_paid", event=None) == ["shipped"]


def test_two_methods_for_one_hook_are_both_called_or_refused(plugins):
    class Twice:
        @hookimpl(specname="on_paid")
        def mail(self, event):
            return "mailed"

        @hookimpl(specname="on_paid")
        def ship(self, event):
            return "shipped"

    try:
        plugins.register(Twice())
    except ConfigError:
        return
    assert sorted(plugins.fire("on_paid", event=None)) == ["mailed", "shipped"]


# Which plugin has completed, and which need not run again


def test_each_plugins_completion_is_told_as_soon_as_it_returned(plugins, told):
    for name in "ab":
        plugins.register(told.plugin(name), name=name)
    plugins.fire("on_paid", event=None, completed=lambda name: told.names.append(f"{name} done"))
    assert told.names == ["b", "b done", "a", "a done"]


def test_a_plugin_that_raised_has_not_completed(plugins, told):
    class Failing:
        @hookimpl
        def on_paid(self, event):
            raise OSError

    completed = []
    plugins.register(Failing(), name="failing")
    plugins.register(told.plugin("a"), name="a")
    with pytest.raises(OSError):  # noqa: PT011 - a bare one
        plugins.fire("on_paid", event=None, completed=completed.append)
    assert completed == ["a"]


def test_those_that_completed_are_skipped_and_the_order_stays(plugins, told):
    for name in "abc":
        plugins.register(told.plugin(name), name=name)
    plugins.fire("on_paid", event=None, skip={"b", "a plugin of another deployment"})
    assert told.names == ["c", "a"]


def test_names_are_stable_over_processes_by_class_and_order():
    def names() -> list[str]:
        plugins = Plugins()
        return [plugins.register(OnPaid()) for _ in range(3)]

    first = names()
    assert first == names()
    assert first[0].endswith("test_plugins.OnPaid")
    assert first[1:] == [f"{first[0]}#2", f"{first[0]}#3"]


def test_a_name_may_be_given_and_is_taken_once(plugins):
    assert plugins.register(OnPaid(), name="mine") == "mine"
    with pytest.raises(ConfigError, match="a plugin named mine is registered already"):
        plugins.register(OnPaid(), name="mine")


# What cannot work is refused at registration


def test_a_misspelt_hook_is_refused_with_the_nearest_right_name(plugins):
    class Misspelt:
        @hookimpl
        def on_payed(self, event): ...

    assert refused(plugins, Misspelt()) == (
        "on_payed is no hook of wechatpay-kit; did you mean on_paid?",
    )


def test_a_hook_like_none_is_refused_with_all_names(plugins):
    class Other:
        @hookimpl
        def zzz(self, event): ...

    (said,) = refused(plugins, Other())
    for name in ("on_paid", "on_duplicate", "on_closed", "on_refund", "on_conflict"):
        assert name in said


def test_a_misspelt_argument_is_refused_with_the_nearest_right_name(plugins):
    class Misspelt:
        @hookimpl
        def on_paid(self, evnt): ...

        @hookimpl
        async def expected_order(self, out_trade_number): ...

    assert set(refused(plugins, Misspelt())) == {
        "on_paid has no argument evnt; did you mean event?",
        "expected_order has no argument out_trade_number; did you mean out_trade_no?",
    }


def test_a_class_is_refused_with_the_object_to_register(plugins):
    (said,) = refused(plugins, OnPaid)
    assert said == "OnPaid is a class; register an object of it: OnPaid()"


def test_a_hook_without_its_mark_is_refused(plugins):
    class Unmarked:
        @hookimpl
        def on_refund(self, event): ...

        def on_paid(self, event): ...

    (said,) = refused(plugins, Unmarked())
    assert said == "on_paid is not marked with @hookimpl, so it would never be called"


def test_a_hook_without_its_mark_is_refused_in_a_subclass_of_hooks_too(plugins):
    class Typed(Hooks):
        @hookimpl
        def on_refund(self, event): ...

        def on_paid(self, event): ...

    assert "on_paid is not marked" in refused(plugins, Typed())[0]


def test_a_hook_without_its_mark_is_refused_whatever_the_class_is_called(plugins):
    shop = types.ModuleType("shop")
    source = """
from wechatpay_kit import hookimpl
class Hooks:
    @hookimpl
    def on_refund(self, event): ...
    def on_paid(self, event): ...
"""
    exec(source, vars(shop))
    assert "on_paid is not marked" in refused(plugins, shop.Hooks())[0]


@pytest.mark.parametrize(
    "plugin", [object(), None, 1, "on_paid", {}], ids=lambda plugin: type(plugin).__name__
)
def test_what_has_no_hook_is_refused_with_all_names(plugin, plugins):
    (said,) = refused(plugins, plugin)
    assert "has no hook; mark its methods with @hookimpl: on_paid, " in said


def test_an_async_wrapper_is_refused(plugins):
    class Wrapper:
        @hookimpl(wrapper=True)
        async def on_paid(self, event):
            yield

    assert "must be a plain generator function" in refused(plugins, Wrapper())[0]


def test_all_that_is_wrong_with_a_plugin_is_said_at_once(plugins):
    class Wrong:
        @hookimpl
        def on_payed(self, event): ...

        @hookimpl
        def on_closed(self, evnt): ...

        def on_paid(self, event): ...

    assert len(refused(plugins, Wrong())) == 3


# A plugin's other attributes are its own


@pytest.mark.parametrize("kind", [property, functools.cached_property], ids=lambda k: k.__name__)
def test_a_property_is_not_run_by_registration(kind, plugins):
    ran = []

    class Lazy(OnPaid):
        @kind
        def database(self):
            ran.append("connected")
            raise OSError("the database is down")

    plugins.register(Lazy())
    assert ran == []


class OutsideOfAContext:
    """Like a framework's proxy: callable, and any attribute raises outside of a request."""

    def __call__(self): ...

    def __getattr__(self, name):
        raise RuntimeError("working outside of application context")


@pytest.mark.parametrize(
    "value",
    [Mock(), MagicMock(), OutsideOfAContext(), print, OnPaid, lambda: None, 1, None],
    ids=lambda value: type(value).__name__,
)
def test_an_attribute_of_any_kind_does_no_harm(value, plugins):
    plugin = OnPaid()
    plugin.mailer = value
    plugins.register(plugin)
    assert plugins.fire("on_paid", event=None) == ["paid"]


# The set is frozen by the first delivery


def test_registering_after_the_freeze_is_refused(plugins):
    plugins.register(OnPaid())
    plugins.freeze()
    assert "after the first delivery" in refused(plugins, OnPaid())[0]


def test_the_first_delivery_freezes_the_set(store):
    kit = receiving_kit(store, Recorder(), Expecting())
    kit.register(OnPaid())
    assert kit.receiver.receive(*delivery()) == Answer(204)
    with pytest.raises(ConfigError, match="after the first delivery"):
        kit.register(OnPaid())


# By name: module:attribute, and entry points


@pytest.fixture
def shop_module(tmp_path, monkeypatch):
    (tmp_path / "a_shops_plugins.py").write_text(
        "from wechatpay_kit import hookimpl\n"
        "class Fulfilment:\n"
        "    def __init__(self, settings=None):\n"
        "        self.settings = settings\n"
        "    @hookimpl\n"
        "    def on_paid(self, event):\n"
        "        return self.settings\n"
        "ready = Fulfilment('ready made')\n"
        "def make(settings):\n"
        "    return Fulfilment(['made', settings])\n"
        "class Shelf:\n"
        "    plugin = ready\n"
    )
    distribution = tmp_path / "a_shop-1.0.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: a-shop\nVersion: 1.0\n")
    (distribution / "entry_points.txt").write_text(
        "[wechatpay_kit]\n"
        "fulfilment = a_shops_plugins:Fulfilment\n"
        "ready = a_shops_plugins:ready\n"
        "broken = a_shops_plugins:nothing\n"
        "gone = no_such_module_anywhere:plugin\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "a_shops_plugins"
    sys.modules.pop("a_shops_plugins", None)


@pytest.mark.parametrize(
    ("spec", "result"),
    [
        ("a_shops_plugins:ready", "ready made"),
        ("a_shops_plugins:Shelf.plugin", "ready made"),
        ("a_shops_plugins:Fulfilment", "settings"),
        ("a_shops_plugins:make", ["made", "settings"]),
        ("ready", "ready made"),
        ("fulfilment", "settings"),
    ],
)
def test_a_name_gives_an_object_or_what_makes_one_of_the_settings(
    spec, result, plugins, shop_module
):
    assert plugins.load(spec, "settings") == spec
    assert plugins.fire("on_paid", event=None) == [result]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("no_such_module_anywhere:plugin", "No module named 'no_such_module_anywhere'"),
        ("a_shops_plugins:nothing", "nothing"),
        ("a_shops_plugins:Shelf.nothing", "nothing"),
        ("a_shops_plugins:", ""),
        (":ready", ""),
        ("fulfilmnt", "installed: .*fulfilment"),
        ("broken", "nothing"),
        ("gone", "no_such_module_anywhere"),
    ],
)
def test_a_name_that_leads_nowhere_is_a_config_error(spec, says, plugins, shop_module):
    with pytest.raises(ConfigError, match=f"(?s){spec}.*{says}"):
        plugins.load(spec, "settings")


def test_installed_plugins_are_not_loaded_unless_named(shop_module, store):
    recorder = Recorder()
    kit = receiving_kit(store, recorder, Expecting())
    assert kit.receiver.receive(*delivery()) == Answer(204)
    assert shop_module not in sys.modules


def test_the_merchants_plugins_are_loaded_with_its_settings(shop_module, store):
    shop = merchant(plugins=["fulfilment"])
    kit = Kit(shop, store=store, clock=Clock())
    kit.receiver.check_ready()
    assert sys.modules[shop_module]
    with pytest.raises(ConfigError, match="a plugin named fulfilment is registered already"):
        kit.register(OnPaid(), name="fulfilment")


# Async hooks


class AsyncPlugin:
    def __init__(self) -> None:
        self.loops, self.threads = [], []

    @hookimpl
    async def on_paid(self, event):
        await asyncio.sleep(0)
        self.loops.append(asyncio.get_running_loop())
        self.threads.append(threading.current_thread())
        return f"async {event}"


def test_async_hooks_run_to_their_end_in_their_place(plugins, told):
    class Slow:
        @hookimpl
        async def on_paid(self, event):
            for _ in range(10):
                await asyncio.sleep(0)
            told.names.append("async")
            return "async"

    plugins.register(told.plugin("a"))
    plugins.register(Slow())
    plugins.register(told.plugin("b"))
    assert plugins.fire("on_paid", event=None) == ["b", "async", "a"]
    assert told.names == ["b", "async", "a"]


def test_async_hooks_share_one_loop_that_is_kept_over_calls_and_threads(plugins):
    plugin = AsyncPlugin()
    plugins.register(plugin)
    for _ in range(3):
        plugins.fire("on_paid", event=1)
    other = threading.Thread(target=plugins.fire, args=("on_paid",), kwargs={"event": 2})
    other.start()
    other.join()
    assert len(plugin.loops) == 4
    assert len(set(plugin.loops)) == 1
    assert {thread.daemon for thread in plugin.threads} == {True}
    assert threading.current_thread() not in plugin.threads


def test_a_caller_with_a_way_to_its_own_loop_is_taken_at_its_word(plugins):
    plugin = AsyncPlugin()
    plugins.register(plugin)
    with asyncio.Runner() as runner:
        calls = []

        def run_async(function, *arguments):
            calls.append(function)
            return runner.run(function(*arguments))

        assert plugins.fire("on_paid", event=1, run_async=run_async) == ["async 1"]
        assert plugin.loops == [runner.get_loop()]
        assert len(calls) == 1


def test_an_adapters_loop_is_used_and_the_callers_own_goes_before_it(plugins):
    plugin = AsyncPlugin()
    plugins.register(plugin)
    with asyncio.Runner() as application, asyncio.Runner() as own:

        def of(runner):
            return lambda function, *arguments: runner.run(function(*arguments))

        token = application_loop.set(of(application))
        try:
            plugins.fire("on_paid", event=1)
            plugins.fire("on_paid", event=1, run_async=of(own))
        finally:
            application_loop.reset(token)
        plugins.fire("on_paid", event=1)
        assert plugin.loops[:2] == [application.get_loop(), own.get_loop()]
        assert plugin.loops[2] not in plugin.loops[:2]


def test_receive_hands_its_callers_loop_to_the_hooks(store):
    plugin = AsyncPlugin()
    kit = receiving_kit(store, plugin, Expecting())
    with asyncio.Runner() as runner:
        answer = kit.receiver.receive(
            *delivery(), run_async=lambda function, *args: runner.run(function(*args))
        )
        assert answer == Answer(204)
        assert plugin.loops == [runner.get_loop()]


def test_what_an_async_hook_raises_is_raised(plugins):
    class Failing:
        @hookimpl
        async def on_paid(self, event):
            await asyncio.sleep(0)
            raise KeyError("warehouse")

    plugins.register(Failing())
    with pytest.raises(KeyError, match="warehouse"):
        plugins.fire("on_paid", event=None)


def test_the_first_result_of_an_async_hook_is_its_value_and_not_its_coroutine(plugins):
    class Conflicts:
        @hookimpl
        async def on_conflict(self, event):
            return True

    class Passing:
        @hookimpl
        async def on_conflict(self, event):
            return None

    plugins.register(Conflicts())
    plugins.register(Passing())
    assert plugins.fire("on_conflict", event=None) is True


def test_a_plain_hook_that_returns_an_awaitable_is_awaited(plugins):
    async def later():
        return "later"

    class Plain:
        @hookimpl
        def on_paid(self, event):
            return later()

    plugins.register(Plain())
    assert plugins.fire("on_paid", event=None) == ["later"]


def test_hooks_that_fire_hooks_keep_apart_who_has_completed(plugins):
    completed = []

    class Outer:
        @hookimpl
        def on_paid(self, event):
            plugins.fire("on_closed", event=None, completed=lambda name: completed.append("inner"))

    class Inner:
        @hookimpl
        def on_closed(self, event): ...

    plugins.register(Outer())
    plugins.register(Inner())
    plugins.fire("on_paid", event=None, completed=lambda name: completed.append("outer"))
    assert completed == ["inner", "outer"]


# On an event loop's own thread


def on_a_loop(call) -> None:
    async def main() -> None:
        call()

    asyncio.run(main())


def test_a_call_that_may_run_async_hooks_is_refused_on_a_running_loop(plugins):
    plugins.register(AsyncPlugin())
    with pytest.raises(RuntimeError, match=r"anyio\.to_thread\.run_sync"):
        on_a_loop(plugins.refuse_running_loop)
    plugins.refuse_running_loop()  # elsewhere it is fine


def test_without_async_hooks_a_running_loop_is_nobodys_business(plugins):
    plugins.register(OnPaid())
    on_a_loop(plugins.refuse_running_loop)


CALLS = {
    "create_order": lambda kit: kit.create_order(
        out_trade_no="T10012", total=1, description="tea", openid="o"
    ),
    "query_order": lambda kit: kit.query_order(out_trade_no="T10012"),
    "close_order": lambda kit: kit.close_order("T10012"),
    "create_refund": lambda kit: kit.create_refund(
        out_refund_no="R1", refund=1, total=1, out_trade_no="T10012"
    ),
    "query_refund": lambda kit: kit.query_refund("R1"),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_kits_call_raises_on_a_running_loop_before_any_io(call):
    kit = Kit(merchant(), plugins=[AsyncPlugin()], store=UntouchedStore(), clock=Clock())
    with pytest.raises(RuntimeError, match=r"anyio\.to_thread\.run_sync"):
        on_a_loop(lambda: CALLS[call](kit))
    assert "client" not in vars(kit)


# Slow hooks


class Turning:
    """A monotonic clock that a hook turns."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("seconds", "warned"), [(0.0, False), (2.0, False), (2.001, True)])
@pytest.mark.parametrize("raises", [False, True])
def test_a_hook_over_two_seconds_is_logged_with_the_advice_to_enqueue(
    seconds, warned, raises, caplog
):
    monotonic = Turning()
    plugins = Plugins(monotonic=monotonic)

    class Slow:
        @hookimpl
        def on_paid(self, event):
            monotonic.now += seconds
            if raises:
                raise OSError

    plugins.register(Slow(), name="fulfilment")
    with caplog.at_level(logging.WARNING, "wechatpay_kit"):
        plugins.tell("on_paid", None)
    lines = [record.message for record in caplog.records if record.message.startswith("slow_hook")]
    assert bool(lines) is warned
    if warned:
        assert "hook=on_paid plugin=fulfilment milliseconds=2001" in lines[0]
        assert "enqueue" in lines[0]


def test_a_slow_async_hook_is_logged_too(caplog):
    monotonic = Turning()
    plugins = Plugins(monotonic=monotonic)

    class Slow:
        @hookimpl
        async def on_paid(self, event):
            monotonic.now += 3

    plugins.register(Slow())
    plugins.fire("on_paid", event=None)
    assert any("milliseconds=3000" in record.message for record in caplog.records)


def test_a_failure_that_changes_nothing_is_logged(plugins, caplog):
    class Failing:
        @hookimpl
        def on_rejected(self, event):
            raise KeyError("alarm")

    plugins.register(Failing())
    plugins.tell("on_rejected", None)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "on_rejected raised" in record.message
    assert record.exc_info


# Nobody listening is an error


class OnlyAWrapper:
    @hookimpl(wrapper=True)
    def on_paid(self, event):
        return (yield)


@pytest.mark.parametrize("nobody", [(), (Expecting(),), (OnlyAWrapper(),)], ids=len)
def test_with_nobody_listening_an_adapter_refuses_to_start_and_deliveries_fail(nobody, store):
    kit = receiving_kit(store, *nobody)
    with pytest.raises(ConfigError, match="no plugin implements on_paid"):
        kit.receiver.check_ready()
    answer = kit.receiver.receive(*delivery())
    assert answer.status == 500
    assert_fail_body(answer)


def test_with_nobody_listening_a_query_refuses_before_any_io():
    kit = Kit(merchant(), store=UntouchedStore(), clock=Clock())
    for call in ("query_order", "close_order"):
        with pytest.raises(ConfigError, match="no plugin implements on_paid"):
            CALLS[call](kit)
    with pytest.raises(ConfigError, match="no plugin implements on_refund"):
        CALLS["query_refund"](kit)
    assert "client" not in vars(kit)


def test_with_nobody_listening_for_refunds_a_refund_fails_and_payments_do_not(store):
    kit = receiving_kit(store, OnPaid(), Expecting())
    kit.receiver.check_ready()
    assert kit.receiver.receive(*delivery()) == Answer(204)
    assert kit.receiver.receive(*delivery(refund(), "REFUND.SUCCESS")).status == 500


def test_with_somebody_listening_an_adapter_may_start(store):
    receiving_kit(store, OnPaid()).receiver.check_ready()
