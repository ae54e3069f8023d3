"""A shop's calls over real HTTP against the sandbox: recorded, settled once, and told clearly."""

from __future__ import annotations

import asyncio
import base64
from contextlib import closing
from datetime import UTC, date, datetime, timedelta

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from core.relay import Relay
from deliveries import KEYS, MCHID, Recorder, delivery, transaction
from wechatpay_kit import (
    ApiError,
    ConfigError,
    HookError,
    Kit,
    Merchant,
    OrderMismatchError,
    OrderNotExistError,
    OrderPaidError,
    OutcomeUnknownError,
    ParameterError,
    StatementNotReadyError,
    TransportError,
    UnknownOrderError,
    hookimpl,
)
from wechatpay_kit.store.sqlite import SqliteStore
from wechatpay_kit_sandbox import Sandbox, generate_keys
from wechatpay_kit_sandbox.keys import private_pem

NUMBER = "T100100"
ORDER = {"out_trade_no": NUMBER, "total": 100, "description": "Plush QQ", "openid": "oPayer"}


@pytest.fixture
def sandbox():
    with Sandbox(keys=KEYS, notify_url="https://shop.example/wechatpay/notify") as sandbox:
        yield sandbox


@pytest.fixture
def relay(sandbox):
    with Relay(sandbox) as relay:
        yield relay


@pytest.fixture
def shop():
    return Recorder()


@pytest.fixture
def make_kit(sandbox, relay, tmp_path):
    """Kits of one shop: each has connections of its own, all have one store file."""
    made = []

    def make(*plugins, **options):
        settings = {"store": SqliteStore(tmp_path / "store.db"), "business_clock": sandbox.now}
        merchant = Merchant.from_env(environ=relay.environment())
        made.append(Kit(merchant, plugins=plugins, **settings | options))
        return made[-1]

    yield make
    for kit in made:
        kit.close()


@pytest.fixture
def kit(make_kit, shop):
    return make_kit(shop)


def deliver_by(kit, sandbox, payment):
    """Hand the notification of what happened in the sandbox to the kit; the status."""
    made = sandbox.delivery(payment.notification.id)
    return kit.receiver.receive(made.headers.items(), made.body).status


class Breakable(Recorder):
    """Raises in the hooks that are named in ``broken``."""

    def __init__(self, *broken):
        super().__init__()
        self.broken = set(broken)

    def _act(self, name, event):
        if name in self.broken:
            raise RuntimeError(f"{name} is broken")
        self.events.append((name, event))

    @hookimpl
    def on_paid(self, event):
        self._act("on_paid", event)

    @hookimpl
    def on_closed(self, event):
        self._act("on_closed", event)

    @hookimpl
    def on_refund(self, event):
        self._act("on_refund", event)


# Placing, and the parameters of wx.requestPayment


def is_signed_by_merchant(params, appid):
    lines = [appid, params["timeStamp"], params["nonceStr"], params["package"], ""]
    signature = base64.b64decode(params["paySign"], validate=True)
    key = KEYS.merchant.private_key.public_key()
    key.verify(signature, "\n".join(lines).encode(), PKCS1v15(), SHA256())
    return True


def test_an_order_is_placed_and_its_payment_parameters_are_signed(kit, sandbox):
    order = kit.create_order(**ORDER)
    assert (order.out_trade_no, order.state) == (NUMBER, "open")
    assert order.prepay_id == sandbox.order(NUMBER).prepay_id
    params = order.request_payment()
    assert set(params) == {"timeStamp", "nonceStr", "package", "signType", "paySign"}
    assert params["package"] == f"prepay_id={order.prepay_id}"
    assert params["signType"] == "RSA"
    assert abs(int(params["timeStamp"]) - datetime.now(UTC).timestamp()) < 60
    assert is_signed_by_merchant(params, KEYS.merchant.appid)
    with pytest.raises(InvalidSignature):
        is_signed_by_merchant(params, "wx0000000000000000")
    assert order.request_payment()["nonceStr"] != params["nonceStr"]


def test_an_order_is_recorded_before_it_is_sent(make_kit, relay):
    states = []
    kit = make_kit(Recorder())

    def look(request, answer):
        states.append(make_kit(Recorder()).order(NUMBER).record)
        return answer

    relay.events.append(look)
    order = kit.create_order(**ORDER)
    (record,) = states
    assert (record.state, record.body) == ("placing", relay.posted()[0])
    assert order.record.body == record.body


def test_the_stored_prepay_id_is_signed_again_without_a_call(kit, make_kit, relay, sandbox):
    placed = kit.create_order(**ORDER, time_expire=sandbox.now() + timedelta(days=1))
    sandbox.advance(timedelta(hours=2) - timedelta(seconds=30))
    before = len(relay.passed)
    again = make_kit(Recorder()).order(NUMBER)
    params = again.request_payment()
    assert params["package"] == f"prepay_id={placed.prepay_id}"
    assert is_signed_by_merchant(params, KEYS.merchant.appid)
    assert len(relay.passed) == before


