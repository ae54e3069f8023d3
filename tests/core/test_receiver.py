"""What a verified delivery leads to: its content, whose it is, and the answer of settlement.

Who is refused before that stands in ``test_verifier.py``. Every delivery here is signed rightly.
"""

from __future__ import annotations

import base64
import json
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.refusals import (
    SETTLING,
    Case,
    UntouchedStore,
    assert_fail_body,
    assert_leaks_nothing,
    refuse,
    table,
)
from deliveries import (
    APPID,
    KEYS,
    MCHID,
    NOW,
    Clock,
    Expecting,
    Recorder,
    changed,
    delivery,
    envelope,
    receiving_kit,
    refund,
    signed,
    transaction,
)
from wechatpay_kit import Answer, SqliteStore, hookimpl, open_notification
from wechatpay_kit.receiver import NotificationKeys

OTHER_KEY = b"another key of exactly 32 bytes!"
ABSENT = object()


def case(name: str, reason: str | None, body: bytes) -> Case:
    return Case(name, reason, signed(body), body)


def altered(data: dict, path: str, value: object) -> dict:
    """A copy of ``data`` with ``value`` at the dotted ``path``, or without it if ABSENT."""
    head, _, rest = path.partition(".")
    copy = dict(data)
    if rest:
        copy[head] = altered(data[head], rest, value)
    elif value is ABSENT:
        copy.pop(head, None)
    else:
        copy[head] = value
    return copy


def enveloped(path: str, value: object) -> bytes:
    """The body of a notification whose envelope is altered."""
    return json.dumps(altered(json.loads(envelope(transaction())), path, value)).encode()


def sealed(
    plaintext: bytes,
    *,
    nonce: bytes = b"0123456789ab",
    key: bytes = KEYS.merchant.apiv3_key,
    associated_data: bytes = b"transaction",
) -> str:
    return base64.b64encode(AESGCM(key).encrypt(nonce, plaintext, associated_data)).decode()


def say(value: object) -> str:
    return "absent" if value is ABSENT else json.dumps(value)[:20]


PAID = json.dumps(transaction()).encode()
SEALED = sealed(PAID)
RAW = base64.b64decode(SEALED)


# Bodies that are no envelope


@table(
    case(f"body {name}", "undecodable", body)
    for name, body in {
        "empty": b"",
        "of blanks": b" \r\n",
        "with a BOM": b"\xef\xbb\xbf" + envelope(transaction()),
        "in UTF-16": envelope(transaction()).decode().encode("utf-16"),
        "in GBK": envelope(transaction()).decode().encode("gbk"),
        "of invalid UTF-8": envelope(transaction()).replace("支".encode(), b"\xff\xfe"),
        "of NULs": bytes(100),
        "cut short": envelope(transaction())[:-10],
        "followed by another": envelope(transaction()) * 2,
        "followed by text": envelope(transaction()) + b"x",
        "null": b"null",
        "a number": b"1",
        "NaN": b"NaN",
        "a text": b'"notification"',
        "a list": b"[]",
        "an empty object": b"{}",
        "XML, as v2 sent": b"<xml><return_code>SUCCESS</return_code></xml>",
        "a form": b"id=1&event_type=TRANSACTION.SUCCESS",
        "a deep list": b"[" * 100_000 + b"]" * 100_000,
        "a deep object": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        "with a deep unknown field": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "with single quotes": envelope(transaction()).replace(b'"', b"'"),
        "with a lone surrogate": b'{"id": "\\ud800", "event_type": "x", "resource": {}}',
    }.items()
)
def test_a_signed_body_that_is_no_envelope_is_refused(case):
    refuse(case)


@table(
    case(f"{path} {say(value)}", "undecodable", enveloped(path, value))
    for path in (
        *("id", "event_type", "resource"),
        *("resource.algorithm", "resource.ciphertext", "resource.nonce"),
    )
    for value in (ABSENT, None, 1, True, [], ["x"], 1.5)
)
def test_a_needed_field_of_the_envelope_that_is_absent_or_of_a_wrong_type_is_refused(case):
    refuse(case)


