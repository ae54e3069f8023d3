"""The shop that the conformance suite mounts: its kit can be made in this process or another.

Knows a folder, and what the shop's plugins do; knows nothing of what is delivered. What the number
of an order begins with says what becomes of it: ``RAISE`` (its hook raises, the first time),
``HANDLED`` (its conflict is handled), ``DOWN`` (the store cannot be reached).
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wechatpay_kit import Kit, StoreError, hookimpl
from wechatpay_kit.store import open_store

if TYPE_CHECKING:
    from wechatpay_kit import (
        ConflictEvent,
        DuplicateEvent,
        Event,
        NotificationEvent,
        PaidEvent,
        RefundEvent,
        RejectedEvent,
    )
    from wechatpay_kit.store import Store

__all__ = ["MAX_BODY", "Shop", "shop_of"]

MAX_BODY = 65_536  # bytes
_FILE, _TOLD = "shop.json", "told.jsonl"


def shop_of(folder: str | Path) -> Shop:
    """The shop of a folder that the suite has made: ``shop_of(os.environ["…"]).kit()``.

    For adapters whose server is a process of its own: hand ``shop.folder`` to it.
    """
    settings = json.loads(Path(folder, _FILE).read_text(encoding="utf-8"))
    return Shop(Path(folder), **settings)


class Shop:
    """What to mount: :meth:`kit`, in an application with ``debug`` on or off.

    ``debug`` stands for whatever your framework has: DEBUG, TESTING, development mode.
    """

    def __init__(
        self,
        folder: Path,
        *,
        environ: dict[str, str],
        now: float,
        receive_only: bool,
        debug: bool,
    ) -> None:
        self.folder = folder
        self.debug = debug
        self.receive_only = receive_only
        self._environ = environ
        self._now = now

    def kit(self) -> Kit:
        """A kit with the suite's own plugins, store and clock; mount it at /wechatpay/notify."""
        trace = _Trace(self.folder / _TOLD)
        return Kit.from_env(
            environ=self._environ,
            receive_only=self.receive_only,
            plugins=[_Plain(trace), _Awaited(trace)],
            store=_Failing(self.store()),
            clock=self.clock,
            max_body=MAX_BODY,
        )

    def clock(self) -> datetime:
        """The time at this shop, which stands still."""
        return datetime.fromtimestamp(self._now, UTC)

    def store(self) -> Store:
        """The memory that its kits share, opened once more."""
        return open_store(f"sqlite:///{self.folder.resolve() / 'wechatpay.db'}")

    def save(self) -> None:
        """Write what :func:`shop_of` reads."""
        settings = {
            "environ": self._environ,
            "now": self._now,
            "receive_only": self.receive_only,
            "debug": self.debug,
        }
        Path(self.folder, _FILE).write_text(json.dumps(settings), encoding="utf-8")

    def told(self) -> list[dict[str, str]]:
        """What hooks were told, in any process, the oldest first."""
        path = self.folder / _TOLD
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]


class _Trace:
    """Leaves a line for each event in a file that all processes of a shop share."""

    def __init__(self, told: Path) -> None:
        self._told = told

    def line(self, hook: str, event: Event, **more: str) -> None:
        text = json.dumps({"hook": hook, "key": event.key, "mchid": event.mchid} | more)
        with self._told.open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")  # one short write in append mode: processes do not mix


class _Plain:
    """Every hook that a delivery may fire."""

    def __init__(self, trace: _Trace) -> None:
        self._trace = trace

    @hookimpl
    def on_paid(self, event: PaidEvent) -> None:
        if event.out_trade_no.startswith("RAISE") and event.attempt == 1:
            raise RuntimeError("the warehouse is closed")
        self._trace.line("on_paid", event)

    @hookimpl
    def on_duplicate(self, event: DuplicateEvent) -> None:
        self._trace.line("on_duplicate", event)

    @hookimpl
    def on_refund(self, event: RefundEvent) -> None:
        self._trace.line("on_refund", event)

    @hookimpl
    def on_conflict(self, event: ConflictEvent) -> bool:
        self._trace.line("on_conflict", event, reason=event.reason)
        return (event.out_trade_no or "").startswith("HANDLED")

    @hookimpl
    def on_notification(self, event: NotificationEvent) -> None:
        self._trace.line("on_notification", event)

    @hookimpl
    def on_rejected(self, event: RejectedEvent) -> None:
        self._trace.line("on_rejected", event, reason=event.reason)


class _Awaited:
    """A hook that must be awaited, beside the plain one."""

    def __init__(self, trace: _Trace) -> None:
        self._trace = trace

    @hookimpl
    async def on_paid(self, event: PaidEvent) -> None:
        self._trace.line("awaited on_paid", event)


class _Failing:
    """A store that cannot be reached for some orders; shared, also where SQLite would not be."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def claim(self, fact: Any, **terms: Any) -> Any:
        if fact.out_trade_no is not None and fact.out_trade_no.startswith("DOWN"):
            raise StoreError("the store is down")
        return self._store.claim(fact, **terms)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)
