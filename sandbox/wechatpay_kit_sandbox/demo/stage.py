"""Who plays the story: a sandbox, a shop on a real socket, a plugin that listens.

Knows sockets, folders and logs; knows nothing of what happens, nor of the shop's framework.
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import requests

from wechatpay_kit import Kit, hookimpl
from wechatpay_kit_sandbox.server import Sandbox, bound

from .shops import OPENID, ORDERS, PATH, SHOPS, TOTAL, Shop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import ExitStack

    from wechatpay_kit import Event
    from wechatpay_kit_sandbox.notifications import Notification

__all__ = [
    "OPENID",
    "TOTAL",
    "Stage",
    "StoryError",
    "captured_log",
    "check",
    "leave_midnight_behind",
    "loopback_without_proxy",
    "set_stage",
]


class StoryError(Exception):
    """Something that the story tells did not happen; the message says what."""


def check(happened: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as a sentence
    """Raise :class:`StoryError` saying ``otherwise``, unless it happened."""
    if not happened:
        raise StoryError(otherwise)


class Stage:
    """The actors, and what a step must know of those before it."""

    payment: dict[str, str]
    notification: Notification

    def __init__(
        self, sandbox: Sandbox, kit: Kit, shop_url: str, folder: Path, log: _Log, told: _Told
    ) -> None:
        self.sandbox, self.kit, self.shop_url, self.folder = sandbox, kit, shop_url, folder
        self.log, self.told = log, told
        self.http = requests.Session()
        self.http.trust_env = False  # a proxy from the environment has no way to loopback
        numbers = f"DEMO{sandbox.now():%Y%m%d%H%M%S}"
        self.first, self.second = f"{numbers}A", f"{numbers}B"

    def place(self, number: str) -> dict[str, Any]:
        """What the mini-program does: ask the shop for an order."""
        answer = self.http.post(f"{self.shop_url}{ORDERS}", json={"number": number}, timeout=30)
        placed: dict[str, Any] = answer.json()
        check(answer.ok, f"the shop answered {answer.status_code}: {placed.get('error')}")
        return placed


def set_stage(stack: ExitStack, log: _Log, adapter: str, notify_url: str | None) -> Stage:
    """Start sandbox and shop; ``stack`` stops them."""
    listener = stack.enter_context(bound("127.0.0.1", 0))
    shop_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    sandbox = stack.enter_context(Sandbox(notify_url=notify_url or f"{shop_url}{PATH}"))
    leave_midnight_behind(sandbox)
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="wechatpay-kit-demo-")))
    told = _Told()

    def make_kit(*, receive_only: bool = False) -> Kit:
        kit = Kit.from_env(
            environ=sandbox.environment(),
            plugins=[told],
            store=f"sqlite:///{folder / 'shop.db'}",
            receive_only=receive_only,
        )
        stack.callback(kit.close)
        return kit

    kit = make_kit()
    stage = Stage(sandbox, kit, shop_url, folder, log, told)
    stack.callback(stage.http.close)
    stack.enter_context(SHOPS[adapter](Shop(kit, partial(make_kit, receive_only=True)), listener))
    return stage


def leave_midnight_behind(sandbox: Sandbox) -> None:
    """The story is one day's: started a minute before midnight, it starts after it."""
    soon = sandbox.now() + timedelta(minutes=1)
    if soon.date() != sandbox.now().date():
        sandbox.advance_to(soon)


@contextmanager
def loopback_without_proxy() -> Iterator[None]:
    """Whatever proxy the environment names, it has no way to this machine's loopback."""
    before = os.environ.get("no_proxy")
    named = before or os.environ.get("NO_PROXY")
    os.environ["no_proxy"] = f"{named},127.0.0.1" if named else "127.0.0.1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["no_proxy"]
        else:
            os.environ["no_proxy"] = before


class _Told:
    """The shop's plugin: remembers what its hooks were told, in order."""

    def __init__(self) -> None:
        self._events: list[tuple[str, Any]] = []

    def of(self, hook: str) -> list[Any]:
        return [event for told, event in list(self._events) if told == hook]

    def count(self, hook: str) -> int:
        return len(self.of(hook))

    def only(self, hook: str) -> list[Any]:
        """The one event of a hook that must have fired once."""
        events = self.of(hook)
        check(len(events) == 1, f"{hook} fired {len(events)} times, not once")
        return events

    @hookimpl
    def on_paid(self, event: Event) -> None:
        self._events.append(("on_paid", event))

    @hookimpl
    def on_duplicate(self, event: Event) -> None:
        self._events.append(("on_duplicate", event))

    @hookimpl
    def on_closed(self, event: Event) -> None:
        self._events.append(("on_closed", event))

    @hookimpl
    def on_refund(self, event: Event) -> None:
        self._events.append(("on_refund", event))

    @hookimpl
    def on_rejected(self, event: Event) -> None:
        self._events.append(("on_rejected", event))


class _Log(logging.Handler):
    """Keeps the kit's log lines: the story reads them, and shows them where it fails."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)

    def last(self, line: str) -> dict[str, Any]:
        """The fields of the newest line of a kind; empty where there is none."""
        said = (getattr(record, "wechatpay_kit", {}) for record in reversed(list(self._records)))
        return next((fields for fields in said if fields.get("line") == line), {})

    def ending(self) -> str:
        """The last lines, for a story that broke off."""
        return "".join(f"\n    log: {record.getMessage()}" for record in self._records[-3:])


@contextmanager
def captured_log() -> Iterator[_Log]:
    """What kit and sandbox log goes to the story alone, as long as it is told."""
    log = _Log()
    loggers = [logging.getLogger(name) for name in ("wechatpay_kit", "wechatpay_kit_sandbox")]
    before = [(logger, logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(log)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        yield log
    finally:
        for logger, level, propagate in before:
            logger.removeHandler(log)
            logger.setLevel(level)
            logger.propagate = propagate