def test_after_two_hours_the_order_is_entered_again_with_the_same_bytes(kit, relay, sandbox):
    order = kit.create_order(**ORDER, time_expire=sandbox.now() + timedelta(days=1))
    old = order.prepay_id
    sandbox.advance(timedelta(hours=2, seconds=1))
    params = kit.order(NUMBER).request_payment()
    new = sandbox.order(NUMBER).prepay_id
    assert params["package"] == f"prepay_id={new}"
    assert new != old
    assert len(relay.posted()) == 2
    assert len(set(relay.posted())) == 1
    assert kit.order(NUMBER).prepay_id == new
    before = len(relay.passed)
    assert kit.order(NUMBER).request_payment()["package"] == f"prepay_id={new}"
    assert len(relay.passed) == before


def test_an_order_that_turns_out_paid_at_re_entry_is_settled(kit, sandbox, shop):
    order = kit.create_order(**ORDER, time_expire=sandbox.now() + timedelta(days=1))
    sandbox.pay(NUMBER, notify=False)
    sandbox.advance(timedelta(hours=3))
    with pytest.raises(OrderPaidError):
        order.request_payment()
    assert shop.names() == ["on_paid"]
    assert kit.order(NUMBER).state == "paid"


def test_the_same_order_again_sends_the_same_bytes_although_time_passed(kit, relay, sandbox):
    kit.create_order(**ORDER)
    sandbox.advance(timedelta(minutes=10))
    assert kit.create_order(**ORDER).prepay_id == sandbox.order(NUMBER).prepay_id
    assert len(relay.posted()) == 2
    assert len(set(relay.posted())) == 1


def test_a_number_with_other_parameters_is_refused_without_a_call(kit, relay, sandbox):
    kit.create_order(**ORDER)
    before = list(relay.passed)
    for other in (
        {"total": 101},
        {"description": "Tea"},
        {"openid": "oOther"},
        {"attach": "x"},
        {"notify_url": "https://shop.example/other"},
        {"time_expire": sandbox.now() + timedelta(hours=5)},
    ):
        with pytest.raises(OrderMismatchError, match=NUMBER):
            kit.create_order(**ORDER | other)
    assert relay.passed == before
    assert kit.order(NUMBER).record.total == 100


def test_a_wrong_argument_is_refused_before_anything_is_recorded(kit, relay):
    with pytest.raises(ParameterError, match="total"):
        kit.create_order(**ORDER | {"total": 0})
    with pytest.raises(UnknownOrderError, match=NUMBER):
        kit.order(NUMBER)
    assert relay.passed == []


@pytest.mark.parametrize(
    ("options", "minutes"), [({}, 30), ({"order_lifetime": timedelta(minutes=5)}, 5)]
)
def test_an_order_lives_half_an_hour_unless_told_otherwise(
    make_kit, sandbox, relay, options, minutes
):
    kit = make_kit(Recorder(), **options)
    began = sandbox.now()
    record = kit.create_order(**ORDER).record
    lifetime = record.expires_at - began
    assert timedelta(0) <= timedelta(minutes=minutes) - lifetime < timedelta(seconds=2)
    assert sandbox.order(NUMBER).time_expire == record.expires_at
    assert b"time_expire" in relay.posted()[0]


def test_time_expire_is_the_callers(kit, sandbox):
    end = (sandbox.now() + timedelta(days=2)).replace(microsecond=0)
    assert kit.create_order(**ORDER, time_expire=end).record.expires_at == end
    assert sandbox.order(NUMBER).time_expire == end


def test_the_appid_of_the_order_signs_its_payment(kit, relay):
    """The kit does not let the two differ."""
    with pytest.raises(ApiError):  # the sandbox knows one appid
        kit.create_order(**ORDER, appid="wx1234567890abcdef")
    assert kit.order(NUMBER).record.appid == "wx1234567890abcdef"
    kit.store.order_answered(
        MCHID, NUMBER, state="open", prepay_id="wx-prepay", at=kit._business_clock()
    )
    params = kit.order(NUMBER).request_payment()
    assert is_signed_by_merchant(params, "wx1234567890abcdef")


# Refused, unknown, and out of reach


def test_a_definite_refusal_is_recorded(kit, relay):
    relay.events.append(relay.refuse(400, "PARAM_ERROR"))
    with pytest.raises(ApiError) as caught:
        kit.create_order(**ORDER)
    assert caught.value.verified
    assert kit.order(NUMBER).state == "refused"


def test_a_refused_order_may_be_repeated(kit, relay):
    relay.events.append(relay.refuse(403, "NO_AUTH"))
    with pytest.raises(ApiError):
        kit.create_order(**ORDER)
    assert kit.create_order(**ORDER).state == "open"
    assert len(set(relay.posted())) == 1