@table(
    case(f"{path} {say(value)}", "undecodable", enveloped(path, value))
    for path in (
        *("resource_type", "create_time", "summary"),
        *("resource.associated_data", "resource.original_type"),
    )
    for value in (1, False, [], {})
)
def test_an_optional_field_of_the_envelope_of_a_wrong_type_is_refused(case):
    refuse(case)


@table(
    case(f"{path} {say(value)}", None, enveloped(path, value))
    for path in ("resource_type", "create_time", "summary", "resource.original_type")
    for value in (ABSENT, None, "", "something new")
)
def test_an_optional_field_of_the_envelope_may_be_anything_or_absent(case, store):
    accept(case, store)


def test_spacing_and_line_ends_of_the_json_say_nothing(store):
    text = json.dumps(json.loads(envelope(transaction())), indent="\t")
    accept(case("in CRLF lines", None, text.replace("\n", "\r\n").encode()), store)


@table(
    case(f"unknown field {path}", None, enveloped(path, value))
    for path, value in {
        "new": {"deep": [1, None, "x"]},
        "resource.new": [],
        "mchid": "1999999999",
        "out_trade_no": 7,
    }.items()
)
def test_unknown_fields_of_the_envelope_are_fine(case, store):
    accept(case, store)


# Resources that do not open


@table(
    [
        case(f"{path} {name}", "undecryptable", enveloped(path, value))
        for path, name, value in [
            ("resource.algorithm", "empty", ""),
            ("resource.algorithm", "in lower case", "aead_aes_256_gcm"),
            ("resource.algorithm", "of the SM variant", "AEAD_SM4_GCM"),
            ("resource.algorithm", "with a blank", "AEAD_AES_256_GCM "),
            ("resource.nonce", "empty", ""),
            ("resource.nonce", "of 11 bytes", "0" * 11),
            ("resource.nonce", "of 13 bytes", "0" * 13),
            ("resource.nonce", "of 16 bytes", "0123456789abcdef"),
            ("resource.nonce", "of 12 characters, 36 bytes", "字" * 12),
            ("resource.nonce", "another", "0123456789ac"),
            ("resource.nonce", "of a megabyte", "0" * 1_000_000),
            ("resource.associated_data", "another", "refund"),
            ("resource.associated_data", "empty", ""),
            ("resource.associated_data", "absent", ABSENT),
            ("resource.associated_data", "null", None),
            ("resource.ciphertext", "empty", ""),
            ("resource.ciphertext", "that is no base64", "not base64!"),
            ("resource.ciphertext", "beyond ASCII", "密文"),
            ("resource.ciphertext", "with a line feed", f"{SEALED[:64]}\n{SEALED[64:]}"),
            ("resource.ciphertext", "url-safe", "-_-_" + SEALED[4:]),
            ("resource.ciphertext", "of 15 bytes", base64.b64encode(bytes(15)).decode()),
            ("resource.ciphertext", "of a tag alone", base64.b64encode(bytes(16)).decode()),
            ("resource.ciphertext", "cut", base64.b64encode(RAW[:-1]).decode()),
            ("resource.ciphertext", "without its tag", base64.b64encode(RAW[:-16]).decode()),
            (
                "resource.ciphertext",
                "with one bit turned",
                base64.b64encode(bytes([RAW[0] ^ 1]) + RAW[1:]).decode(),
            ),
            (
                "resource.ciphertext",
                "with one bit of the tag turned",
                base64.b64encode(RAW[:-1] + bytes([RAW[-1] ^ 1])).decode(),
            ),
        ]
    ]
    + [case("sealed by another APIv3 key", "undecryptable", envelope({}, apiv3_key=OTHER_KEY))]
)
def test_a_resource_that_does_not_open_is_refused(case):
    refuse(case)


@pytest.mark.parametrize("given", ["", None, ABSENT], ids=say)
def test_associated_data_may_be_empty_or_absent_where_none_was_sealed(given, store):
    resource = {"ciphertext": sealed(PAID, associated_data=b""), "associated_data": given}
    body = json.loads(envelope(transaction(), resource=resource | {"associated_data": ""}))
    body = json.dumps(altered(body, "resource.associated_data", given)).encode()
    accept(case("no associated data", None, body), store)


