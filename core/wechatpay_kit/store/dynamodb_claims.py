"""Claims in a DynamoDB table: how one is read, judged and taken.

Knows claims, leases and fences; knows nothing of what is done with a claim once it is owned.
A claim is an item under its key; its subject has a lease with the fence, which stands in the item
under the subject's name. Where key and subject are the same, as an order's are, that is one item.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, NamedTuple

from wechatpay_kit.errors import StoreBusyError
from wechatpay_kit.records import REFUND_RANK, RefundRecord

from . import ClaimOutcome
from .dynamodb_records import as_seconds, find_record, link_key, record_key, write_settled
from .dynamodb_writes import Write

if TYPE_CHECKING:
    from collections.abc import Callable

    from . import Fact
    from .dynamodb_table import DynamoTable
    from .dynamodb_writes import Change, Item, Key

__all__ = [
    "DynamoClaim",
    "DynamoClaims",
    "Terms",
    "claim_key",
    "done_listing",
    "memory_key",
    "write_done",
]


class Terms(NamedTuple):
    """What a claim was asked for: times in Unix seconds, ``now`` the business clock's."""

    now: float
    since: float | None
    longest: float
    patience: float
    began: float


class DynamoClaim:
    """``owner`` tells this ownership from every other, where a write's outcome is unknown."""

    def __init__(
        self, fact: Fact, terms: Terms, complete_plugin: Callable[[DynamoClaim, str], None]
    ) -> None:
        self.terms = terms
        self._complete_plugin = complete_plugin
        self.key, self.mchid = fact.key, fact.mchid
        self.at, self.subject_at = claim_key(fact.key), claim_key(fact.subject)
        self.owner = uuid.uuid4().hex
        self.keep_until = terms.began + terms.longest
        self.outcome = ClaimOutcome.BUSY
        self.fence: int | None = None
        self.attempt = 1
        self.recorded: str | None = None
        self.completed: frozenset[str] = frozenset()
        self.connection = None

    def found(self, outcome: ClaimOutcome, row: Item | None) -> DynamoClaim:
        self.outcome = outcome
        if row is not None:
            self.fence, self.attempt = row["fence"], row["attempts"]
            self.recorded, self.completed = row["fingerprint"], frozenset(row["completed"])
        return self

    def complete_plugin(self, name: str) -> None:
        self._complete_plugin(self, name)