def test_a_refused_order_is_gated_like_any_other(kit, relay, shop):
    relay.events.append(relay.refuse(403, "NO_AUTH"))
    with pytest.raises(ApiError):
        kit.create_order(**ORDER)
    wrong = delivery(transaction(NUMBER, total=1), at=datetime.now(UTC))
    assert kit.receiver.receive(*wrong).status == 204
    assert shop.of("on_conflict")[0].reason == "mismatch"


ATTEMPTS = 3  # of one call, before its outcome is given up as unknown


@pytest.mark.parametrize(
    ("status", "code"), [(429, "FREQUENCY_LIMITED"), (400, "ORDER_CLOSED"), (500, "SYSTEM_ERROR")]
)
def test_what_leaves_the_outcome_open_leaves_the_order_placing(kit, relay, status, code):
    relay.events += [relay.refuse(status, code)] * ATTEMPTS
    with pytest.raises((ApiError, OutcomeUnknownError)):
        kit.create_order(**ORDER)
    assert kit.order(NUMBER).state == "placing"


def test_an_answer_that_was_lost_leaves_the_order_placing_and_a_repeat_is_safe(kit, relay):
    relay.events += [relay.hang_up] * ATTEMPTS
    with pytest.raises(OutcomeUnknownError):
        kit.create_order(**ORDER)
    assert kit.order(NUMBER).state == "placing"
    assert kit.create_order(**ORDER).state == "open"
    assert len(set(relay.posted())) == 1


def test_an_unknown_outcome_after_a_refusal_is_placing_again(kit, relay, sandbox):
    """“Outcome unknown → stays placing, and the reconciler asks”: also at the second attempt."""
    relay.events += [relay.refuse(403, "NO_AUTH"), *[relay.hang_up] * ATTEMPTS]
    with pytest.raises(ApiError):
        kit.create_order(**ORDER)
    with pytest.raises(OutcomeUnknownError):
        kit.create_order(**ORDER)
    assert sandbox.order(NUMBER).trade_state == "NOTPAY"  # the gateway has it: it can be paid
    assert kit.order(NUMBER).state == "placing"


def test_a_gateway_out_of_reach_leaves_the_order_placing(kit, relay):
    nowhere = relay.environment() | {"WECHATPAY_BASE_URL": "http://127.0.0.1:9"}
    merchant = Merchant.from_env(environ=nowhere)
    with closing(Kit(merchant, store=kit.store, business_clock=kit._business_clock)) as offline:
        with pytest.raises(TransportError):
            offline.create_order(**ORDER)
        assert offline.order(NUMBER).state == "placing"
    assert kit.create_order(**ORDER).state == "open"


def test_an_order_that_the_gateway_says_is_paid_is_settled_at_once(kit, make_kit, sandbox, shop):
    make_kit(Recorder()).create_order(**ORDER)
    sandbox.pay(NUMBER, notify=False)
    with pytest.raises(OrderPaidError):
        kit.create_order(**ORDER)
    assert shop.names() == ["on_paid"]
    assert shop.of("on_paid")[0].source == "query"


# Query


def test_a_query_settles_what_it_says_and_says_what_became_of_it(kit, sandbox, shop):
    kit.create_order(**ORDER)
    assert kit.query_order(out_trade_no=NUMBER).settlement == "open"
    payment = sandbox.pay(NUMBER, notify=False)
    found = kit.query_order(out_trade_no=NUMBER)
    assert (found.trade_state, found.settlement) == ("SUCCESS", "fired")
    assert found.transaction_id == payment.order.transaction_id
    again = kit.query_order(transaction_id=payment.order.transaction_id)
    assert again.settlement == "duplicate"
    assert deliver_by(kit, sandbox, payment) == 204
    assert shop.names() == ["on_paid", "on_duplicate", "on_duplicate"]
    held = kit.order(NUMBER).record
    assert (held.source, held.payer_total, held.state) == ("query", 100, "paid")
    assert held.success_time == payment.order.paid_at.replace(microsecond=0)


def test_a_payment_told_first_makes_the_query_a_duplicate(kit, sandbox, shop):
    kit.create_order(**ORDER)
    payment = sandbox.pay(NUMBER, notify=False)
    assert deliver_by(kit, sandbox, payment) == 204
    assert kit.query_order(out_trade_no=NUMBER).settlement == "duplicate"
    assert shop.names() == ["on_paid", "on_duplicate"]


def test_a_query_while_the_payment_is_in_work_is_busy(make_kit, sandbox):
    seen = []

    class Shop(Recorder):
        @hookimpl
        def on_paid(self, event):
            if not seen:
                seen.append(make_kit(Recorder()).query_order(out_trade_no=NUMBER).settlement)
            super().on_paid(event)

    kit = make_kit(shop := Shop())
    kit.create_order(**ORDER)
    sandbox.pay(NUMBER, notify=False)
    assert kit.query_order(out_trade_no=NUMBER).settlement == "fired"
    assert seen == ["busy"]
    assert shop.names() == ["on_paid"]


