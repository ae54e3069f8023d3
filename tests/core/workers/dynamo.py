"""Claim in the DynamoDB table of the job: as one of several processes, or before and in a fork."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime, timedelta

from wechatpay_kit.facts import Fact
from wechatpay_kit.store import ClaimOutcome
from wechatpay_kit.store.dynamodb import DynamoStore

NOW = datetime(2026, 11, 24, 2, tzinfo=UTC)


def fact(key):
    return Fact(mchid="1900000001", key=key, subject=key, fingerprint="f", at=NOW)


def race(store, job):
    """Claim every key; append a line for each that was fresh."""
    print("ready", flush=True)  # noqa: T201 - how it talks
    sys.stdin.readline()
    for key in job["keys"]:
        with store.claim(fact(key), now=NOW) as claim:
            if claim.outcome is ClaimOutcome.FRESH:
                with open(job["effects"], "a") as effects:  # noqa: PTH123
                    effects.write(f"{key}\n")


def fork(store, job):
    """Use the store, fork, and use it on both sides at once."""
    with store.claim(fact("before"), now=NOW):
        pid = os.fork()
        key = "parent" if pid else "child"
        with store.claim(fact(key), now=NOW) as claim:
            assert claim.outcome is ClaimOutcome.FRESH
        with store.claim(fact("before"), now=NOW) as claim:
            assert claim.outcome is ClaimOutcome.BUSY
        if not pid:
            os._exit(len(store._table._clients) - 2)  # the parent's, and one of its own
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def main():
    job = json.loads(sys.argv[1])
    store = DynamoStore(job["table"], endpoint_url=job["endpoint"], wait=timedelta(seconds=30))
    {"race": race, "fork": fork}[job["does"]](store, job)
    store.close()


main()
