"""Who plays the story: a sandbox, a shop in Flask on a real socket, a plugin that listens.

Knows sockets, folders and logs; knows nothing of what happens. The one module of the sandbox that
imports an adapter, and only when the story is told.
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import TYPE_CHECKING, Any

import requests

from wechatpay_kit import Kit, WeChatPayError, hookimpl
from wechatpay_kit_sandbox.server import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import ExitStack

    from flask import Flask

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

TOTAL = 8800  # fen
OPENID = "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"


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

    def __init__(self, sandbox: Sandbox, kit: Kit, shop_url: str, folder: Path, log: _Log) -> None:
        self.sandbox, self.kit, self.shop_url, self.folder = sandbox, kit, shop_url, folder
        self.log = log
        self.told = _Told()
        self.http = requests.Session()
        self.http.trust_env = False  # a proxy from the environment has no way to loopback
        numbers = f"DEMO{sandbox.now():%Y%m%d%H%M%S}"
        self.first, self.second = f"{numbers}A", f"{numbers}B"

    def place(self, number: str) -> dict[str, Any]:
        """What the mini-program does: ask the shop for an order."""
        answer = self.http.post(f"{self.shop_url}/orders", json={"number": number}, timeout=30)
        placed: dict[str, Any] = answer.json()
        check(answer.ok, f"the shop answered {answer.status_code}: {placed.get('error')}")
        return placed


def set_stage(stack: ExitStack, log: _Log, notify_url: str | None) -> Stage:
    """Start sandbox and shop; ``stack`` stops them."""
    from wechatpay_kit_flask import notify_blueprint  # noqa: PLC0415 - names its missing extra

    app = _shop()
    shop_url = stack.enter_context(_served(app))
    sandbox = stack.enter_context(Sandbox(notify_url=notify_url or f"{shop_url}/wechatpay/notify"))
    leave_midnight_behind(sandbox)
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="wechatpay-kit-demo-")))
    kit = Kit.from_env(environ=sandbox.environment(), store=f"sqlite:///{folder / 'shop.db'}")
    stack.callback(kit.close)
    stage = Stage(sandbox, kit, shop_url, folder, log)
    stack.callback(stage.http.close)
    kit.register(stage.told)
    app.extensions["kit"] = kit
    app.register_blueprint(notify_blueprint(kit), url_prefix="/wechatpay")
    return stage


def _shop() -> Flask:
    """A shop's web app, but for the address of its notifications: a way to order."""
    from flask import Flask, current_app, request  # noqa: PLC0415 - the sandbox itself needs none

    app = Flask("demo_shop")

    @app.post("/orders")
    def place() -> dict[str, object]:
        order = current_app.extensions["kit"].create_order(
            out_trade_no=request.get_json()["number"],
            total=TOTAL,
            description="Plush QQ",
            openid=OPENID,
        )
        return {"out_trade_no": order.out_trade_no, "payment": order.request_payment()}

    @app.errorhandler(WeChatPayError)
    def refused(error: WeChatPayError) -> tuple[dict[str, str], int]:
        return {"error": str(error)}, 502

    return app


@contextmanager
def _served(app: Flask) -> Iterator[str]:
    """The app behind a real socket, without a line of log for each request; its address."""
    from werkzeug.serving import WSGIRequestHandler, make_server  # noqa: PLC0415 - as above

    class Quiet(WSGIRequestHandler):
        def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - its name
            pass

    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = Thread(target=server.serve_forever, args=(0.02,), name="demo-shop")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


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