def test_a_query_of_an_order_placed_elsewhere_is_a_conflict(kit, sandbox, shop, tmp_path):
    kit.create_order(**ORDER)
    sandbox.pay(NUMBER, notify=False)
    other_store = SqliteStore(tmp_path / "other.db")
    merchant = Merchant.from_env(environ=sandbox.environment())
    with closing(
        Kit(merchant, plugins=[shop], store=other_store, business_clock=sandbox.now)
    ) as other:
        assert other.query_order(out_trade_no=NUMBER).settlement == "conflict"
        assert shop.of("on_conflict")[0].reason == "unknown_order"


def test_a_query_of_a_payment_from_before_adoption_is_expired(make_kit, sandbox, shop):
    kit = make_kit(shop, settle_since=sandbox.now() + timedelta(days=1))
    kit.create_order(**ORDER)
    sandbox.pay(NUMBER, notify=False)
    assert kit.query_order(out_trade_no=NUMBER).settlement == "expired"
    assert shop.names() == []


def test_a_query_that_finds_no_order_settles_nothing(kit, shop):
    with pytest.raises(OrderNotExistError):
        kit.query_order(out_trade_no="T-nobody-knows")
    assert shop.names() == []


def test_a_query_that_finds_the_order_closed_fires_on_closed_once(kit, sandbox, shop):
    kit.create_order(**ORDER)
    kit.client.close_order(NUMBER)  # by another hand
    assert kit.query_order(out_trade_no=NUMBER).settlement == "fired"
    assert kit.query_order(out_trade_no=NUMBER).settlement == "duplicate"
    assert shop.names() == ["on_closed", "on_duplicate"]
    assert kit.order(NUMBER).state == "closed"


def test_a_hook_that_raises_at_a_query_is_told_with_the_transaction(make_kit, sandbox):
    kit = make_kit(shop := Breakable("on_paid"))
    kit.create_order(**ORDER)
    sandbox.pay(NUMBER, notify=False)
    with pytest.raises(HookError, match="on_paid") as caught:
        kit.query_order(out_trade_no=NUMBER)
    assert caught.value.transaction.out_trade_no == NUMBER
    assert caught.value.transaction.trade_state == "SUCCESS"
    assert "on_paid is broken" in str(caught.value.__cause__)
    (left,) = kit.unsettled()
    assert (left.out_trade_no, left.reason) == (NUMBER, "failed")
    shop.broken.clear()
    assert kit.query_order(out_trade_no=NUMBER).settlement == "fired"
    assert kit.unsettled() == []


def test_a_query_where_nobody_listens_is_refused_before_the_call(make_kit, relay):
    kit = make_kit()
    kit.create_order(**ORDER)
    before = len(relay.passed)
    for call in (
        lambda: kit.query_order(out_trade_no=NUMBER),
        lambda: kit.query_refund("R1"),
        lambda: kit.close_order(NUMBER),
    ):
        with pytest.raises(ConfigError, match=r"on_paid|on_refund"):
            call()
    assert len(relay.passed) == before


def test_an_order_refunded_before_anybody_saw_it_paid_is_a_conflict(kit, sandbox, shop):
    """Refunded in the merchant platform: a shop that is told "paid" now would ship."""
    kit.create_order(**ORDER)
    sandbox.pay(NUMBER, notify=False)
    kit.client.create_refund(out_trade_no=NUMBER, out_refund_no="R-hand", refund=100, total=100)
    assert kit.query_order(out_trade_no=NUMBER).settlement == "conflict"
    assert shop.of("on_conflict")[0].reason == "refunded_before_paid"
    assert shop.of("on_paid") == []


def test_an_order_refunded_after_it_was_paid_is_a_duplicate(kit, sandbox, shop):
    kit.create_order(**ORDER)
    sandbox.pay(NUMBER, notify=False)
    kit.query_order(out_trade_no=NUMBER)
    kit.create_refund(out_trade_no=NUMBER, out_refund_no="R1", refund=100, total=100)
    assert kit.query_order(out_trade_no=NUMBER).settlement == "duplicate"
    assert shop.names() == ["on_paid", "on_duplicate"]


# Close


def test_closing_fires_on_closed_once(kit, sandbox, shop):
    kit.create_order(**ORDER)
    assert kit.close_order(NUMBER) == "fired"
    assert kit.close_order(NUMBER) == "duplicate"
    assert shop.names() == ["on_closed", "on_duplicate"]
    (event,) = shop.of("on_closed")
    assert (event.source, event.order.total, event.out_trade_no) == ("close", 100, NUMBER)
    assert kit.order(NUMBER).state == "closed"
    assert sandbox.order(NUMBER).trade_state == "CLOSED"


def test_closing_an_order_that_turns_out_paid_settles_it(kit, sandbox, shop):
    kit.create_order(**ORDER)
    sandbox.pay(NUMBER, notify=False)
    for _ in range(2):
        with pytest.raises(OrderPaidError):
            kit.close_order(NUMBER)
    assert shop.names() == ["on_paid", "on_duplicate"]
    assert kit.order(NUMBER).state == "paid"