class DynamoClaims:
    """The claims of one table; ``lease`` and ``skew`` in seconds, ``now`` gives Unix seconds."""

    def __init__(
        self, table: DynamoTable, lease: float, skew: float, now: Callable[[], float]
    ) -> None:
        self._table = table
        self._lease = lease
        self._skew = skew
        self._now = now

    def take(self, claim: DynamoClaim, fact: Fact) -> DynamoClaim:
        """Say what ``claim`` is, and make it ours where it is fresh."""
        terms = claim.terms
        until = self._table.until(terms.patience)
        while True:
            row, lease = self._read(claim, until)
            if row and row["state"] == "done" and row["fingerprint"] == fact.fingerprint:
                self._repair(fact, until)
                return claim.found(ClaimOutcome.DONE, row)
            if terms.longest <= 0 or terms.patience <= 0:
                raise StoreBusyError("no time is left to hold a claim; come again")
            if lease and lease.get("owner") == claim.owner:  # it was written, and no one told us
                return claim.found(ClaimOutcome.FRESH, row)
            outcome = self._outcome(fact, row, lease, terms.since, until)
            if outcome is not ClaimOutcome.FRESH:
                if outcome is ClaimOutcome.DONE and row is not None:
                    self._overtake(claim, row, until)
                return claim.found(outcome, row)
            if self._table.tries(self._taking(claim, fact, row, lease), until):
                return claim.found(ClaimOutcome.FRESH, _taken(fact, row, lease))
            if time.monotonic() >= until:
                raise StoreBusyError(f"{fact.key} is being claimed by others; come again")

    def _read(self, claim: DynamoClaim, until: float) -> tuple[Item | None, Item | None]:
        """The claim, if there is one, and its subject's lease; mostly they are one item."""
        lease = self._table.get(claim.subject_at, until)
        if claim.at != claim.subject_at:
            return self.row(claim.at, until), lease
        return (lease if lease and "fingerprint" in lease else None), lease

    def _outcome(
        self,
        fact: Fact,
        row: Item | None,
        lease: Item | None,
        since: float | None,
        until: float,
    ) -> ClaimOutcome:
        if row is None:
            if self._is_expired(fact, since, until):
                return ClaimOutcome.EXPIRED
        elif self.is_held(row, lease):
            return ClaimOutcome.BUSY
        elif row["fingerprint"] != fact.fingerprint:
            return ClaimOutcome.CONFLICT
        # After the lease: its fence says that no other status has been settled since.
        if self._is_superseded(fact, until):
            return ClaimOutcome.DONE
        return ClaimOutcome.BUSY if self._runs(lease) else ClaimOutcome.FRESH

    def _taking(
        self, claim: DynamoClaim, fact: Fact, row: Item | None, lease: Item | None
    ) -> Write:
        """To own the claim, if it and its subject's lease still are what was read."""
        write = Write()
        change = write.on(claim.at)
        if row is None:
            change.require("fingerprint", "absent").set(
                key=fact.key,
                mchid=fact.mchid,
                subject=fact.subject,
                fingerprint=fact.fingerprint,
                out_trade_no=fact.out_trade_no,
                reason=fact.reason,
                fact_at=as_seconds(fact.at),
                first_seen=claim.terms.now,
                completed=[],
                listed=f"open/{fact.mchid}",
                listed_at=claim.terms.now,
            )
            if fact.out_trade_no is not None:
                linked = link_key(fact.mchid, fact.out_trade_no, f"claim/{fact.key}")
                write.on(linked).set(links="claim")
        else:
            for name in ("state", "attempts", "completed"):
                change.require(name, "=", row[name])
        taken = _taken(fact, row, lease)
        change.set(state="held", attempts=taken["attempts"], fence=taken["fence"])
        moment = self._now()
        change = write.on(claim.subject_at)
        if lease and "fence" in lease:
            change.require("fence", "=", lease["fence"])
        else:
            change.require("fence", "absent")
        change.require("lease_until", "absent or <=", moment - self._skew).set(
            fence=taken["fence"],
            holder=fact.key,
            owner=claim.owner,
            lease_until=min(moment + self._lease, claim.keep_until),
        )
        return write

    def _overtake(self, claim: DynamoClaim, row: Item, until: float) -> None:
        """A later status was dealt with: this one is not due again, and no operator need look."""
        write = Write()
        change = write.on(claim.at)
        for name in ("state", "attempts"):
            change.require(name, "=", row[name])
        forgettable = "fact_at" in row and "reason" not in row
        write_done(change, claim.terms.now, done_listing(claim.mchid) if forgettable else None)
        self._table.tries(write, until)

    def _repair(self, fact: Fact, until: float) -> None:
        """Write a settled record that its item does not show, as after a restored backup."""
        if fact.record is None:
            return
        at = record_key(fact.record)
        held = self._table.get(at, until)
        if held is None or "settled_at" not in held:
            write = Write()
            write_settled(write, fact.record)
            write.on(at).require("settled_at", "absent")
            self._table.tries(write, until)

    def row(self, at: Key, until: float | None = None) -> Item | None:
        """The claim, where the item is one and not a subject's lease alone."""
        item = self._table.get(at, until)
        return item if item and "fingerprint" in item else None

    def _is_expired(self, fact: Fact, since: float | None, until: float) -> bool:
        # Read after the claim was found missing: a purge moves the horizon before it deletes.
        memory = self._table.get(memory_key(fact.mchid), until)
        purged_before: float | None = memory["purged_before"] if memory else None
        if fact.at is None:
            return purged_before is not None
        at = fact.at.timestamp()
        return any(at < horizon for horizon in (purged_before, since) if horizon is not None)

    def _is_superseded(self, fact: Fact, until: float) -> bool:
        if not isinstance(fact.record, RefundRecord):
            return False
        held = find_record(self._table, record_key(fact.record), RefundRecord, until)
        return (
            held is not None
            and held.state == "settled"
            and REFUND_RANK.get(fact.record.status, 0) <= REFUND_RANK.get(held.status, 0)
        )

    def is_held(self, row: Item, lease: Item | None) -> bool:
        if row["state"] != "held" or lease is None or lease.get("holder") != row["key"]:
            return False
        return self._runs(lease)

    def _runs(self, lease: Item | None) -> bool:
        return bool(lease and lease.get("lease_until", 0) > self._now() - self._skew)


def claim_key(key: str) -> Key:
    return f"claim/{key}", "claim"


def memory_key(mchid: str) -> Key:
    """Where a merchant's purge horizon stands."""
    return f"memory/{mchid}", "memory"


def done_listing(mchid: str) -> str:
    """The index's listing of a merchant's claims that may be forgotten one day."""
    return f"done/{mchid}"


def write_done(change: Change, now: float, listing: str | None) -> Change:
    """Done, and listed for the purge, or nowhere."""
    return change.set(
        state="done",
        done_at=now,
        listed=listing,
        listed_at=None if listing is None else now,
    )


def _taken(fact: Fact, row: Item | None, lease: Item | None) -> Item:
    """What a claim will be once it is taken; a purged lease does not turn its fence back."""
    row = row or {"fingerprint": fact.fingerprint, "attempts": 0, "completed": [], "fence": 0}
    fence = max(row["fence"], (lease or {}).get("fence", 0)) + 1
    return row | {"attempts": row["attempts"] + 1, "fence": fence}
