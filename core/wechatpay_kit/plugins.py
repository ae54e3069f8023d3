"""Register a shop's plugins and call their hooks.

Knows pluggy, coroutines and names; knows nothing of orders or claims. Order, wrappers, first
results and exceptions are pluggy's own: at registration each hook is replaced by a plain
function that also runs a coroutine to its end and reports which plugin has completed.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import sys
import threading
import time
from contextvars import ContextVar
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pluggy

from . import log
from .errors import ConfigError
from .hookspecs import PROJECT, Hooks
from .processes import PerProcess

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Collection

__all__ = ["AsyncRunner", "Plugins", "application_loop", "find_plugin"]

_MARK = f"{PROJECT}_impl"  # where pluggy's @hookimpl leaves its options
SLOW_HOOK = 2.0  # seconds; WeChat Pay waits 5 for the whole delivery


class AsyncRunner(Protocol):
    """Runs a coroutine function to its end from a worker thread, like ``anyio.from_thread.run``."""

    def __call__(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any: ...


class Plugins:
    """The plugins of one kit. Frozen by the first delivery: a late one would have missed money."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(Hooks)
        self._monotonic = monotonic
        self._loop = PerProcess(_BackgroundLoop)
        self._frozen = False
        self.has_async_hooks = False

    def register(self, plugin: object, *, name: str | None = None) -> str:
        """Add a plugin object and return its name.

        Raises :class:`ConfigError` for a class, an unknown hook or argument (with the nearest
        right name), a hook without ``@hookimpl``, or once the set is frozen.
        """
        if self._frozen:
            raise ConfigError("plugins cannot be registered after the first delivery or settlement")
        if inspect.isclass(plugin):
            raise ConfigError(
                f"{plugin.__qualname__} is a class; register an object of it: "
                f"{plugin.__qualname__}()"
            )
        hooks = self._hooks_of(plugin)
        name = name or self._name_for(plugin)
        if self._manager.has_plugin(name):
            raise ConfigError(f"a plugin named {name} is registered already")
        proxy = _Proxy({hook: self._bound(hook, name, impl) for hook, impl in hooks.items()})
        self._manager.register(proxy, name)
        return name

    def load(self, spec: str, settings: object) -> str:
        """Register what ``spec`` names (see :func:`find_plugin`).

        A class or function found there is called with ``settings`` to make the plugin.
        """
        found = find_plugin(spec)
        if inspect.isclass(found) or inspect.isroutine(found):
            found = found(settings)
        return self.register(found, name=spec)

    def freeze(self) -> None:
        self._frozen = True

    def listeners(self, hook: str) -> set[str]:
        """The names of the plugins that implement ``hook`` (a wrapper alone is nobody)."""
        return {
            impl.plugin_name
            for impl in getattr(self._manager.hook, hook).get_hookimpls()
            if not (impl.wrapper or impl.hookwrapper)
        }

    def listens(self, hook: str) -> bool:
        """Whether any plugin implements ``hook``."""
        return bool(self.listeners(hook))

    def refuse_running_loop(self) -> None:
        """Raise ``RuntimeError`` on an event loop's own thread if a coroutine may have to run."""
        if self.has_async_hooks and _on_event_loop():
            raise RuntimeError(
                "this call may run async hooks and would block the event loop it is made on; "
                "await anyio.to_thread.run_sync(…) instead"
            )

    def fire(
        self,
        hook: str,
        *,
        skip: Collection[str] = (),
        completed: Callable[[str], None] | None = None,
        run_async: AsyncRunner | None = None,
        **arguments: object,
    ) -> Any:
        """Call ``hook`` on all plugins but those named in ``skip``.

        ``completed`` is told each plugin's name as soon as it has returned. What a plugin raises
        is raised here.
        """
        caller = getattr(self._manager.hook, hook)
        if skip:
            done = [p for p in map(self._manager.get_plugin, skip) if p is not None]
            caller = self._manager.subset_hook_caller(hook, done)
        runner = run_async or application_loop.get() or self._loop().run
        token = _firing.set(_Firing(runner, completed))
        try:
            return caller(**arguments)
        except (SystemExit, GeneratorExit) as error:
            raise _left(error) from error
        finally:
            _firing.reset(token)

    def tell(self, hook: str, event: object, *, run_async: AsyncRunner | None = None) -> None:
        """Fire a hook whose failure changes nothing: it is logged."""
        try:
            self.fire(hook, run_async=run_async, event=event)
        except Exception:  # noqa: BLE001 - whatever a plugin raises, the outcome stands
            log.logger.exception("%s raised; the outcome stands", hook)

    def _bound(self, hook: str, name: str, implementation: Callable[..., Any]) -> Any:
        options = getattr(implementation, _MARK)
        if options["wrapper"] or options["hookwrapper"]:
            return implementation

        @functools.wraps(implementation)
        def call(*args: Any) -> Any:
            firing = _firing.get()
            began = self._monotonic()
            try:
                result = implementation(*args)
                if inspect.isawaitable(result):
                    result = firing.run_async(_result_of, result)
            finally:
                self._warn_if_slow(hook, name, self._monotonic() - began)
            if firing.completed:
                firing.completed(name)
            return result

        return call

    def _warn_if_slow(self, hook: str, name: str, seconds: float) -> None:
        if seconds > SLOW_HOOK:
            log.write(
                logging.WARNING,
                "slow_hook",
                hook=hook,
                plugin=name,
                milliseconds=round(seconds * 1000),
                advice="enqueue the work and return; WeChat Pay waits 5 s",
            )

    def _hooks_of(self, plugin: object) -> dict[str, Callable[..., Any]]:
        found: dict[str, Callable[..., Any]] = {}
        problems: list[str] = []
        for attribute in dir(plugin):
            # Looked at without being run: a property may connect, a proxy may raise.
            static = inspect.getattr_static(plugin, attribute, None)
            function = getattr(static, "__func__", static) if _is_method(static) else static
            options = getattr(function, _MARK, None) if inspect.isfunction(function) else None
            if options is None:
                problems += _unmarked(plugin, attribute, function)
                continue
            implementation = getattr(plugin, attribute)
            hook = options["specname"] or attribute
            problems += self._misfits(hook, implementation, options)
            if hook in found:
                problems.append(f"{hook} is implemented twice; one plugin has one of each hook")
            if inspect.iscoroutinefunction(implementation):
                self.has_async_hooks = True
            found[hook] = implementation
        if not found and not problems:
            problems.append(
                f"{type(plugin).__qualname__} has no hook; mark its methods with @hookimpl: "
                + ", ".join(_NAMES)
            )
        if problems:
            raise ConfigError(problems)
        return found

    def _misfits(
        self, hook: str, implementation: Callable[..., Any], options: pluggy.HookimplOpts
    ) -> list[str]:
        if hook not in _NAMES:
            return [f"{hook} is no hook of wechatpay-kit{_nearest(hook, _NAMES)}"]
        if (options["wrapper"] or options["hookwrapper"]) and not inspect.isgeneratorfunction(
            implementation
        ):
            return [f"{hook}: a hook wrapper must be a plain generator function (def … yield)"]
        allowed = _arguments(getattr(Hooks, hook))[1:]
        return [
            f"{hook} has no argument {name}{_nearest(name, allowed)}"
            for name in _arguments(implementation)
            if name not in allowed and name != "self"
        ]

    def _name_for(self, plugin: object) -> str:
        kind = type(plugin)
        base = (
            plugin.__name__
            if isinstance(plugin, ModuleType)
            else f"{kind.__module__}.{kind.__qualname__}"
        )
        # Names stand in the store beside what each plugin completed, so they must be the same in
        # the next process: by class and order of registration, not by id().
        names = (base, *(f"{base}#{number}" for number in range(2, 1000)))
        return next(name for name in names if not self._manager.has_plugin(name))