def test_closing_a_number_that_was_never_placed_is_refused_without_a_call(kit, relay, shop):
    with pytest.raises(UnknownOrderError, match="T404404"):
        kit.close_order("T404404")
    assert relay.passed == []
    assert shop.names() == []


def test_closing_by_force_burns_an_unknown_number(kit, relay, shop):
    assert kit.close_order("T404404", force=True) == "fired"
    assert len(relay.posted("close")) == 1
    assert shop.of("on_closed")[0].order is None
    with pytest.raises(ApiError):
        kit.create_order(**ORDER | {"out_trade_no": "T404404"})


def test_a_close_that_the_gateway_refuses_as_closed_settles_by_query(kit, relay, shop):
    kit.create_order(**ORDER)
    kit.client.close_order(NUMBER)
    relay.events.append(relay.refuse(400, "ORDER_CLOSED"))
    assert kit.close_order(NUMBER) == "fired"
    assert shop.names() == ["on_closed"]


def test_on_closed_that_raises_fires_again_at_the_next_close(make_kit):
    kit = make_kit(shop := Breakable("on_closed"))
    kit.create_order(**ORDER)
    with pytest.raises(HookError, match="on_closed"):
        kit.close_order(NUMBER)
    assert kit.order(NUMBER).state == "open"
    shop.broken.clear()
    assert kit.close_order(NUMBER) == "fired"
    assert shop.names() == ["on_closed"]


def test_a_close_without_an_answer_settles_nothing(kit, relay, shop):
    kit.create_order(**ORDER)
    relay.events += [relay.refuse(500, "SYSTEM_ERROR")] * ATTEMPTS
    with pytest.raises(OutcomeUnknownError):
        kit.close_order(NUMBER)
    assert shop.names() == []
    assert kit.close_order(NUMBER) == "fired"


# replaces=

NEXT = ORDER | {"out_trade_no": "T100200", "total": 120}


def test_the_old_order_is_closed_before_the_new_one_is_placed(kit, relay, sandbox, shop):
    kit.create_order(**ORDER)
    order = kit.create_order(**NEXT, replaces=NUMBER)
    assert (order.state, kit.order(NUMBER).state) == ("open", "closed")
    targets = [passed.target for passed in relay.passed]
    assert targets[1].endswith(f"{NUMBER}/close")
    assert targets[2].endswith("jsapi")
    assert shop.names() == ["on_closed"]
    assert kit.create_order(**NEXT, replaces=NUMBER).state == "open"
    assert len(shop.of("on_closed")) == 1


def test_an_old_order_that_turns_out_paid_is_settled_and_nothing_is_placed(kit, sandbox, shop):
    kit.create_order(**ORDER)
    sandbox.pay(NUMBER, notify=False)
    with pytest.raises(OrderPaidError):
        kit.create_order(**NEXT, replaces=NUMBER)
    assert shop.names() == ["on_paid"]
    with pytest.raises(UnknownOrderError):
        kit.order("T100200")
    assert [order.out_trade_no for order in sandbox.orders()] == [NUMBER]


def test_an_old_order_that_nobody_knows_is_refused_without_a_call(kit, relay):
    with pytest.raises(UnknownOrderError, match="T404404"):
        kit.create_order(**NEXT, replaces="T404404")
    assert relay.passed == []


def test_an_order_cannot_replace_itself(kit, relay):
    with pytest.raises(ParameterError, match="replaces"):
        kit.create_order(**ORDER, replaces=NUMBER)
    assert relay.passed == []


def test_a_new_number_taken_by_another_order_closes_nothing(kit, relay, sandbox):
    kit.create_order(**ORDER)
    kit.create_order(**NEXT)
    before = list(relay.passed)
    with pytest.raises(OrderMismatchError):
        kit.create_order(**NEXT | {"total": 1}, replaces=NUMBER)
    assert relay.passed == before
    assert kit.order(NUMBER).state == "open"


def test_a_replacement_whose_answer_was_lost_can_be_repeated(kit, relay, shop):
    kit.create_order(**ORDER)
    relay.events += [lambda request, answer: answer, *[relay.hang_up] * ATTEMPTS]
    with pytest.raises(OutcomeUnknownError):
        kit.create_order(**NEXT, replaces=NUMBER)
    assert kit.create_order(**NEXT, replaces=NUMBER).state == "open"
    assert shop.names()[0] == "on_closed"
    assert set(shop.names()[1:]) <= {"on_duplicate"}


def test_a_replacement_closes_the_old_order_also_after_a_refusal(kit, relay, sandbox):
    """“Closes the old order before a new number is placed”: else both could be paid."""
    kit.create_order(**ORDER)
    relay.events.append(relay.refuse(403, "NO_AUTH"))
    with pytest.raises(ApiError):
        kit.create_order(**NEXT)
    kit.create_order(**NEXT, replaces=NUMBER)
    assert sandbox.order("T100200").trade_state == "NOTPAY"
    assert sandbox.order(NUMBER).trade_state == "CLOSED"


