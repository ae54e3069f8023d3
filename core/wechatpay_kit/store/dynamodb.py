"""The store for AWS Lambda: one DynamoDB table, claims held by lease.

Knows claims, leases and fences; knows nothing of hooks or messages. Every decision is read with
strong consistency, then written under the condition that what was read still stands; the
condition arbitrates, and whoever fails it decides anew. Leases run on the machines' wall clocks,
and a successor waits ``skew`` longer than the lease says; the fence keeps the predecessor out
whatever the clocks do. An expired lease is compared, never awaited: DynamoDB's own TTL deletes
days late, and would forget what was done. Do not turn it on.

The table (``create_table``, or examples/aws_lambda/template.yaml) has the keys ``pk`` and ``sk``
(strings) and the index ``listing`` with the keys ``listed`` (string) and ``listed_at`` (number),
which projects keys only. Turn point-in-time recovery on: it is a memory of money. One region
only: a global table's replicas agree too late to arbitrate.

=======================  =================  ===================================================
pk                       sk                 the item
=======================  =================  ===================================================
claim/{key}              claim              a claim
claim/{subject}          claim              its subject's lease and fence; mostly the same item
order/{mchid}/{number}   record             an order
order/{mchid}/{number}   claim/{key}        says that this claim is about the order
order/{mchid}/{number}   refund/{number}    says that this refund is of the order
refund/{mchid}/{number}  record             a refund
memory/{mchid}           memory             a merchant's purge horizon
=======================  =================  ===================================================

The index lists a merchant's open claims (``open/{mchid}``, by when they were first seen), done
ones that may be forgotten (``done/{mchid}``) and settled records (``settled/{mchid}``). It only
proposes: what is shown or deleted is read, or compared, in the table. Each listing takes some
1,000 changes a second.

A process that receives or places needs dynamodb:GetItem, BatchGetItem, Query, UpdateItem and
ConditionCheckItem on the table; one that lists what is unsettled Query on its index too, and one
that purges DeleteItem.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from wechatpay_kit.errors import ConfigError, LeaseLostError, StoreError
from wechatpay_kit.records import Unsettled

from . import ClaimOutcome
from .dynamodb_claims import DynamoClaim, DynamoClaims, Terms, claim_key, done_listing, write_done
from .dynamodb_purge import forget
from .dynamodb_records import DynamoRecords, as_moment, as_seconds, write_settled
from .dynamodb_table import LAYOUT, DynamoTable
from .dynamodb_writes import Write
from .leases import LeaseKeeper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from . import Claim, Fact
    from .dynamodb_writes import Item

__all__ = ["LAYOUT", "DynamoStore", "create_table"]

LEASE = timedelta(seconds=60)
MAX_HOLD = timedelta(minutes=10)
WAIT = timedelta(seconds=2)  # for one request; WeChat Pay waits 5 s for the whole delivery
SKEW = timedelta(seconds=5)  # between the clocks of two machines
_TABLE_NAME = re.compile(r"[A-Za-z0-9_.-]{3,255}")


def create_table(table: str, *, region: str | None = None, endpoint_url: str | None = None) -> None:
    """Create the table that :class:`DynamoStore` needs, billed on demand, and wait for it.

    For tests and small shops; a deployment's template does it otherwise (``LAYOUT`` is what it
    must say). Raises :class:`StoreError` where the table exists or may not be created.
    """
    made = DynamoTable(_checked(table), WAIT.total_seconds(), region, endpoint_url)
    try:
        made.create()
    finally:
        made.close()


class DynamoStore(DynamoRecords):
    """Orders, refunds and claims in one table; leased (docs/once.md says what that promises).

    ``lease`` is renewed at a third of it by a living owner, up to ``max_hold``; ``wait`` is the
    longest that a request is repeated; ``skew`` how far two machines' clocks may be apart;
    ``now`` gives Unix seconds. ``region`` and credentials are the environment's unless given. The
    client is made at once (a delivery should not pay for it), and again after a fork. Raises
    :class:`ConfigError` without a region or with an impossible table name.
    """

    def __init__(
        self,
        table: str,
        *,
        region: str | None = None,
        endpoint_url: str | None = None,
        lease: timedelta = LEASE,
        max_hold: timedelta = MAX_HOLD,
        wait: timedelta = WAIT,
        skew: timedelta = SKEW,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(DynamoTable(_checked(table), wait.total_seconds(), region, endpoint_url))
        self._lease = lease.total_seconds()
        self._max_hold = max_hold.total_seconds()
        self._wait = wait.total_seconds()
        self._now = now
        self._claims = DynamoClaims(self._table, self._lease, skew.total_seconds(), now)
        self._keepers: dict[int, LeaseKeeper[DynamoClaim]] = {}

    @contextmanager
    def claim(
        self,
        fact: Fact,
        *,
        now: datetime,
        since: datetime | None = None,
        hold: timedelta | None = None,
        wait: timedelta | None = None,
    ) -> Iterator[Claim]:
        terms = Terms(
            now=now.timestamp(),
            since=as_seconds(since),
            longest=self._max_hold if hold is None else min(self._max_hold, hold.total_seconds()),
            patience=self._wait if wait is None else min(self._wait, wait.total_seconds()),
            began=self._now(),
        )
        claim = self._claims.take(DynamoClaim(fact, terms, self._complete_plugin), fact)
        if claim.outcome is not ClaimOutcome.FRESH:
            yield claim
            return
        with self._keeper.keeping(claim):
            try:
                yield claim
            except BaseException as error:
                with suppress(StoreError):  # the lease ends by itself; what was raised matters
                    self._release(claim, error)
                raise
            self._complete(claim, fact)

    def is_claimed(self, key: str) -> bool:
        row = self._claims.row(claim_key(key))
        if row is None or row["state"] == "done":
            return row is not None
        return self._claims.is_held(row, self._table.get(claim_key(row["subject"])))

    def unsettled(self, mchid: str) -> list[Unsettled]:
        listed = self._table.get_many(self._table.listed(f"open/{mchid}"))
        rows = [row for row in listed if row.get("state") in ("held", "released")]
        subjects = {claim_key(row["subject"]) for row in rows if row["state"] == "held"}
        leases = {item["pk"]: item for item in self._table.get_many(subjects)}
        return [
            Unsettled(
                key=row["key"],
                fingerprint=row["fingerprint"],
                reason=row.get("reason", "failed"),
                out_trade_no=row.get("out_trade_no"),
                first_seen=as_moment(row["first_seen"]),
                attempts=row["attempts"],
                last_error="its process died" if row["state"] == "held" else row.get("last_error"),
            )
            for row in sorted(rows, key=lambda row: (row["first_seen"], row["key"]))
            if not self._claims.is_held(row, leases.get(claim_key(row["subject"])[0]))
        ]

    def purge(self, mchid: str, before: datetime) -> int:
        return forget(self._table, mchid, before.timestamp())

    def close(self) -> None:
        self._keeper.close()
        self._table.close()

    def __repr__(self) -> str:
        return f"DynamoStore({self._table.name!r})"

    # Owning a claim

    @property
    def _keeper(self) -> LeaseKeeper[DynamoClaim]:
        pid = os.getpid()
        return self._keepers.get(pid) or self._keepers.setdefault(
            pid, LeaseKeeper(self._renew, self._lease / 3)
        )

    def _complete_plugin(self, claim: DynamoClaim, name: str) -> None:
        completed = claim.completed | {name}
        write = self._owned(claim)
        write.on(claim.at).set(completed=sorted(completed))
        if not self._table.tries(write, self._owners_time(claim)):
            raise _lost(claim)
        claim.completed = completed

    def _complete(self, claim: DynamoClaim, fact: Fact) -> None:
        conflict = self._open_conflict(claim, fact)
        # A conflict that has been taken since it was read is not ours to end: once more without.
        for attempt in (conflict, None) if conflict else (None,):
            write = self._completing(claim, fact, attempt)
            if self._table.tries(write, self._owners_time(claim)) or self._is_done(claim):
                return
        raise _lost(claim)

    def _is_done(self, claim: DynamoClaim) -> bool:
        """Whether it was written after all, and no one told us."""
        row = self._claims.row(claim.at)
        return row is not None and (row["state"], row["fence"]) == ("done", claim.fence)

    def _open_conflict(self, claim: DynamoClaim, fact: Fact) -> Item | None:
        """The conflict that was told of this very fact, and that nobody has handled."""
        if fact.reason is not None:
            return None
        row = self._claims.row(claim_key(fact.conflict_key), self._owners_time(claim))
        return row if row and row["state"] == "released" else None

    def _completing(self, claim: DynamoClaim, fact: Fact, conflict: Item | None) -> Write:
        write = self._owned(claim)
        forgettable = fact.reason is None and fact.at is not None
        listing = done_listing(fact.mchid) if forgettable else None
        write_done(write.on(claim.at), claim.terms.now, listing)
        write.on(claim.subject_at).set(lease_until=0)
        if conflict is not None:
            change = write.on(claim_key(conflict["key"])).require("state", "=", "released")
            write_done(change, claim.terms.now, None)
        if fact.record is not None:
            write_settled(write, fact.record)
        return write

    def _owned(self, claim: DynamoClaim) -> Write:
        """A change of a claim that is still ours: the fence is ours and the lease runs."""
        write = Write()
        change = write.on(claim.subject_at)
        change.require("fence", "=", claim.fence).require("lease_until", ">", self._now())
        return write

    def _owners_time(self, claim: DynamoClaim) -> float:
        """Until when an owner may try: what it was given to wait, and to hold."""
        left = max(0.0, claim.keep_until - self._now())
        return self._table.until(min(claim.terms.patience, left))

    def _release(self, claim: DynamoClaim, error: BaseException) -> None:
        until = self._table.until(claim.terms.patience)
        write = _released(claim, error)
        write.on(claim.subject_at).set(lease_until=0).require("fence", "=", claim.fence)
        if not self._table.tries(write, until) and claim.at != claim.subject_at:
            # The subject has gone to another of its claims; this one failed all the same.
            self._table.tries(_released(claim, error), until)

    def _renew(self, claim: DynamoClaim) -> bool:
        moment = self._now()
        if moment >= claim.keep_until:
            return False
        # One that ended stays ended: a successor may be at its subject already.
        write = self._owned(claim)
        until = min(moment + self._lease, claim.keep_until)
        write.on(claim.subject_at).set(lease_until=until)
        return self._table.tries(write)


def _lost(claim: DynamoClaim) -> LeaseLostError:
    return LeaseLostError(
        f"the lease of {claim.key} ended (fence {claim.fence}) before it was recorded; "
        "the work may be done again: make hooks shorter, or enqueue"
    )


def _released(claim: DynamoClaim, error: BaseException) -> Write:
    cause = error.__cause__ or error
    write = Write()
    write.on(claim.at).set(
        state="released", last_error=f"{type(cause).__name__}: {cause}"[:500]
    ).require("state", "=", "held").require("fence", "=", claim.fence)
    return write


def _checked(table: str) -> str:
    if not _TABLE_NAME.fullmatch(table):
        raise ConfigError(
            f"STORE must name a DynamoDB table (3 to 255 of A-Z a-z 0-9 _ . -), like "
            f"dynamodb://wechatpay; got {table!r}"
        )
    return table