def find_plugin(spec: str) -> Any:
    """What ``spec`` names: an entry point of group ``wechatpay_kit``, or ``module:attribute``.

    Raises :class:`ConfigError` where there is no such thing or it does not import.
    """
    load: Callable[[], Any]
    if ":" in spec:
        module, _, attribute = spec.partition(":")
        load = functools.partial(_attribute, module, attribute)
    else:
        from importlib.metadata import entry_points  # noqa: PLC0415 - paid by who needs it

        group = entry_points(group=PROJECT)
        if spec not in group.names:
            held = ", ".join(sorted(group.names)) or "none"
            raise ConfigError(f"no plugin is installed under the name {spec}; installed: {held}")
        load = group[spec].load
    try:
        return load()
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"plugin {spec} cannot be loaded: {error}") from error


class _Proxy:
    """What pluggy holds in a plugin's place: its hooks, each replaced by a plain function."""

    def __init__(self, hooks: dict[str, Callable[..., Any]]) -> None:
        vars(self).update(hooks)


class _Firing(NamedTuple):
    run_async: AsyncRunner
    completed: Callable[[str], None] | None


_firing: ContextVar[_Firing] = ContextVar("wechatpay_kit_firing")
application_loop: ContextVar[AsyncRunner | None] = ContextVar(
    "wechatpay_kit_application_loop", default=None
)
"""Set by an adapter in its worker threads: the way from there to the application's own loop."""
_NAMES = tuple(name for name in vars(Hooks) if hasattr(getattr(Hooks, name), f"{PROJECT}_spec"))