def test_after_a_change_of_the_apiv3_key_late_notifications_still_open(store):
    for number, key in (("T1001", OTHER_KEY), ("T1002", KEYS.merchant.apiv3_key)):
        body = envelope(transaction(number), apiv3_key=key)
        accept(case(number, None, body), store, apiv3_key_previous=OTHER_KEY)


def test_with_two_keys_a_third_one_is_refused():
    body = envelope(transaction(), apiv3_key=b"a third key of exactly 32 bytes!")
    refuse(case("third key", "undecryptable", body), apiv3_key_previous=OTHER_KEY)


# Contents that are not what the event type says


def payment(name: str, plaintext: object) -> Case:
    return case(f"payment {name}", "undecodable", envelope(plaintext))


@table(
    payment(name, plaintext)
    for name, plaintext in {
        "empty": b"",
        "of invalid UTF-8": b'{"appid": "\xff"}',
        "with a BOM": b"\xef\xbb\xbf" + PAID,
        "null": None,
        "a list": [],
        "a text": "paid",
        "an empty object": {},
        "cut short": PAID[:-1],
        "deep": b'{"a":' * 100_000,
    }.items()
)
def test_a_payment_that_is_no_transaction_is_refused(case):
    refuse(case)


@table(
    payment(f"{path} {say(value)}", altered(transaction(), path, value))
    for path in ("appid", "mchid", "out_trade_no", "trade_state")
    for value in (ABSENT, None, 1, False, [], {})
)
def test_a_payment_whose_identity_is_absent_or_of_a_wrong_type_is_refused(case):
    refuse(case)


@table(
    payment(f"{path} {say(value)}", altered(transaction(), path, value))
    for path, values in {
        "transaction_id": (ABSENT, None, 4200),
        "amount": (ABSENT, None, "1.00", 100, []),
        "amount.total": (ABSENT, None, "100", 100.0, 100.5, True, 1e400),
    }.items()
    for value in values
)
def test_a_payment_that_does_not_say_how_much_by_what_is_refused(case):
    refuse(case)


@table(
    payment(f"{path} {say(value)}", altered(transaction(), path, value))
    for path, values in {
        "trade_state_desc": (1,),
        "trade_type": (1,),
        "bank_type": ([],),
        "success_time": ("", "yesterday", 1795485570, "2026-11-24T09:59:30", "2026-13-01"),
        "attach": ({},),
        "payer": ("oUpF8u", []),
        "payer.openid": (1,),
        "amount.payer_total": ("100", 1.5),
        "amount.currency": (156,),
        "amount.payer_currency": (156,),
        "scene_info": ("x",),
        "promotion_detail": ({}, [1], [{"coupon_id": 1, "amount": 1}]),
    }.items()
    for value in values
)
def test_a_payment_with_a_field_of_a_wrong_type_is_refused(case):
    refuse(case)


@table(
    case(
        f"refund {path} {say(value)}",
        "undecodable",
        envelope(altered(refund(), path, value), "REFUND.SUCCESS"),
    )
    for path, values in {
        **dict.fromkeys(
            ("mchid", "refund_id", "out_refund_no", "transaction_id"), (ABSENT, None, 1)
        ),
        **dict.fromkeys(("out_trade_no", "refund_status"), (ABSENT, None, [])),
        "amount": (ABSENT, None, 30),
        "amount.total": (ABSENT, None, "100", 1.5, True),
        "amount.refund": (ABSENT, None, "30", 1.5, False),
        "amount.payer_refund": ("30",),
        "success_time": ("soon", 0),
        "user_received_account": (1,),
    }.items()
    for value in values
)
def test_a_refund_with_a_field_absent_or_of_a_wrong_type_is_refused(case):
    refuse(case)


@table(
    case(f"refund as {name}", "undecodable", envelope(transaction(), event_type))
    for name, event_type in [
        ("success", "REFUND.SUCCESS"),
        ("abnormal", "REFUND.ABNORMAL"),
        ("closed", "REFUND.CLOSED"),
    ]
)
def test_a_transaction_under_a_refunds_event_type_is_refused(case):
    refuse(case)


