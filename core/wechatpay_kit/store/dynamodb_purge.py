"""Forget what was done long ago in a DynamoDB table.

Knows the purge horizon, done claims and settled records; knows nothing of who is at work. The
index proposes, and each deletion compares in the table itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .dynamodb_claims import claim_key, done_listing, memory_key
from .dynamodb_records import link_key, settled_listing
from .dynamodb_writes import Write

if TYPE_CHECKING:
    from .dynamodb_table import DynamoTable
    from .dynamodb_writes import Item, Key

__all__ = ["forget"]


def forget(table: DynamoTable, mchid: str, horizon: float) -> int:
    """Move a merchant's horizon (Unix seconds), then delete what is older; the number of claims."""
    write = Write()
    write.on(memory_key(mchid)).set(purged_before=horizon).require(
        "purged_before", "absent or <", horizon
    )
    table.tries(write)  # before anything is forgotten
    forgotten = sum(
        _forget_with_its_order(table, at, horizon)
        for at in table.listed(done_listing(mchid), horizon)
    )
    for at in table.listed(settled_listing(mchid), horizon):
        _forget_record(table, at, horizon)
    return forgotten


def _forget_with_its_order(table: DynamoTable, at: Key, horizon: float) -> int:
    """All claims about one order, or none as long as one of them has to be kept."""
    row = table.get(at)
    if row is None or "fingerprint" not in row:
        return 0
    rows = [row]
    if "out_trade_no" in row:
        order, _ = link_key(row["mchid"], row["out_trade_no"], "")
        rows = table.get_many(map(claim_key, table.below(order, "claim/")))
    if not all(_may_be_forgotten(row, horizon) for row in rows):
        return 0
    return sum(_forget_claim(table, row, horizon) for row in rows)


def _may_be_forgotten(row: Item, horizon: float) -> bool:
    was_done = row["state"] == "done" and row["done_at"] < horizon
    return was_done and "reason" not in row and row.get("fact_at", horizon) < horizon


def _forget_claim(table: DynamoTable, row: Item, horizon: float) -> bool:
    write = Write()
    write.on(claim_key(row["key"])).delete().require("state", "=", "done").require(
        "done_at", "<", horizon
    )
    if row["subject"] != row["key"]:
        write.on(claim_key(row["subject"])).delete().require(
            "lease_until", "absent or <=", 0
        ).require("fingerprint", "absent")
    if "out_trade_no" in row:
        write.on(link_key(row["mchid"], row["out_trade_no"], f"claim/{row['key']}")).delete()
    return table.tries(write)


def _forget_record(table: DynamoTable, at: Key, horizon: float) -> None:
    item = table.get(at)
    if item is None:
        return
    write = Write()
    write.on(at).delete().require("settled_at", "<", horizon)
    if "out_trade_no" in item:
        order, _ = link_key(item["mchid"], item["out_trade_no"], "")
        if any(table.below(order, "claim/")):
            return
        if "out_refund_no" in item:
            write.on((order, f"refund/{item['out_refund_no']}")).delete()
    table.tries(write)
