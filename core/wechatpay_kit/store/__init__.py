"""The store's contract: what is remembered, and who may act on a fact.

Knows claims and records; knows nothing of hooks, HTTP or any database. Backends are modules of
this package and pass one suite of tests (tests/core/test_store.py).
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from wechatpay_kit.errors import ConfigError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from datetime import datetime, timedelta

    from wechatpay_kit.records import OrderRecord, OrderState, RefundRecord, Unsettled

__all__ = ["Claim", "ClaimOutcome", "Fact", "Store", "open_store"]


class ClaimOutcome(StrEnum):
    """What a claim found; one statement in the store decides, never read-then-write."""

    FRESH = "fresh"  # ours: run the hooks
    DONE = "done"  # the same fact was completed, or a later one of its subject
    BUSY = "busy"  # another owner is at it
    CONFLICT = "conflict"  # another fact stands under this key
    EXPIRED = "expired"  # older than the memory: it may have been done and forgotten


class Fact(Protocol):
    """What is claimed.

    ``key`` names what is settled and ``fingerprint`` the fact about it. Facts with one
    ``subject`` are never worked on at the same time. ``at`` is when it happened, by WeChat Pay's
    word where it gives one; a fact without a time is *expired* once anything was purged.
    ``reason`` is set for conflicts. ``record`` is written when the claim is completed; an open
    conflict about the same fact, under ``conflict_key``, is done with it.
    """

    @property
    def mchid(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def conflict_key(self) -> str: ...
    @property
    def out_trade_no(self) -> str | None: ...
    @property
    def at(self) -> datetime | None: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def record(self) -> OrderRecord | RefundRecord | None: ...


class Claim(Protocol):
    """The outcome of a claim, and for a fresh one the ownership.

    ``fence`` grows with each ownership of a key; ``attempt`` counts from 1; ``recorded`` is the
    fingerprint that stands under the key; ``completed`` names the plugins that need not run again;
    ``connection`` is the transaction that holds the claim, None where it is held by a lease.
    """

    @property
    def outcome(self) -> ClaimOutcome: ...
    @property
    def fence(self) -> int | None: ...
    @property
    def attempt(self) -> int: ...
    @property
    def recorded(self) -> str | None: ...
    @property
    def completed(self) -> frozenset[str]: ...
    @property
    def connection(self) -> Any: ...

    def complete_plugin(self, name: str) -> None:
        """Remember that this plugin has run; :class:`LeaseLostError` where it is too late."""


class Store(Protocol):
    """Claims, orders and refunds, safe for threads and processes.

    Every method raises :class:`StoreError` where the database does not answer, and
    :class:`StoreBusyError` where a lock was not free in time.
    """

    def claim(
        self,
        fact: Fact,
        *,
        now: datetime,
        since: datetime | None = None,
        hold: timedelta | None = None,
        wait: timedelta | None = None,
    ) -> AbstractContextManager[Claim]:
        """Claim ``fact``: leaving cleanly records it done, an exception releases it.

        ``now`` is the business clock; facts from before ``since`` or the purge horizon are
        *expired*. ``hold`` bounds the ownership and ``wait`` the wait for locks. Completing
        raises :class:`LeaseLostError` where a successor may have taken over.
        """

    def is_claimed(self, key: str) -> bool:
        """Whether ``key`` is done or being worked on."""

    def add_order(self, record: OrderRecord) -> OrderRecord:
        """Keep ``record`` and return that very object; where the number is taken, what is held."""

    def order(self, mchid: str, out_trade_no: str) -> OrderRecord | None:
        """The order, if this store knows it."""

    def order_answered(
        self,
        mchid: str,
        out_trade_no: str,
        *,
        state: OrderState,
        prepay_id: str | None = None,
        at: datetime,
    ) -> None:
        """Record what the gateway answered to placing; never undoes a settled state."""

    def add_refund(self, record: RefundRecord) -> RefundRecord:
        """Keep ``record`` and return that very object; where the number is taken, what is held."""

    def refund(self, mchid: str, out_refund_no: str) -> RefundRecord | None:
        """The refund, if this store knows it."""

    def refunds(self, mchid: str, out_trade_no: str) -> list[RefundRecord]:
        """The refunds of an order."""

    def refund_answered(self, record: RefundRecord) -> None:
        """Record what the gateway answered to a refund; never undoes a settled status."""

    def unsettled(self, mchid: str) -> list[Unsettled]:
        """Facts that were claimed and not completed, the oldest first; not those in work."""

    def purge(self, mchid: str, before: datetime) -> int:
        """Forget a merchant's facts done before; return how many.

        They are *expired* from then on, never fresh. All that concerns one order goes together,
        or stays as long as something about it is unsettled or was a conflict.
        """

    def close(self) -> None:
        """Close this process's connections; the next use opens them again."""


def open_store(url: str, *, may_be_relative: bool = False) -> Store:
    """The store that a ``STORE`` setting names.

    ``sqlite:////var/lib/shop/wechatpay.db`` or ``dynamodb://table`` (region and credentials are
    the environment's). Raises :class:`ConfigError` for an address it cannot serve. A relative
    SQLite path is refused unless allowed: two working directories would be two memories.
    """
    scheme = urlsplit(url).scheme
    if scheme == "sqlite":
        return _open_sqlite(url, may_be_relative=may_be_relative)
    if scheme == "dynamodb":
        return _open_dynamodb(url)
    raise _unfit(url)


def _open_sqlite(url: str, *, may_be_relative: bool) -> Store:
    parts = urlsplit(url)
    path = parts.path.removeprefix("/")
    if parts.netloc or parts.query or not path:
        raise _unfit(url)
    if not path.startswith("/") and not may_be_relative:
        raise ConfigError(
            f"must be an absolute path, with four slashes: sqlite:////…/{path}; "
            "two working directories would be two memories"
        )
    from .sqlite import SqliteStore  # noqa: PLC0415 - sqlite3 is paid by who uses it

    return SqliteStore(path)


def _open_dynamodb(url: str) -> Store:
    parts = urlsplit(url)
    if not parts.netloc or parts.path.strip("/") or parts.query or parts.fragment:
        raise _unfit(url)
    try:
        from .dynamodb import DynamoStore  # noqa: PLC0415 - boto3 is paid by who uses it
    except ImportError as error:
        if error.name != "boto3":
            raise
        raise ConfigError(f"{url}: {error}") from None

    return DynamoStore(parts.netloc)


def _unfit(url: str) -> ConfigError:
    return ConfigError(
        "must look like sqlite:////var/lib/shop/wechatpay.db or dynamodb://table; got "
        f"scheme {urlsplit(url).scheme or 'none'!r}"
    )
