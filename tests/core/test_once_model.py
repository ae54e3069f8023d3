"""Any sequence of deliveries, closes, refunds, failures, deaths and lost leases against a model.

The model is a dictionary of claims and a few rules; the kit must answer, fire and record exactly
as it says. Stated apart from the model: effects are once per completed plugin, paid excludes
closed, and 204 means recorded.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec import Struct

from core.facts_at_hand import HookFailed, StoreTime, closed, order, paid
from deliveries import MCHID, Clock, delivery, receiving_kit, transaction
from deliveries import refund as refund_notice
from wechatpay_kit import HookError, LeaseLostError, hookimpl
from wechatpay_kit.settlement import Settlement, Terms
from wechatpay_kit.store.sqlite import SqliteStore

PLUGINS = ("stock", "mail")  # in the order in which they run
PAYMENTS = ("4200001", "4200002")
LEASE = 61  # seconds until a lease has ended


class Claim(Struct):
    """What the model knows of one key."""

    fingerprint: str
    state: str = "released"  # held, released, done
    until: float = 0
    completed: set[str] = set()


class Plugin:
    """Has effects, and fails or overruns its lease as the machine says."""

    def __init__(self, machine, name):
        self.machine, self.name = machine, name

    def _act(self, what):
        machine = self.machine
        if self.name == machine.raises:
            raise RuntimeError("told to")
        machine.effects[self.name, what] += 1
        if self.name == machine.overruns:
            machine.time.advance(LEASE)

    @hookimpl
    def on_paid(self, event):
        self._act(f"paid {event.transaction.transaction_id}")

    @hookimpl
    def on_closed(self, event):
        self._act("closed")

    @hookimpl
    def on_refund(self, event):
        self._act(f"refund {event.refund.status}")


class Operator:
    def __init__(self, machine):
        self.machine = machine

    @hookimpl
    def on_conflict(self, event):
        self.machine.effects["conflict", event.key] += self.machine.handles
        return self.machine.handles


class Once(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.time = StoreTime()
        self.store = SqliteStore(Path(self.folder.name) / "store.db", now=self.time)
        self.store.add_order(order())
        self.kit = receiving_kit(self.store)
        for name in reversed(PLUGINS):  # the last one registered runs first
            self.kit.register(Plugin(self, name), name=name)
        self.kit.register(Operator(self), name="operator")
        self.settlement = Settlement(
            mchid=MCHID,
            store=self.store,
            plugins=self.kit._plugins,
            business_clock=Clock(),
            query=None,
        )
        self.raises = self.overruns = None
        self.handles = True
        self.effects = Counter()
        self.expected = Counter()  # effects by the model
        self.claims = {}
        self.dead = []  # claims of processes that died; kept, so that nothing releases them

    def teardown(self):
        for work in self.dead:
            error = HookFailed("the test is over")
            work.__exit__(HookFailed, error, None)
        self.store.close()
        self.folder.cleanup()

    # The model: a status for what happens, and the claims after it

    def model(self, key, fingerprint, what):
        claim = self.claims.get(key)
        if claim and claim.state == "held" and claim.until > self.time.seconds:
            return 503
        if claim and claim.fingerprint != fingerprint:
            return self.model_conflict(key, fingerprint)
        if claim and claim.state == "done":
            return 204
        claim = self.claims[key] = claim or Claim(fingerprint, completed=set())
        claim.state = "released"
        for name in PLUGINS:
            if name in claim.completed:
                continue
            if name == self.raises:
                return 500
            self.expected[name, what] += 1
            if name == self.overruns:
                return 503
            claim.completed.add(name)
        claim.state = "done"
        resolved = self.claims.get(f"conflict/{key}/{fingerprint}")
        if resolved:  # the same fact has found its place
            resolved.state = "done"
        return 204

    def model_conflict(self, key, fingerprint):
        claim = self.claims.setdefault(f"conflict/{key}/{fingerprint}", Claim(fingerprint))
        if claim.state != "done" and self.handles:
            claim.state = "done"
        return 204 if claim.state == "done" else 500

    def model_paid(self, payment, total):
        fingerprint = f"paid:{payment}:{total}"
        if total != 100:
            return self.model_conflict("order", fingerprint)
        return self.model("order", fingerprint, f"paid {payment}")

    def model_refund(self, status):
        if self.order_state() != "paid":
            return self.model_conflict(f"refund/{status}", "refund")
        success = self.claims.get("refund/SUCCESS")
        if status == "ABNORMAL" and success and success.state == "done":
            if overtaken := self.claims.get("refund/ABNORMAL"):
                overtaken.state = "done"
            return 204  # no step forward
        return self.model(f"refund/{status}", "refund", f"refund {status}")

    def order_state(self):
        claim = self.claims.get("order")
        if claim is None or claim.state != "done":
            return "open"
        return claim.fingerprint.partition(":")[0]

    # What happens

    faults = st.sampled_from([None, None, None, "stock", "mail"])

    def with_faults(self, raises, overruns, handles):
        self.raises, self.overruns, self.handles = raises, overruns, handles

    @rule(
        payment=st.sampled_from([PAYMENTS[0], *PAYMENTS]),
        total=st.sampled_from([100, 100, 100, 1]),
        raises=faults,
        overruns=faults,
        handles=st.booleans(),
    )
    def deliver(self, payment, total, raises, overruns, handles):
        self.with_faults(raises, overruns, handles)
        made = delivery(transaction(total=total, transaction_id=payment))
        expected = self.model_paid(payment, total)
        assert self.kit.receiver.receive(*made).status == expected
        if expected == 204 and total == 100:
            conflict = self.claims.get(f"conflict/order/paid:{payment}:100")
            held = self.store.order(MCHID, "T1001")
            is_paid = (held.state, held.transaction_id) == ("paid", payment)
            assert is_paid or (conflict and conflict.state == "done")

    @rule(raises=faults, overruns=faults, handles=st.booleans())
    def close(self, raises, overruns, handles):
        self.with_faults(raises, overruns, handles)
        expected = self.model("order", "closed", "closed")
        try:
            settled = self.settlement.closed("T1001", Terms("close"))
        except HookError:
            assert expected == 500
        except LeaseLostError:
            assert expected == 503
        else:
            status = 204 if settled.is_final else 503 if settled.outcome == "busy" else 500
            assert status == expected

    @rule(status=st.sampled_from(["ABNORMAL", "SUCCESS"]), raises=faults, handles=st.booleans())
    def refund(self, status, raises, handles):
        self.with_faults(raises, None, handles)
        expected = self.model_refund(status)
        claim = self.claims.get("order")
        is_paid = claim is not None and claim.fingerprint.startswith("paid:")
        payment = claim.fingerprint.split(":")[1] if is_paid else PAYMENTS[0]
        notice = refund_notice(status=status, transaction_id=payment)
        made = delivery(notice, f"REFUND.{status}")
        assert self.kit.receiver.receive(*made).status == expected

    @rule(fact=st.sampled_from(["closed", *PAYMENTS]), after=st.sampled_from([0, 1, 2]))
    def die(self, fact, after):
        """A process claims the order, and dies after some of its plugins have completed."""
        fingerprint = "closed" if fact == "closed" else f"paid:{fact}:100"
        claim = self.claims.get("order")
        if claim and (
            claim.state == "done"
            or claim.until > self.time.seconds
            or claim.fingerprint != fingerprint
        ):
            return
        claim = self.claims["order"] = claim or Claim(fingerprint, completed=set())
        work = self.store.claim(self.fact(fact), now=Clock()())
        held = work.__enter__()
        self.dead.append(work)
        claim.state, claim.until = "held", self.time.seconds + 60
        assert held.completed == claim.completed
        what = "closed" if fact == "closed" else f"paid {fact}"
        for name in [name for name in PLUGINS if name not in claim.completed][:after]:
            held.complete_plugin(name)
            claim.completed.add(name)
            self.expected[name, what] += 1
            self.effects[name, what] += 1

    def fact(self, name):
        return closed() if name == "closed" else paid(transaction_id=name)

    @rule()
    def let_leases_end(self):
        self.time.advance(LEASE)

    # What always holds

    @invariant()
    def effects_are_the_models(self):
        conflicts = {key for key in self.effects if key[0] == "conflict"}
        assert all(self.effects[key] <= 1 for key in conflicts)
        assert +self.expected == Counter(
            {key: n for key, n in self.effects.items() if key not in conflicts and n}
        )

    @invariant()
    def paid_excludes_closed(self):
        for name in PLUGINS:
            settled = {what for plugin, what in +self.effects if plugin == name}
            settled = {what for what in settled if not what.startswith("refund")}
            assert len(settled) <= 1

    @invariant()
    def the_order_is_what_was_settled(self):
        assert self.store.order(MCHID, "T1001").state == self.order_state()

    @invariant()
    def an_operator_sees_what_is_left(self):
        left = [
            claim
            for claim in self.claims.values()
            if claim.state == "released"
            or (claim.state == "held" and claim.until <= self.time.seconds)
        ]
        assert len(self.store.unsettled(MCHID)) == len(left)


Once.TestCase.settings = settings(
    max_examples=50, stateful_step_count=25, deadline=None, database=None
)
test_any_sequence_is_once = Once.TestCase