# Refunds


@pytest.fixture
def paid(kit, sandbox, shop):
    """A kit with an order that is paid and settled."""
    kit.create_order(**ORDER)
    sandbox.pay(NUMBER, notify=False)
    kit.query_order(out_trade_no=NUMBER)
    shop.events.clear()
    return kit


REFUND = {"out_trade_no": NUMBER, "out_refund_no": "R1", "refund": 30, "total": 100}


def test_a_refund_is_accepted_then_succeeds_and_fires_once(paid, sandbox, shop):
    assert paid.create_refund(**REFUND).status == "PROCESSING"
    assert paid.store.refund(MCHID, "R1").state == "accepted"
    assert paid.query_refund("R1").settlement == "open"
    payment = sandbox.finish_refund("R1", notify=False)
    assert paid.query_refund("R1").settlement == "fired"
    assert paid.query_refund("R1").settlement == "duplicate"
    assert deliver_by(paid, sandbox, payment) == 204
    assert shop.names() == ["on_refund", "on_duplicate", "on_duplicate"]
    held = paid.store.refund(MCHID, "R1")
    assert (held.state, held.status, held.payer_refund, held.source) == (
        "settled",
        "SUCCESS",
        30,
        "query",
    )
    assert held.success_time is not None


def test_a_refund_that_was_abnormal_and_then_succeeds_fires_twice(paid, sandbox, shop):
    paid.create_refund(**REFUND)
    abnormal = sandbox.finish_refund("R1", "ABNORMAL", notify=False)
    assert paid.query_refund("R1").settlement == "fired"
    sandbox.finish_refund("R1", "SUCCESS", notify=False)
    assert paid.query_refund("R1").settlement == "fired"
    assert deliver_by(paid, sandbox, abnormal) == 204
    assert [event.refund.status for event in shop.of("on_refund")] == ["ABNORMAL", "SUCCESS"]
    assert paid.store.refund(MCHID, "R1").status == "SUCCESS"


def test_a_refund_repeated_after_it_succeeded_is_settled_by_the_answer(paid, sandbox, shop):
    paid.create_refund(**REFUND)
    sandbox.finish_refund("R1", notify=False)
    assert paid.create_refund(**REFUND).status == "SUCCESS"
    assert paid.create_refund(**REFUND).status == "SUCCESS"
    assert len(shop.of("on_refund")) == 1


def test_a_refund_by_transaction_id_is_the_orders(paid, sandbox, shop):
    number = paid.order(NUMBER).record.transaction_id
    paid.create_refund(transaction_id=number, out_refund_no="R2", refund=10, total=100)
    payment = sandbox.finish_refund("R2", notify=False)
    assert deliver_by(paid, sandbox, payment) == 204
    assert [r.out_refund_no for r in paid.store.refunds(MCHID, NUMBER)] == ["R2"]


def test_a_refused_refund_is_recorded_and_may_be_repeated(paid, relay):
    relay.events.append(relay.refuse(403, "NOT_ENOUGH"))
    with pytest.raises(ApiError):
        paid.create_refund(**REFUND)
    assert paid.store.refund(MCHID, "R1").state == "refused"
    assert paid.create_refund(**REFUND).status == "PROCESSING"
    assert paid.store.refund(MCHID, "R1").state == "accepted"
    assert len(set(relay.posted("refunds"))) == 1


def test_a_lost_answer_leaves_a_refund_placing_and_a_repeat_pays_once(paid, relay, sandbox):
    relay.events += [relay.hang_up] * ATTEMPTS
    with pytest.raises(OutcomeUnknownError):
        paid.create_refund(**REFUND)
    assert paid.store.refund(MCHID, "R1").state == "placing"
    paid.create_refund(**REFUND)
    assert len(sandbox.refunds(NUMBER)) == 1


def test_an_unknown_outcome_after_a_refused_refund_is_placing_again(paid, relay, sandbox):
    """“Refunds the same”: the gateway has it, so nobody may take it for refused."""
    relay.events += [relay.refuse(403, "NOT_ENOUGH"), *[relay.hang_up] * ATTEMPTS]
    with pytest.raises(ApiError):
        paid.create_refund(**REFUND)
    with pytest.raises(OutcomeUnknownError):
        paid.create_refund(**REFUND)
    assert len(sandbox.refunds(NUMBER)) == 1
    assert paid.store.refund(MCHID, "R1").state == "placing"