@table(
    case(f"unknown field {path}", None, envelope(altered(transaction(), path, value)))
    for path, value in {
        "new": {"deep": [{}]},
        "amount.new": "x",
        "payer.new": None,
        "promotion_detail": [{"coupon_id": "1", "amount": 1, "new": 1}],
        "scene_info": {"device_id": "1", "new": []},
    }.items()
)
def test_unknown_fields_of_a_payment_are_fine(case, store):
    accept(case, store)


@table(
    case(f"payment {path} {say(value)}", None, envelope(altered(transaction(), path, value)))
    for path in ("trade_state_desc", "trade_type", "bank_type", "success_time", "payer", "attach")
    for value in (ABSENT, None)
)
def test_optional_fields_of_a_payment_may_be_absent_or_null(case, store):
    accept(case, store)


# Whose it is, and whether it is paid


def names_of(**fields: object) -> dict:
    return {"id": "1", **fields}


@table(
    [
        case("payment of another", "other_merchant", envelope(transaction(mchid="1900000001"))),
        case("payment of nobody", "other_merchant", envelope(transaction(mchid=""))),
        case("payment, mchid blank", "other_merchant", envelope(transaction(mchid=f" {MCHID}"))),
        case(
            "refund of another",
            "other_merchant",
            envelope(refund(mchid="1900000001"), "REFUND.SUCCESS"),
        ),
        case(
            "another's and unpaid",
            "other_merchant",
            envelope(transaction(mchid="1900000001", trade_state="NOTPAY")),
        ),
    ]
    + [
        case(
            f"{event_type} with {field} of another",
            "other_merchant",
            envelope(names_of(**{field: "1900000001"}), event_type),
        )
        for event_type in ("COUPON.USE", "TRANSACTION.SUCCESS")
        for field in ("mchid", "sp_mchid", "sub_mchid", "combine_mchid")
        # an ordinary payment that names no number of its own does not decode at all
        if event_type == "COUPON.USE" or field == "sp_mchid"
    ]
    + [
        case(
            "combined of another",
            "other_merchant",
            envelope({"combine_out_trade_no": "C1", "combine_mchid": "1900000001"}),
        )
    ]
)
def test_another_merchants_notification_is_refused(case):
    refuse(case)


@table(
    case(f"trade_state {state!r}", "not_success", envelope(transaction(trade_state=state)))
    for state in (
        *("NOTPAY", "CLOSED", "REFUND", "USERPAYING", "PAYERROR", "REVOKED"),
        *("", "success", "SUCCESS ", "ACCEPT"),
    )
)
def test_a_payment_that_is_not_success_is_refused(case):
    refuse(case)


# Kinds and shapes that the kit does not model


@table(
    [
        case(f"event type {event_type}", None, envelope({"mchid": MCHID, "n": 1}, event_type))
        for event_type in (
            *("COUPON.USE", "PAYSCORE.USER_PAID", "TRANSACTION.FAIL", "MCHTRANSFER.BILL.FINISHED"),
            *("COMPLAINT.CREATE", "REFUND.NEW", "transaction.success", "ONE.NEVER.HEARD.OF", ""),
        )
    ]
    + [
        case(name, None, envelope(plaintext, event_type))
        for name, plaintext, event_type in [
            ("no JSON", b"\x00\x01", "FILE.READY"),
            ("a list", [1, 2], "COUPON.SEND"),
            ("nothing", b"", "COUPON.SEND"),
            ("deep", b"[" * 100_000, "COUPON.SEND"),
            ("an mchid of another type", {"mchid": 1}, "COUPON.SEND"),
            (
                "combined",
                {"combine_out_trade_no": "C1", "combine_mchid": MCHID, "sub_orders": []},
                "TRANSACTION.SUCCESS",
            ),
            (
                "partner",
                transaction(mchid=None) | {"sp_mchid": MCHID, "sub_mchid": "1900000001"},
                "TRANSACTION.SUCCESS",
            ),
            (
                "partner, as the sub-merchant",
                {"sp_mchid": "1900000001", "sub_mchid": MCHID},
                "TRANSACTION.SUCCESS",
            ),
            ("partner refund", {"sp_mchid": MCHID, "refund_status": "SUCCESS"}, "REFUND.SUCCESS"),
        ]
    ]
)
def test_a_kind_or_shape_that_is_not_modelled_goes_decrypted_to_on_notification(case, store):
    recorder = Recorder()
    kit = receiving_kit(store, recorder)
    assert kit.receiver.receive(case.headers, case.body) == Answer(204)
    assert recorder.names() == ["on_notification"]
    event = recorder.of("on_notification")[0]
    told = open_notification(case.headers, case.body, keys_of(kit), NOW)
    assert told.content is None
    assert (event.id, event.event_type, event.plaintext) == (
        told.id,
        told.event_type,
        told.plaintext,
    )
    assert json.loads(case.body)["id"] == event.id