class _BackgroundLoop:
    """One event loop in a daemon thread, for hooks fired where no application loop is.

    Never ``asyncio.run`` a call: HTTP clients and pools are bound to the loop that made them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        import asyncio  # noqa: PLC0415 - paid by who has async hooks

        return asyncio.run_coroutine_threadsafe(_result_of(function(*args)), self._run()).result()

    def _run(self) -> asyncio.AbstractEventLoop:
        import asyncio  # noqa: PLC0415 - paid by who has async hooks

        with self._lock:
            if self._loop is None or self._thread is None or not self._thread.is_alive():
                loop = asyncio.new_event_loop()
                thread = threading.Thread(
                    target=loop.run_forever, name="wechatpay-kit-hooks", daemon=True
                )
                try:
                    thread.start()
                except BaseException:
                    loop.close()
                    raise
                self._loop, self._thread = loop, thread
            return self._loop


async def _result_of(awaitable: Awaitable[Any]) -> Any:
    try:
        return await awaitable
    except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:
        raise _left(error) from error  # asyncio would end the loop, and with it every later hook


def _left(error: BaseException) -> RuntimeError:
    return RuntimeError(f"a hook raised {type(error).__name__}; a hook must not end its process")


def _on_event_loop() -> bool:
    import asyncio  # noqa: PLC0415 - paid by who has async hooks

    # In sys.modules a module may be half imported, by another thread.
    in_trio_run = getattr(getattr(sys.modules.get("trio"), "lowlevel", None), "in_trio_run", None)
    if in_trio_run is not None and in_trio_run():
        return True
    try:
        return asyncio.get_running_loop() is not None
    except RuntimeError:
        return False


def _unmarked(plugin: object, attribute: str, function: object) -> list[str]:
    is_default = getattr(type(plugin), attribute, None) is getattr(Hooks, attribute, None)
    if attribute not in _NAMES or is_default or not callable(function):
        return []
    return [f"{attribute} is not marked with @hookimpl, so it would never be called"]


def _is_method(static: object) -> bool:
    return isinstance(static, staticmethod | classmethod)


def _attribute(module: str, path: str) -> Any:
    return functools.reduce(getattr, path.split("."), importlib.import_module(module))


def _arguments(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


def _nearest(name: str, names: Collection[str]) -> str:
    import difflib  # noqa: PLC0415 - paid by who misspells

    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(names)}"
