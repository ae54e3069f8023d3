"""A verified fact in, an outcome out: check, claim, fire.

The one way in for every fact, whether a notification, a query or a close brought it; the only
caller of ``Store.claim`` and of the hooks that settle. Knows orders and hooks; knows nothing of
signatures or HTTP.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from . import log
from .errors import ConfigError, HookError, OrderNotExistError, StoreError
from .events import (
    ClosedEvent,
    ConflictEvent,
    DuplicateEvent,
    NotificationEvent,
    PaidEvent,
    RefundEvent,
)
from .facts import (
    REFUND_STATUSES,
    closed_fact,
    conflict_fact,
    expected_record,
    misplaced_payment,
    misplaced_refund,
    notification_fact,
    paid_conflict,
    paid_fact,
    refund_fact,
)
from .records import ExpectedOrder
from .store import ClaimOutcome

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from .events import ConflictReason, Event
    from .facts import Fact
    from .models import Refund, Transaction
    from .plugins import AsyncRunner, Plugins
    from .records import OrderRecord, Source
    from .store import Claim, Store

__all__ = ["Outcome", "Settled", "Settlement", "Terms"]


class Outcome(StrEnum):
    """What became of a fact."""

    FIRED = "fired"  # the hooks ran, and that is recorded
    DUPLICATE = "duplicate"  # they had run before
    BUSY = "busy"  # another delivery or call is at it
    CONFLICT = "conflict"  # it has no place; on_conflict was told
    EXPIRED = "expired"  # older than the memory; nothing fired
    OPEN = "open"  # nothing to settle yet


class Settled(NamedTuple):
    """An outcome; ``handled`` is whether a conflict was dealt with, ``fence`` the ownership's."""

    outcome: Outcome
    handled: bool = False
    reason: ConflictReason | None = None
    fence: int | None = None

    @property
    def is_final(self) -> bool:
        """Whether it need not be told again."""
        if self.outcome is Outcome.CONFLICT:
            return self.handled
        return self.outcome is not Outcome.BUSY


class Terms(NamedTuple):
    """On what terms a fact is settled.

    ``hold`` and ``wait`` are asked for what is left, each time a claim is taken: they bound it
    and the waits for locks. ``run_async`` is the caller's way to run a coroutine.
    """

    source: Source
    hold: Callable[[], timedelta | None] = lambda: None
    wait: Callable[[], timedelta | None] = lambda: None
    run_async: AsyncRunner | None = None