def test_on_refund_that_raises_at_a_query_is_a_hook_error(make_kit, sandbox):
    kit = make_kit(shop := Breakable())
    kit.create_order(**ORDER)
    sandbox.pay(NUMBER, notify=False)
    kit.query_order(out_trade_no=NUMBER)
    kit.create_refund(**REFUND)
    sandbox.finish_refund("R1", notify=False)
    shop.broken.add("on_refund")
    with pytest.raises(HookError, match="on_refund"):
        kit.query_refund("R1")
    assert kit.store.refund(MCHID, "R1").state == "accepted"
    shop.broken.clear()
    assert kit.query_refund("R1").settlement == "fired"


# What an operator must see, and memory


def test_unsettled_is_what_failed_and_what_conflicts(make_kit, sandbox):
    class Shop(Breakable):
        @hookimpl
        def on_conflict(self, event):
            return None

    kit = make_kit(shop := Shop("on_paid"))
    kit.create_order(**ORDER)
    payment = sandbox.pay(NUMBER, notify=False)
    assert deliver_by(kit, sandbox, payment) == 500
    wrong = delivery(transaction("T404404"), at=datetime.now(UTC))
    assert kit.receiver.receive(*wrong).status == 500
    assert {(left.out_trade_no, left.reason) for left in kit.unsettled()} == {
        (NUMBER, "failed"),
        ("T404404", "unknown_order"),
    }
    shop.broken.clear()
    kit.query_order(out_trade_no=NUMBER)
    assert [left.reason for left in kit.unsettled()] == ["unknown_order"]


def test_what_was_purged_is_expired_whatever_brings_it_back(paid, sandbox, shop):
    sandbox.advance(timedelta(days=401))
    assert paid.purge() == 1
    assert paid.query_order(out_trade_no=NUMBER).settlement == "expired"
    assert shop.names() == []


def test_what_is_younger_than_the_retention_is_kept(paid, sandbox, shop):
    sandbox.advance(timedelta(days=399))
    assert paid.purge() == 0
    assert paid.query_order(out_trade_no=NUMBER).settlement == "duplicate"


def test_a_closed_order_that_was_purged_is_not_fresh_again(kit, sandbox, shop):
    """“Purging never makes a fact fresh again.”"""
    kit.create_order(**ORDER)
    kit.close_order(NUMBER)
    sandbox.advance(timedelta(days=401))
    assert kit.purge() == 1
    kit.query_order(out_trade_no=NUMBER)
    assert len(shop.of("on_closed")) == 1


@pytest.mark.parametrize("status", ["CLOSED", "ABNORMAL"])
def test_a_refund_without_success_that_was_purged_is_not_fresh_again(paid, sandbox, shop, status):
    """The same, for refunds whose answers carry no success_time."""
    paid.create_refund(**REFUND)
    sandbox.finish_refund("R1", status, notify=False)
    paid.query_refund("R1")
    assert len(shop.of("on_refund")) == 1
    sandbox.advance(timedelta(days=401))
    paid.purge()
    assert paid.create_refund(**REFUND).status == status
    paid.query_refund("R1")
    assert len(shop.of("on_refund")) == 1


def test_an_order_that_outlives_a_purge_can_still_be_closed(kit, sandbox, shop):
    """Only payments and refunds from before the horizon are expired; this close is of today."""
    kit.create_order(**ORDER, time_expire=sandbox.now() + timedelta(days=5))
    sandbox.advance(timedelta(days=4))
    kit.purge(sandbox.now() - timedelta(days=2))
    assert kit.close_order(NUMBER) == "fired"
    assert shop.names() == ["on_closed"]
    assert kit.order(NUMBER).state == "closed"


# Two merchants, one file


def test_two_merchants_with_one_store_know_nothing_of_each_other(kit, sandbox, shop, tmp_path):
    with Sandbox(keys=generate_keys(), notify_url="https://shop.example/two") as second:
        merchant = Merchant.from_env(environ=second.environment())
        store = SqliteStore(tmp_path / "store.db")
        other_shop = Recorder()
        with closing(
            Kit(merchant, plugins=[other_shop], store=store, business_clock=second.now)
        ) as other:
            kit.create_order(**ORDER)
            with pytest.raises(UnknownOrderError):
                other.order(NUMBER)
            other.create_order(**ORDER | {"total": 7, "openid": "oSecond"})
            one, two = sandbox.pay(NUMBER, notify=False), second.pay(NUMBER, notify=False)
            assert deliver_by(kit, sandbox, one) == 204
            assert other.order(NUMBER).state == "open"
            assert deliver_by(other, second, two) == 204
            assert deliver_by(other, sandbox, one) in {401, 422}
            assert deliver_by(kit, second, two) in {401, 422}
            assert [e.mchid for e in shop.of("on_paid")] == [kit.merchant.mchid]
            assert [e.transaction.amount.total for e in other_shop.of("on_paid")] == [7]