def test_an_unmodelled_notification_is_told_once_by_its_id(store):
    recorder = Recorder()
    kit = receiving_kit(store, recorder)
    for _ in range(2):
        assert kit.receiver.receive(*delivery({"n": 1}, "COUPON.USE")).status == 204
    assert recorder.names() == ["on_notification", "on_duplicate"]
    assert recorder.of("on_duplicate")[0].fact == "notification"


def test_an_unmodelled_notification_is_acknowledged_where_nobody_asks_for_it(store):
    kit = receiving_kit(store, OnlyPaid())
    assert kit.receiver.receive(*delivery({"n": 1}, "COUPON.USE")) == Answer(204)


# Settlement: its outcomes are no refusals, so on_rejected hears of none


class OnlyPaid:
    def __init__(self) -> None:
        self.rejected = []

    @hookimpl
    def on_paid(self, event):
        pass

    @hookimpl
    def on_rejected(self, event):
        self.rejected.append(event)


class Failing(Recorder):
    @hookimpl
    def on_paid(self, event):
        super().on_paid(event)
        raise OSError("the warehouse does not answer")


def settle(kit, recorder, *deliveries) -> Answer:
    answers = [kit.receiver.receive(headers, body) for headers, body in deliveries]
    assert "on_rejected" not in recorder.names()
    return answers[-1]


def assert_failure(answer: Answer, status: int, kit) -> None:
    assert answer.status == status
    assert_fail_body(answer)
    assert_leaks_nothing(answer.body, kit)
    assert b"warehouse" not in answer.body


def test_a_payment_is_acknowledged_with_204_and_no_body(store, recorder):
    answer = settle(receiving_kit(store, recorder, Expecting()), recorder, delivery())
    assert answer == Answer(204)
    assert recorder.names() == ["on_paid"]


def test_the_same_payment_again_is_acknowledged_and_fires_nothing_that_settles(store, recorder):
    kit = receiving_kit(store, recorder, Expecting())
    assert settle(kit, recorder, delivery(), delivery()) == Answer(204)
    assert recorder.names() == ["on_paid", "on_duplicate"]


def test_a_refund_is_acknowledged_once_a_status(store, recorder):
    kit = receiving_kit(store, recorder, Expecting())
    notice = delivery(refund(), "REFUND.SUCCESS")
    assert settle(kit, recorder, delivery(), notice, notice) == Answer(204)
    assert recorder.names() == ["on_paid", "on_refund", "on_duplicate"]


MISFITS = {
    "a fen less": (transaction(total=99), {}, "mismatch"),
    "a fen more": (transaction(total=101), {}, "mismatch"),
    "another currency": (altered(transaction(), "amount.currency", "USD"), {}, "mismatch"),
    "another appid": (transaction(appid="wx0000000000000000"), {}, "mismatch"),
    "an order of another appid": (transaction(), {"appid": "wx0000000000000000"}, "mismatch"),
    "negative": (transaction(total=-100), {}, "mismatch"),
    "nothing": (transaction(total=0), {}, "mismatch"),
    "of 30 digits": (transaction(total=10**29), {}, "mismatch"),
}


@pytest.mark.parametrize("handled", [True, False], ids=["handled", "unhandled"])
@pytest.mark.parametrize("misfit", MISFITS)
def test_money_that_does_not_fit_its_order_is_a_conflict(misfit, handled, store, recorder):
    plaintext, order, reason = MISFITS[misfit]
    recorder.conflicts_handled = handled
    kit = receiving_kit(store, recorder, Expecting(**order))
    answer = settle(kit, recorder, delivery(plaintext))
    assert recorder.names() == ["on_conflict"]
    assert recorder.of("on_conflict")[0].reason == reason
    if handled:
        assert answer == Answer(204)
    else:
        assert_failure(answer, 500, kit)