class Settlement:
    """Settles facts for one merchant.

    ``query`` asks the gateway for an order (its second argument: the seconds it may take) where a
    refund arrives before its payment; None where this process cannot sign. ``since`` is when the
    shop adopted the kit: older facts are *expired*.
    """

    def __init__(
        self,
        *,
        mchid: str,
        store: Store,
        plugins: Plugins,
        business_clock: Callable[[], datetime],
        query: Callable[[str, float], Transaction] | None = None,
        since: datetime | None = None,
        accept_unknown_orders: bool = False,
    ) -> None:
        self._mchid = mchid
        self._store = store
        self._plugins = plugins
        self._clock = business_clock
        self._query = query
        self._since = since
        self._accept_unknown = accept_unknown_orders

    def require_listener(self, hook: str = "on_paid") -> None:
        """Raise :class:`ConfigError` where nobody would hear of money."""
        if not self._plugins.listens(hook):
            raise ConfigError(
                f"no plugin implements {hook}, so nobody would hear of it; "
                f"register one: Kit(plugins=[…]) with @hookimpl def {hook}(self, event)"
            )

    def settle(self, transaction: Transaction, terms: Terms) -> Settled:
        """Settle what a transaction says: paid, closed, or nothing yet."""
        self._plugins.freeze()
        if transaction.trade_state in ("SUCCESS", "REFUND"):
            return self.paid(transaction, terms)
        if transaction.trade_state == "CLOSED":
            return self.closed(transaction.out_trade_no, terms, transaction=transaction)
        return Settled(Outcome.OPEN)

    def paid(
        self, transaction: Transaction, terms: Terms, *, refund_follows: bool = False
    ) -> Settled:
        """Fire ``on_paid`` once an order.

        ``refund_follows`` says that the caller will tell of the refund that the transaction
        shows; else an order first seen when it was refunded already is a conflict, for a shop
        that is told "paid" would ship.
        """
        self._plugins.freeze()
        self.require_listener()
        number = transaction.out_trade_no
        order = self.known_order(number, terms)
        fact = paid_fact(self._mchid, transaction, order, terms.source, self._clock())
        told = {"out_trade_no": number, "transaction": transaction, "order": order}
        reason = misplaced_payment(order, fact)
        if reason == "unknown_order" and self._accept_unknown:
            reason = None
        if reason is None and transaction.trade_state == "REFUND" and not refund_follows:
            reason = self._refunded_unseen(fact)
        if reason:
            return self._conflict(fact, reason, terms, told)
        return self._once(fact, terms, _PAID, told, paid_conflict)

    def closed(
        self, out_trade_no: str, terms: Terms, *, transaction: Transaction | None = None
    ) -> Settled:
        """Fire ``on_closed`` once an order: the gateway closed it, or says that it is closed."""
        self._plugins.freeze()
        order = self.known_order(out_trade_no, terms)
        now = self._clock()
        # Of an order that nobody here knows it cannot be told whether its closing was forgotten.
        at = now if order is not None or self._accept_unknown else None
        fact = closed_fact(self._mchid, out_trade_no, order, terms.source, now, at)
        told = {"out_trade_no": out_trade_no, "transaction": transaction, "order": order}
        return self._once(fact, terms, _CLOSED, told, lambda _fact, _held: "closed_after_paid")

    def refund(self, refund: Refund, terms: Terms, *, at: datetime | None = None) -> Settled:
        """Fire ``on_refund`` once a status; ``at`` stands in for a missing ``success_time``."""
        self._plugins.freeze()
        if refund.status not in REFUND_STATUSES:
            return Settled(Outcome.OPEN)
        self.require_listener("on_refund")
        known = self._store.refund(self._mchid, refund.out_refund_no)
        order = self.known_order(refund.out_trade_no, terms)
        fact = refund_fact(self._mchid, refund, known, terms.source, self._clock(), at)
        told = {"out_trade_no": refund.out_trade_no, "refund": refund, "order": order}
        reason = misplaced_refund(order, known, refund)
        if reason == "unknown_order" and self._accept_unknown:
            reason = None
        if reason is None and order is not None and order.state != "paid":
            first = self._settle_payment_first(order, terms)
            if first is None:
                reason = "refunded_before_paid"
            elif not first.is_final:
                return first
            told["order"] = self._store.order(self._mchid, refund.out_trade_no) or order
        if reason:
            return self._conflict(fact, reason, terms, told)
        return self._once(fact, terms, _REFUND, told, lambda _fact, _held: "mismatch")

    def notification(self, terms: Terms, told: dict[str, Any]) -> Settled:
        """Hand a notification of another kind to ``on_notification``; ``told`` is the event's."""
        self._plugins.freeze()
        fact = notification_fact(self._mchid, told["id"], self._clock())
        if not self._plugins.listens("on_notification"):
            log.write(
                logging.WARNING,
                "unheard_notification",
                event_type=told["event_type"],
                notification_id=told["id"],
                advice="register a plugin with on_notification to receive it",
            )
        return self._once(fact, terms, _NOTIFICATION, told, lambda _fact, _held: "mismatch")

    # Claim and fire

    def _once(
        self,
        fact: Fact,
        terms: Terms,
        kind: _Kind,
        told: dict[str, Any],
        conflict: Callable[[Fact, str], ConflictReason],
    ) -> Settled:
        with self._claim(fact, terms) as claim:
            if claim.outcome is ClaimOutcome.FRESH:
                event = kind.event(**self._base(fact, claim, terms), **kind.also(told))
                self._call(kind.hook, event, terms, claim)
                unheard = self._plugins.listeners(kind.hook) - claim.completed
                if unheard:  # a wrapper swallowed what they raised: money is not done by silence
                    raise HookError(
                        f"{kind.hook} did not complete in {', '.join(sorted(unheard))}, and a hook "
                        f"wrapper hid why; {fact.key} will be tried again",
                        transaction=told.get("transaction") or told.get("refund"),
                    )
        if claim.outcome is ClaimOutcome.CONFLICT:
            held = claim.recorded or ""
            return self._conflict(fact, conflict(fact, held), terms, told, recorded=held)
        if claim.outcome is ClaimOutcome.DONE:
            self._tell_duplicate(fact, claim, terms, kind.name, told)
        return Settled(_OUTCOMES[claim.outcome], fence=claim.fence)

    def _conflict(
        self,
        fact: Fact,
        reason: ConflictReason,
        terms: Terms,
        told: dict[str, Any],
        recorded: str | None = None,
    ) -> Settled:
        """Tell ``on_conflict`` until one implementation returns True; then it is recorded."""
        fact = conflict_fact(fact, reason)
        handled = True
        try:
            with self._claim(fact, terms) as claim:
                if claim.outcome is ClaimOutcome.FRESH:
                    base = self._base(fact, claim, terms)
                    event = ConflictEvent(**base, **told, reason=reason, recorded=recorded)
                    if self._call("on_conflict", event, terms) is not True:
                        raise _UnhandledError("no on_conflict plugin returned True")  # noqa: TRY301 - leaves the claim released
        except _UnhandledError:
            handled = False
        if claim.outcome in (ClaimOutcome.BUSY, ClaimOutcome.EXPIRED):
            return Settled(_OUTCOMES[claim.outcome], reason=reason, fence=claim.fence)
        if claim.outcome is ClaimOutcome.DONE:
            self._tell_duplicate(fact, claim, terms, "conflict", told)
        log.write(
            logging.WARNING if handled else logging.ERROR,
            "conflict",
            reason=reason,
            key=fact.key,
            out_trade_no=fact.out_trade_no,
            handled=handled,
        )
        return Settled(Outcome.CONFLICT, handled=handled, reason=reason, fence=claim.fence)

    def _claim(self, fact: Fact, terms: Terms) -> Any:
        return self._store.claim(
            fact, now=self._clock(), since=self._since, hold=terms.hold(), wait=terms.wait()
        )

    def _call(self, hook: str, event: Event, terms: Terms, claim: Claim | None = None) -> Any:
        """Fire; with a ``claim``, on the plugins that it does not say have completed."""
        unrecorded: list[StoreError] = []

        def completed(name: str) -> None:
            try:
                if claim:
                    claim.complete_plugin(name)
            except StoreError as error:
                unrecorded.append(error)
                raise

        try:
            return self._plugins.fire(
                hook,
                skip=claim.completed if claim else (),
                completed=completed,
                run_async=terms.run_async,
                event=event,
            )
        except Exception as error:
            if error in unrecorded:  # the store's fault, not the plugin's
                raise
            raise HookError(
                f"{hook} raised {type(error).__name__} for {event.key}; it will be tried again",
                transaction=getattr(event, "transaction", None) or getattr(event, "refund", None),
            ) from error

    def _tell_duplicate(
        self, fact: Fact, claim: Claim, terms: Terms, name: str, told: dict[str, Any]
    ) -> None:
        kept = {field: told[field] for field in _DUPLICATE_FIELDS if field in told}
        event = DuplicateEvent(**self._base(fact, claim, terms), **kept, fact=name)  # type: ignore[arg-type]  # a _Kind's name
        self._plugins.tell("on_duplicate", event, run_async=terms.run_async)

    def _base(self, fact: Fact, claim: Claim, terms: Terms) -> dict[str, Any]:
        return {
            "mchid": self._mchid,
            "key": fact.key,
            "source": terms.source,
            "attempt": claim.attempt,
            "_connection": claim.connection,
        }

    # What we know

    def known_order(self, out_trade_no: str, terms: Terms) -> OrderRecord | None:
        """The order by the store's word, else by the shop's."""
        order = self._store.order(self._mchid, out_trade_no)
        if order is not None:
            return order
        try:
            expected = self._plugins.fire(
                "expected_order", out_trade_no=out_trade_no, run_async=terms.run_async
            )
        except Exception as error:
            raise HookError(f"expected_order raised {type(error).__name__}") from error
        if expected is None:
            return None
        if not isinstance(expected, ExpectedOrder):
            raise HookError(
                f"expected_order must return ExpectedOrder or None; got {type(expected).__name__}"
            )
        return expected_record(self._mchid, out_trade_no, expected, self._clock())

    def _refunded_unseen(self, fact: Fact) -> ConflictReason | None:
        if self._store.is_claimed(fact.key):
            return None
        placed = self._store.refunds(self._mchid, fact.out_trade_no or "")
        seen = any(refund.state != "refused" for refund in placed)
        return None if seen else "refunded_before_paid"

    def _settle_payment_first(self, order: OrderRecord, terms: Terms) -> Settled | None:
        """Settle the payment of an order whose refund came first; None if it is not paid."""
        if self._query is None:
            return None
        patience = min(terms.wait() or _QUERY_PATIENCE, _QUERY_PATIENCE)
        try:
            transaction = self._query(order.out_trade_no, patience.total_seconds())
        except OrderNotExistError:
            return None
        if transaction.trade_state not in ("SUCCESS", "REFUND"):
            return None
        return self.paid(transaction, terms._replace(source="query"), refund_follows=True)


class _Kind(NamedTuple):
    name: str
    hook: str
    event: type[Event]
    also: Callable[[dict[str, Any]], dict[str, Any]] = lambda told: told


_PAID = _Kind("paid", "on_paid", PaidEvent)
_CLOSED = _Kind("closed", "on_closed", ClosedEvent)
_REFUND = _Kind(
    "refund",
    "on_refund",
    RefundEvent,
    lambda told: told | {"out_refund_no": told["refund"].out_refund_no},
)
_NOTIFICATION = _Kind("notification", "on_notification", NotificationEvent)

_DUPLICATE_FIELDS = ("out_trade_no", "order", "transaction", "refund")
_QUERY_PATIENCE = timedelta(seconds=2)
_OUTCOMES = {
    ClaimOutcome.FRESH: Outcome.FIRED,
    ClaimOutcome.DONE: Outcome.DUPLICATE,
    ClaimOutcome.BUSY: Outcome.BUSY,
    ClaimOutcome.CONFLICT: Outcome.CONFLICT,
    ClaimOutcome.EXPIRED: Outcome.EXPIRED,
}


class _UnhandledError(Exception):
    """Leaves a conflict's claim so that the next delivery tells it again."""
