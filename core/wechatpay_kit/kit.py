"""One merchant's kit: what most users hold.

Wires client, store, plugins, settlement and receiver; records before it sends. Everything that
a call learns about an order goes through settlement, so that a query settles as a notification.
"""

from __future__ import annotations

import logging
import os
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, Self

import msgspec

from . import log
from .clocks import SandboxClock, wall_clock
from .errors import (
    ApiError,
    ConfigError,
    FrequencyLimitedError,
    OrderClosedError,
    OrderMismatchError,
    OrderPaidError,
    OutTradeNoUsedError,
    ParameterError,
    StoreError,
    SystemUnavailableError,
    UnknownOrderError,
)
from .merchant import Merchant, plugin_names
from .models import Refund, Transaction
from .plugins import Plugins, find_plugin
from .receiver import MAX_BODY, NotificationKeys, Receiver
from .records import OrderRecord, RefundRecord
from .refresher import KeyRefresher, Refresh
from .settlement import Outcome, Settlement, Terms
from .store import Store, open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import date
    from typing import Unpack

    from .client import Client, TradeBill
    from .clocks import Clock
    from .drafts import OrderOptions, RefundOptions
    from .records import OrderState, Unsettled

__all__ = ["Kit", "Order", "SettledRefund", "SettledTransaction"]

P = ParamSpec("P")

ORDER_LIFETIME = timedelta(minutes=30)
RETENTION = timedelta(days=400)  # refunds are possible for a year
_PURGE_MARGIN = timedelta(days=2)
PREPAY_LIFETIME = timedelta(hours=2)
_ENDED: dict[str, tuple[type[ApiError], str]] = {
    "paid": (OrderPaidError, "ORDERPAID"),
    "closed": (OrderClosedError, "ORDER_CLOSED"),
}
_STORE_EXAMPLE = "sqlite:////var/lib/shop/wechatpay.db"
_SANDBOX_STORE = "sqlite:///wechatpay-sandbox.db"


class SettledTransaction(Transaction, frozen=True, kw_only=True):
    """The gateway's transaction, and what became of it here."""

    settlement: Outcome


class SettledRefund(Refund, frozen=True, kw_only=True):
    """The gateway's refund, and what became of it here."""

    settlement: Outcome


class Order:
    """An order placed with the kit; ``record`` is what the store holds of it."""

    def __init__(self, kit: Kit, record: OrderRecord) -> None:
        self._kit = kit
        self.record = record

    @property
    def out_trade_no(self) -> str:
        return self.record.out_trade_no

    @property
    def prepay_id(self) -> str | None:
        return self.record.prepay_id

    @property
    def state(self) -> str:
        """Placing, open, refused, paid or closed, as of when this object was made."""
        return self.record.state

    def request_payment(self) -> dict[str, str]:
        """Freshly signed parameters for ``wx.requestPayment``.

        Signs with the appid that the order was placed with. A prepay_id over two hours old is no
        longer good: then the order is sent again, with the same bytes, for a new one. Raises
        :class:`OrderPaidError` or :class:`OrderClosedError` where the order has ended.
        """
        return self._kit._request_payment(self)  # noqa: SLF001 - one class in two parts

    def __repr__(self) -> str:
        return f"Order({self.out_trade_no!r}, {self.state!r})"