@pytest.mark.parametrize(("handled", "status"), [(True, 204), (False, 500)])
def test_money_for_an_order_nobody_knows_is_a_conflict(handled, status, store, recorder):
    recorder.conflicts_handled = handled
    answer = settle(receiving_kit(store, recorder), recorder, delivery())
    assert answer.status == status
    assert [event.reason for event in recorder.of("on_conflict")] == ["unknown_order"]


def test_a_second_payment_of_one_order_is_a_conflict(store, recorder):
    kit = receiving_kit(store, recorder, Expecting())
    other = transaction(transaction_id="4200002026112400000000000002")
    assert settle(kit, recorder, delivery(), delivery(other)) == Answer(204)
    assert recorder.names() == ["on_paid", "on_conflict"]
    assert recorder.of("on_conflict")[0].reason == "second_payment"


def test_a_delivery_while_another_is_at_it_is_asked_to_come_again(store, recorder):
    class Meanwhile:
        @hookimpl
        def on_paid(self, event):
            self.answer = kit.receiver.receive(*delivery())

    meanwhile = Meanwhile()
    kit = receiving_kit(store, recorder, Expecting(), meanwhile)
    assert settle(kit, recorder, delivery()) == Answer(204)
    assert_failure(meanwhile.answer, 503, kit)
    assert recorder.names() == ["on_paid"]


def test_a_store_that_is_not_reachable_is_503(tmp_path, recorder):
    kit = receiving_kit(SqliteStore(tmp_path / "no such folder" / "x.db"), recorder, Expecting())
    assert_failure(settle(kit, recorder, delivery()), 503, kit)
    assert recorder.events == []


def test_a_hook_that_raises_is_500_and_is_tried_again_at_the_next_delivery(store):
    failing = Failing()
    kit = receiving_kit(store, failing, Expecting())
    for _ in range(2):
        assert_failure(settle(kit, failing, delivery()), 500, kit)
    assert [event.attempt for event in failing.of("on_paid")] == [1, 2]
    assert failing.names() == ["on_paid", "on_paid"]


def test_a_raising_expected_order_is_500(store, recorder):
    class Down:
        @hookimpl
        def expected_order(self, out_trade_no):
            raise OSError("the shop's database is down")

    kit = receiving_kit(store, recorder, Down())
    assert_failure(settle(kit, recorder, delivery()), 500, kit)
    assert recorder.events == []


def test_nobody_listening_for_payments_is_500(store):
    class Alarm:
        told = ()

        @hookimpl
        def on_rejected(self, event):
            self.told = (*self.told, event)

    alarm = Alarm()
    kit = receiving_kit(store, alarm, Expecting())
    assert_failure(kit.receiver.receive(*delivery()), 500, kit)
    assert alarm.told == ()


def test_nobody_listening_for_refunds_is_500(store):
    only_paid = OnlyPaid()
    kit = receiving_kit(store, only_paid, Expecting())
    assert kit.receiver.receive(*delivery()) == Answer(204)
    assert_failure(kit.receiver.receive(*delivery(refund(), "REFUND.SUCCESS")), 500, kit)
    assert only_paid.rejected == []


# None raises


def test_a_raising_on_rejected_changes_no_answer():
    class Broken(Recorder):
        @hookimpl
        def on_rejected(self, event):
            super().on_rejected(event)
            raise OSError("no alarm today")

    broken = Broken()
    kit = receiving_kit(UntouchedStore(), broken)
    assert kit.receiver.receive([], b"").status == 400
    assert broken.names() == ["on_rejected"]


def test_headers_that_raise_are_answered():
    def headers():
        yield ("Wechatpay-Serial", "1")
        raise OSError("the client went away")

    kit = receiving_kit(UntouchedStore(), Recorder())
    assert_failure(kit.receiver.receive(headers(), b"{}"), 500, kit)


@pytest.mark.parametrize(
    "deadline", [timedelta(0), timedelta(-1), timedelta.max, timedelta(seconds=3)]
)
def test_any_deadline_is_answered(deadline, store, recorder):
    kit = receiving_kit(store, recorder, Expecting())
    answer = kit.receiver.receive(*delivery(), deadline=deadline)
    assert answer.status in {204, 503}