def test_a_merchants_purge_forgets_nothing_of_another(paid, sandbox, tmp_path):
    """“Done claims are kept 400 days by default”: one's shorter retention is not the other's."""
    with Sandbox(keys=generate_keys(), notify_url="https://shop.example/two") as second:
        merchant = Merchant.from_env(environ=second.environment())
        store = SqliteStore(tmp_path / "store.db")
        clock = sandbox.now
        shop = Recorder()
        with closing(
            Kit(
                merchant,
                plugins=[shop],
                store=store,
                business_clock=clock,
                retention=timedelta(days=30),
            )
        ) as other:
            sandbox.advance(timedelta(days=31))
            other.purge()
    assert paid.order(NUMBER).state == "paid"
    assert paid.query_order(out_trade_no=NUMBER).settlement == "duplicate"


# The bill


def test_the_days_bill_lists_what_the_store_knows(paid, sandbox, tmp_path):
    paid.create_refund(**REFUND)
    sandbox.finish_refund("R1", notify=False)
    paid.query_refund("R1")
    day = paid.order(NUMBER).record.success_time.astimezone(sandbox.now().tzinfo).date()
    with pytest.raises(StatementNotReadyError) as caught:
        paid.trade_bill(day)
    ready = caught.value.ready_at
    assert (ready.utcoffset(), ready.hour) == (timedelta(hours=8), 10)
    sandbox.advance_to(ready)
    rows = list(paid.trade_bill(day).rows())
    assert {row.out_trade_no for row in rows} == {NUMBER}
    assert len(rows) == 2
    path = paid.trade_bill(day, compressed=False).download(tmp_path / "bill.csv")
    assert NUMBER in path.read_text("utf-8")


def test_a_bill_type_or_day_that_is_none_is_refused_before_a_call(kit, relay):
    with pytest.raises(ParameterError):
        kit.trade_bill(date(2026, 11, 1), bill_type="NONE")
    with pytest.raises(ParameterError):
        kit.trade_bill(datetime(2026, 11, 1, tzinfo=UTC))
    assert relay.passed == []


# Asynchronous shops


class AsyncShop:
    @hookimpl
    async def on_paid(self, event):
        pass


@pytest.mark.parametrize(
    "call",
    [
        lambda kit: kit.create_order(**ORDER),
        lambda kit: kit.query_order(out_trade_no=NUMBER),
        lambda kit: kit.close_order(NUMBER),
        lambda kit: kit.create_refund(**REFUND),
        lambda kit: kit.query_refund("R1"),
        lambda kit: kit.order(NUMBER).request_payment(),
    ],
    ids=["create_order", "query_order", "close_order", "create_refund", "query_refund", "re-entry"],
)
def test_a_call_that_may_fire_async_hooks_is_refused_on_a_running_loop(
    make_kit, relay, sandbox, call
):
    kit = make_kit(AsyncShop(), Recorder())
    kit.create_order(**ORDER, time_expire=sandbox.now() + timedelta(days=1))
    sandbox.advance(timedelta(hours=3))
    before = list(relay.passed)

    async def on_the_loop():
        with pytest.raises(RuntimeError, match=r"anyio\.to_thread\.run_sync"):
            call(kit)

    asyncio.run(on_the_loop())
    assert relay.passed == before


def test_a_delivery_on_a_running_loop_is_refused_where_hooks_are_async(make_kit):
    """The same sentence, for receiving: the loop would wait for its own hook."""
    kit = make_kit(AsyncShop())
    made = delivery(transaction(NUMBER), at=datetime.now(UTC))

    async def on_the_loop():
        return kit.receiver.receive(*made)

    with pytest.raises(RuntimeError, match=r"anyio\.to_thread\.run_sync"):
        asyncio.run(on_the_loop())


# Making a kit


def test_a_store_against_the_real_gateway_must_be_named_and_absolute():
    settings = {
        "mchid": "1900000001",
        "appid": "wxd678efh567hg6787",
        "serial_no": "5157F09EFDC096DE15EBE81A47057A7232F1B8E1",
        "private_key": private_pem(KEYS.merchant.private_key),
        "apiv3_key": "0123456789abcdef0123456789abcdef",
    }
    with pytest.raises(ConfigError, match="sqlite:////"):
        Kit(Merchant(**settings))
    with pytest.raises(ConfigError, match="absolute"):
        Kit(Merchant(**settings), store="sqlite:///shop.db")
    with pytest.raises(ConfigError, match="absolute"):
        Kit(Merchant(**settings, store="sqlite:///shop.db"))


def test_a_settle_since_without_a_zone_is_refused(make_kit):
    with pytest.raises(ConfigError, match="timezone-aware"):
        make_kit(settle_since=datetime(2026, 1, 1))  # noqa: DTZ001 - the mistake


def test_a_plugin_after_the_first_settlement_is_refused(kit):
    kit.create_order(**ORDER)
    kit.close_order(NUMBER)
    with pytest.raises(ConfigError, match="after the first"):
        kit.register(Recorder())


def test_a_closed_kit_opens_again(kit):
    kit.create_order(**ORDER)
    kit.close()
    kit.close()
    assert kit.query_order(out_trade_no=NUMBER).settlement == "open"