class Kit:
    """WeChat Pay for one merchant; safe for threads, and after a fork.

    ``merchant`` holds identity and secrets. ``plugins`` are objects with hooks. ``store`` is a
    :class:`~wechatpay_kit.store.Store` or an address like ``sqlite:////var/lib/shop/wechatpay.db``
    (default: the merchant's). ``order_lifetime`` is how long an order may be paid (30 min),
    ``settle_since`` when the shop adopted the kit: older facts fire nothing.
    ``accept_unknown_orders`` fires for orders nobody expected: **checking the amount is then your
    own duty**. ``clock`` is wall time for signatures, ``business_clock`` rules expiry and bills.
    ``connect_timeout`` and ``read_timeout`` are in seconds. Raises :class:`ConfigError`.
    """

    def __init__(
        self,
        merchant: Merchant,
        *,
        plugins: Sequence[object] = (),
        store: Store | str | None = None,
        order_lifetime: timedelta = ORDER_LIFETIME,
        settle_since: datetime | None = None,
        accept_unknown_orders: bool = False,
        retention: timedelta = RETENTION,
        max_body: int = MAX_BODY,
        clock: Clock = wall_clock,
        business_clock: Clock | None = None,
        connect_timeout: float = 3.0,
        read_timeout: float = 10.0,
    ) -> None:
        _check_options(order_lifetime, settle_since, retention, connect_timeout, read_timeout)
        self.merchant = merchant
        self.store = self._open_store(store)
        self._plugins = Plugins()
        self._client: Client | None = None
        self._lifetime = order_lifetime
        self._retention = retention
        self._connect_timeout, self._read_timeout = connect_timeout, read_timeout
        self._clock = clock
        self._business_clock = business_clock or (
            SandboxClock(merchant.sandbox_clock) if merchant.sandbox_clock else clock
        )
        for spec in merchant.plugins:
            self._plugins.load(spec, merchant)
        for plugin in plugins:
            self.register(plugin)
        self._refresher = (
            KeyRefresher(merchant.keys, self._fetch_certificates)
            if merchant.uses_certificates and not merchant.receive_only
            else None
        )
        self._settlement = Settlement(
            mchid=merchant.mchid,
            store=self.store,
            plugins=self._plugins,
            business_clock=self._business_clock,
            query=None if merchant.receive_only else self._query_within,
            since=settle_since,
            accept_unknown_orders=accept_unknown_orders,
        )
        self.receiver = Receiver(
            mchid=merchant.mchid,
            keys=NotificationKeys(merchant.keys, merchant.decryptor),
            settlement=self._settlement,
            plugins=self._plugins,
            clock=clock,
            refresher=self._refresher,
            max_body=max_body,
        )

    @classmethod
    def from_env(
        cls,
        prefix: str = "WECHATPAY_",
        *,
        environ: Mapping[str, str] | None = None,
        receive_only: bool = False,
        store: Store | str | None = None,
        **options: Any,
    ) -> Self:
        """From ``WECHATPAY_*`` (docs/configuration.md); another ``prefix`` for another merchant.

        ``options`` are those of :class:`Kit`.
        """
        problems: list[str] = []
        merchant = None
        try:
            merchant = Merchant.from_env(
                prefix, environ, receive_only=receive_only, needs_store=store is None
            )
        except ConfigError as error:
            problems += error.problems
        env = os.environ if environ is None else environ
        for spec in plugin_names(env.get(f"{prefix}PLUGINS")):
            problems += _problems_of(find_plugin, spec, name=f"{prefix}PLUGINS")
        address = env.get(f"{prefix}STORE")
        if store is None and address:
            is_sandbox = merchant is not None and not merchant.is_official
            try:
                store = open_store(address, may_be_relative=is_sandbox)
            except ConfigError as error:
                problems += [f"{prefix}STORE {problem}" for problem in error.problems]
        if problems or merchant is None:
            raise ConfigError(problems)
        return cls(merchant, store=store, **options)

    def register(self, plugin: object, *, name: str | None = None) -> str:
        """Add a plugin before the first delivery; return its name.

        Raises :class:`ConfigError` for what pluggy would only find out, or never: a class, an
        unknown hook or argument, a hook without ``@hookimpl``.
        """
        return self._plugins.register(plugin, name=name)

    @property
    def client(self) -> Client:
        """The calls without store or hooks; ``request`` reaches any API of WeChat Pay.

        Raises :class:`ConfigError` where the kit may only receive.
        """
        if self._client is None:
            from .client import Client  # noqa: PLC0415 - receiving does not pay for requests

            self.merchant.signer  # noqa: B018 - says so where there is none
            # No lock, which a fork could copy locked: of two that are made at once one is kept.
            self._client = Client(
                self.merchant,
                keys=self.merchant.keys,
                clock=self._clock,
                business_clock=self._business_clock,
                on_unknown_key=self._refreshed if self._refresher else None,
                connect_timeout=self._connect_timeout,
                read_timeout=self._read_timeout,
            )
        return self._client

    # Orders

    def create_order(
        self,
        *,
        out_trade_no: str,
        total: int,
        description: str,
        openid: str,
        replaces: str | None = None,
        **options: Unpack[OrderOptions],
    ) -> Order:
        """Place an order of ``total`` fen for the user ``openid``; repeat it freely.

        It is recorded before it is sent. The same number with the same parameters sends the same
        bytes again; with others it raises :class:`OrderMismatchError` without a call.
        ``replaces`` names an order to be closed first (:class:`OrderPaidError` if it turns out
        paid). Raises :class:`ParameterError`, :class:`ApiError`, :class:`TransportError`, and
        :class:`OutcomeUnknownError`, after which a repeat is safe.
        """
        self._plugins.refuse_running_loop()
        if replaces == out_trade_no:
            raise ParameterError("replaces", "must be another order's number", replaces)
        now = self._business_clock()
        draft = self.client.draft_order(
            out_trade_no=out_trade_no,
            total=total,
            description=description,
            openid=openid,
            default_time_expire=now + self._lifetime,
            **options,
        )
        held = self.store.order(self.merchant.mchid, out_trade_no)
        if replaces is not None:
            _refuse_other(held, out_trade_no, draft.fingerprint)
            self.close_order(replaces)
        record = OrderRecord(
            mchid=self.merchant.mchid,
            out_trade_no=out_trade_no,
            appid=draft.appid,
            total=draft.total,
            currency=draft.currency,
            state="placing",
            created_at=now,
            expires_at=draft.time_expire,
            notify_url=draft.notify_url,
            body=draft.body,
            serial=draft.serial,
            fingerprint=draft.fingerprint,
        )
        held = self.store.add_order(record)
        _refuse_other(held, out_trade_no, draft.fingerprint)
        return Order(self, self._place(held, is_first=held is record))

    def order(self, out_trade_no: str) -> Order:
        """The order that this store holds; :class:`UnknownOrderError` where it holds none."""
        record = self.store.order(self.merchant.mchid, out_trade_no)
        if record is None:
            raise _unknown(out_trade_no)
        return Order(self, record)

    def query_order(
        self, *, out_trade_no: str | None = None, transaction_id: str | None = None
    ) -> SettledTransaction:
        """Ask WeChat Pay for an order by either number, and settle what it says.

        ``.settlement`` is *fired*, *duplicate*, *busy*, *conflict*, *expired* or *open*. Raises
        :class:`OrderNotExistError` where WeChat Pay knows none, :class:`HookError` where a plugin
        raised, :class:`ConfigError` where no plugin listens (use ``kit.client`` to only look).
        """
        self._plugins.refuse_running_loop()
        self._settlement.require_listener()
        return self._query_and_settle(out_trade_no=out_trade_no, transaction_id=transaction_id)

    def close_order(self, out_trade_no: str, *, force: bool = False) -> Outcome:
        """Close an unpaid order at WeChat Pay and fire ``on_closed``.

        One that turns out paid is settled and raises :class:`OrderPaidError`. Closing a number
        that was never placed burns it, so :class:`UnknownOrderError` unless ``force``.
        """
        self._plugins.refuse_running_loop()
        self._settlement.require_listener()
        terms = Terms("close")
        if not force and self._settlement.known_order(out_trade_no, terms) is None:
            raise _unknown(out_trade_no)
        try:
            self.client.close_order(out_trade_no)
        except OrderPaidError:
            self._query_and_settle(out_trade_no=out_trade_no)
            raise
        except OrderClosedError:
            return self._query_and_settle(out_trade_no=out_trade_no).settlement
        return self._settlement.closed(out_trade_no, terms).outcome

    # Refunds

    def create_refund(
        self, *, out_refund_no: str, refund: int, total: int, **options: Unpack[RefundOptions]
    ) -> Refund:
        """Give back ``refund`` of ``total`` fen; repeat it freely with the same number.

        ``out_trade_no`` or ``transaction_id`` names the order. Accepted is not done: ``status``
        is normally PROCESSING, and ``on_refund`` fires when it is final. Raises as
        :meth:`create_order` does.
        """
        self._plugins.refuse_running_loop()
        draft = self.client.draft_refund(
            out_refund_no=out_refund_no, refund=refund, total=total, **options
        )
        record = RefundRecord(
            mchid=self.merchant.mchid,
            out_refund_no=out_refund_no,
            refund=refund,
            total=total,
            state="placing",
            created_at=self._business_clock(),
            out_trade_no=options.get("out_trade_no"),
            transaction_id=options.get("transaction_id"),
            body=draft.body,
            fingerprint=draft.fingerprint,
        )
        held = self.store.add_refund(record)
        _refuse_other(held, out_refund_no, draft.fingerprint)
        answer = self._send_refund(held, is_first=held is record)
        if self._plugins.listens("on_refund"):
            terms = Terms("query")
            settle = partial(self._settlement.refund, at=answer.create_time)
            self._note(out_refund_no, settle, answer, terms)
        return answer

    def query_refund(self, out_refund_no: str) -> SettledRefund:
        """Ask WeChat Pay for a refund, and settle what it says; see :meth:`query_order`."""
        self._plugins.refuse_running_loop()
        self._settlement.require_listener("on_refund")
        refund = self.client.query_refund(out_refund_no)
        settled = self._settlement.refund(refund, Terms("query"), at=refund.create_time)
        return SettledRefund(**msgspec.structs.asdict(refund), settlement=settled.outcome)

    # Bills, and the operator's view

    def trade_bill(
        self, day: date, *, bill_type: str = "ALL", compressed: bool = True
    ) -> TradeBill:
        """The trade bill of a Beijing day; nothing is fetched before it is read.

        ``bill_type`` is ALL, SUCCESS or REFUND.
        """
        return self.client.trade_bill(day, bill_type=bill_type, compressed=compressed)

    def unsettled(self) -> list[Unsettled]:
        """Verified facts that no plugin has dealt with: failed hooks and open conflicts."""
        return self.store.unsettled(self.merchant.mchid)

    def purge(self, before: datetime | None = None) -> int:
        """Forget what was done before (default: 400 days ago); return how many facts.

        What is forgotten never fires again: such facts are *expired* from then on. Unsettled and
        conflicting ones are kept.
        """
        now = self._business_clock()
        before = before or now - self._retention
        if not _is_aware(before) or before > now - _PURGE_MARGIN:
            raise ParameterError(
                "before",
                "must be an aware datetime at least two days ago: what is purged never fires "
                "again, and WeChat Pay tells of a fact for a day",
                before,
            )
        return self.store.purge(self.merchant.mchid, before)

    def close(self) -> None:
        """Close connections; they open again on the next use."""
        if self._client is not None:
            self._client.close()
        self.store.close()

    def __repr__(self) -> str:
        return f"Kit({self.merchant!r})"

    def _place(self, held: OrderRecord, *, is_first: bool = False) -> OrderRecord:
        # Only what was never sent, or was refused whenever it was, can be known to be nowhere.
        is_nowhere = is_first or held.state == "refused"
        if held.state == "refused":  # it may be taken this time, and the answer may be lost
            self._answered(held, "placing", None)
        try:
            reply = self.client.send_order(body=held.body, serial=held.serial)
        except OrderPaidError:
            if self._plugins.listens("on_paid"):
                self._query_and_settle(out_trade_no=held.out_trade_no)
            raise
        except ApiError as error:
            if is_nowhere and _is_definite(error):
                self._note(held.out_trade_no, self._answered, held, "refused", None)
            raise
        self._note(held.out_trade_no, self._answered, held, "open", reply.prepay_id)
        return msgspec.structs.replace(
            held, state="open", prepay_id=reply.prepay_id, prepay_at=self._business_clock()
        )

    def _send_refund(self, held: RefundRecord, *, is_first: bool) -> Refund:
        is_nowhere = is_first or held.state == "refused"
        if held.state == "refused":
            self.store.refund_answered(msgspec.structs.replace(held, state="placing"))
        try:
            answer = self.client.send_refund(body=held.body)
        except ApiError as error:
            if is_nowhere and _is_definite(error):
                refused = msgspec.structs.replace(held, state="refused")
                self._note(held.out_refund_no, self.store.refund_answered, refused)
            raise
        accepted = msgspec.structs.replace(
            held,
            state="accepted",
            refund_id=answer.refund_id,
            status=answer.status,
            out_trade_no=answer.out_trade_no,
            transaction_id=answer.transaction_id,
        )
        self._note(held.out_refund_no, self.store.refund_answered, accepted)
        return answer

    def _note(self, number: str, note: Callable[P, object], *args: P.args, **kw: P.kwargs) -> None:
        """Record what WeChat Pay has answered, which stands whether or not the store can.

        An error here would read as if nothing had been done. What is not noted stays *placing*,
        which a repeat, a query or a notification puts right.
        """
        try:
            note(*args, **kw)
        except StoreError as error:
            log.write(
                logging.WARNING,
                "unrecorded_answer",
                number=number,
                detail=str(error),
                advice="the call was carried out; a repeat, a query or a notification notes it",
            )

    def _answered(self, held: OrderRecord, state: OrderState, prepay_id: str | None) -> None:
        self.store.order_answered(
            held.mchid,
            held.out_trade_no,
            state=state,
            prepay_id=prepay_id,
            at=self._business_clock(),
        )

    def _request_payment(self, order: Order) -> dict[str, str]:
        record = order.record
        if record.state in _ENDED:
            kind, code = _ENDED[record.state]
            raise kind(400, code, f"{order.out_trade_no} is {record.state}; nothing was signed")
        now = self._business_clock()
        if (
            record.prepay_id is None
            or record.prepay_at is None
            or (now - record.prepay_at >= PREPAY_LIFETIME)
        ):
            self._plugins.refuse_running_loop()
            if not record.body:
                raise _unknown(order.out_trade_no)
            record = order.record = self._place(record)
        return self.client.request_payment(record.prepay_id or "", appid=record.appid)

    def _query_and_settle(
        self, *, out_trade_no: str | None = None, transaction_id: str | None = None
    ) -> SettledTransaction:
        transaction = self.client.query_order(
            out_trade_no=out_trade_no, transaction_id=transaction_id
        )
        settled = self._settlement.settle(transaction, Terms("query"))
        return SettledTransaction(**msgspec.structs.asdict(transaction), settlement=settled.outcome)

    def _query_within(self, out_trade_no: str, seconds: float) -> Transaction:
        return self.client.query_order(out_trade_no=out_trade_no, timeout=seconds)

    def _fetch_certificates(self, seconds: float) -> Any:
        return self.client.platform_certificates(timeout=seconds)

    def _refreshed(self) -> bool:
        return self._refresher is not None and self._refresher.refresh() is Refresh.DONE

    def _open_store(self, store: Store | str | None) -> Store:
        if store is not None and not isinstance(store, str):
            if isinstance(store, os.PathLike):
                raise ConfigError(
                    f"store must be a Store or an address like {_STORE_EXAMPLE}; for a path "
                    "say SqliteStore(path)"
                )
            return store
        address = store or self.merchant.store
        if address is None and self.merchant.is_official:
            raise ConfigError(
                f"no store: set WECHATPAY_STORE or Kit(store=…), for example {_STORE_EXAMPLE}"
            )
        try:
            return open_store(
                address or _SANDBOX_STORE, may_be_relative=not self.merchant.is_official
            )
        except ConfigError as error:
            raise ConfigError([f"STORE {problem}" for problem in error.problems]) from None