def test_the_first_delivery_freezes_the_plugins_even_where_it_is_refused():
    kit = receiving_kit(UntouchedStore(), Recorder())
    kit.receiver.receive([], b"")
    with pytest.raises(Exception, match="after the first delivery"):
        kit.register(OnlyPaid())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
paths = st.sampled_from(
    [
        *json.loads(envelope(transaction())),
        *(f"resource.{name}" for name in json.loads(envelope(transaction()))["resource"]),
    ]
)
field_paths = st.sampled_from([*transaction(), *(f"amount.{name}" for name in ("total", "x"))])
event_types = st.sampled_from(["TRANSACTION.SUCCESS", "REFUND.SUCCESS", "COUPON.USE"]) | st.text()
anything_signed = st.one_of(
    st.binary(max_size=200),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.builds(enveloped, paths, json_values),
    st.builds(
        lambda path, value, event_type: envelope(altered(transaction(), path, value), event_type),
        field_paths,
        json_values,
        event_types,
    ),
    st.builds(envelope, st.binary(max_size=100) | json_values, event_types),
)


@settings(max_examples=150)
@given(body=anything_signed)
@example(body=b"\xff" * 100)
def test_receive_answers_whatever_is_signed(body):
    recorder = Recorder()
    kit = receiving_kit(UntouchedStore(), recorder)
    answer = kit.receiver.receive(signed(body), body)
    # 500: what reached settlement met a store that must not be touched
    assert answer.status in {400, 422, 500}
    assert not SETTLING & set(recorder.names())
    assert (answer.status == 500) == (recorder.names() == [])


@settings(max_examples=150)
@given(
    headers=st.lists(
        st.tuples(
            st.sampled_from([name for name, _ in signed(b"")])
            | st.text(st.characters(exclude_categories=())),
            st.text(st.characters(exclude_categories=()))
            | st.sampled_from(["0", "\n", "A" * 3000]),
        ),
        max_size=8,
    ),
    body=st.binary(max_size=200),
)
def test_receive_refuses_whatever_is_not_signed(headers, body):
    recorder = Recorder()
    kit = receiving_kit(UntouchedStore(), recorder)
    assert kit.receiver.receive(iter(headers), body).status in {400, 401}
    assert recorder.names() == ["on_rejected"]


# open_notification, the pure part


def keys_of(kit) -> NotificationKeys:
    return NotificationKeys(kit.merchant.keys, kit.merchant.decryptor)


def test_open_notification_returns_the_modelled_content(store):
    kit = receiving_kit(store, Recorder())
    headers, body = delivery()
    opened = open_notification(headers, body, keys_of(kit), NOW)
    assert opened.event_type == "TRANSACTION.SUCCESS"
    assert opened.serial == KEYS.public_key.serial
    assert opened.original_type == "transaction"
    assert opened.create_time.isoformat() == "2026-11-24T09:59:30+08:00"
    assert opened.content.out_trade_no == "T1001"
    assert (opened.content.amount.total, opened.content.appid) == (100, APPID)


def test_open_notification_needs_no_store_and_no_plugin():
    headers, body = delivery(refund(), "REFUND.CLOSED")
    kit = receiving_kit(UntouchedStore())
    assert open_notification(headers, body, keys_of(kit), NOW).content.out_refund_no == "R1"


def accept(case: Case, store, **options) -> None:
    recorder = Recorder()
    kit = receiving_kit(store, recorder, Expecting(), clock=Clock(), **options)
    answer = kit.receiver.receive(case.headers, case.body)
    assert answer == Answer(204), f"{case.name}: {answer} {recorder.events}"
    assert recorder.names() == ["on_paid"], case.name


def test_a_serial_with_blanks_around_it_is_told_as_it_was_meant():
    body = b"not JSON"
    headers = changed(signed(body), "Wechatpay-Serial", f" {KEYS.public_key.serial}\t")
    recorder = Recorder()
    assert receiving_kit(UntouchedStore(), recorder).receiver.receive(headers, body).status == 400
    assert recorder.of("on_rejected")[0].serial == KEYS.public_key.serial