def _problems_of(check: Callable[[str], object], value: str, *, name: str) -> list[str]:
    try:
        check(value)
    except ConfigError as error:
        return [f"{name} {problem}" for problem in error.problems]
    return []


def _check_options(
    order_lifetime: object,
    settle_since: object,
    retention: object,
    connect_timeout: object,
    read_timeout: object,
) -> None:
    problems = []
    if not isinstance(order_lifetime, timedelta) or order_lifetime <= timedelta(0):
        problems.append("order_lifetime must be a positive timedelta, like timedelta(minutes=30)")
    if settle_since is not None and not _is_aware(settle_since):
        problems.append("settle_since must be timezone-aware, like datetime.now(UTC)")
    if not isinstance(retention, timedelta) or retention < _PURGE_MARGIN:
        problems.append("retention must be a timedelta of two days or more, like the 400 it is")
    for name, seconds in (("connect_timeout", connect_timeout), ("read_timeout", read_timeout)):
        if not isinstance(seconds, int | float) or not seconds > 0:
            problems.append(f"{name} must be a positive number of seconds, like 3.0")
    if problems:
        raise ConfigError(problems)


def _is_aware(moment: object) -> bool:
    return isinstance(moment, datetime) and moment.tzinfo is not None


def _is_definite(error: ApiError) -> bool:
    """Whether a refusal is proven to be WeChat Pay's and leaves nothing behind at the gateway."""
    unsure = (
        FrequencyLimitedError,
        OrderClosedError,
        OrderPaidError,
        OutTradeNoUsedError,
        SystemUnavailableError,
    )
    return error.verified and not isinstance(error, unsure)


def _refuse_other(held: OrderRecord | RefundRecord | None, number: str, fingerprint: str) -> None:
    if held is not None and held.fingerprint != fingerprint:
        raise OrderMismatchError(
            f"{number} was recorded before with other parameters; nothing was sent. "
            "Repeat it unchanged, or take a new number (replaces= closes the old order)"
        )


def _unknown(out_trade_no: str) -> UnknownOrderError:
    return UnknownOrderError(
        f"{out_trade_no} was never placed through this store; nothing was sent. "
        "Check the number and WECHATPAY_STORE"
    )
