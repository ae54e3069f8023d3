"""One line a delivery, that says what an operator needs and nothing that is secret."""

from __future__ import annotations

import logging
import re
import traceback

import msgspec
import pytest

from core.refusals import UntouchedStore
from deliveries import (
    KEYS,
    MCHID,
    NOW,
    Clock,
    Expecting,
    Recorder,
    delivery,
    merchant,
    receiving_kit,
    refund,
    signed,
    transaction,
)
from wechatpay_kit import (
    Kit,
    OrderRecord,
    RefundRecord,
    SqliteStore,
    VerificationKey,
    hookimpl,
    log,
    open_notification,
)
from wechatpay_kit.models import Envelope, decode
from wechatpay_kit.receiver import NotificationKeys
from wechatpay_kit_sandbox.keys import private_pem

OPENID = transaction()["payer"]["openid"]
QUOTED = r"""'[^']*'|"[^"]*\""""


@pytest.fixture
def lines(caplog):
    """The lines of one kind that were logged so far, as their fields."""
    caplog.set_level(logging.DEBUG, "wechatpay_kit")

    def of(kind: str = "delivery") -> list[dict]:
        fields = [record.wechatpay_kit for record in caplog.records if fields_of(record)]
        return [said for said in fields if said["line"] == kind]

    return of


def fields_of(record) -> dict | None:
    return getattr(record, "wechatpay_kit", None)


def test_an_accepted_delivery_is_one_line_with_its_documented_fields(store, lines, caplog):
    kit = receiving_kit(store, Recorder(), Expecting())
    headers, body = delivery()
    kit.receiver.receive(headers, body)
    (said,) = lines()
    assert said.pop("milliseconds") >= 0
    assert said == {
        "line": "delivery",
        "mchid": MCHID,
        "outcome": "fired",
        "status": 204,
        "event_type": "TRANSACTION.SUCCESS",
        "notification_id": decode(body, Envelope).id,
        "out_trade_no": "T1001",
        "serial": KEYS.public_key.serial,
        "size": len(body),
        "fence": 1,
    }
    (record,) = caplog.records
    assert record.name == "wechatpay_kit"
    assert record.levelno == logging.INFO
    assert "\n" not in record.getMessage()
    for field in ("outcome=fired", "status=204", "out_trade_no=T1001", "fence=1"):
        assert f" {field}" in record.getMessage()


def test_a_refused_delivery_is_one_line_that_says_why(lines, caplog):
    kit = receiving_kit(UntouchedStore(), Recorder())
    headers, body = delivery()
    kit.receiver.receive(headers, body + b" ")
    (said,) = lines()
    assert (said["outcome"], said["reason"], said["step"], said["status"]) == (
        "refused",
        "bad_signature",
        "signature",
        401,
    )
    assert said["serial"] == KEYS.public_key.serial
    assert said["size"] == len(body) + 1
    (record,) = caplog.records
    assert record.levelno == logging.WARNING


def test_an_unknown_serials_line_names_the_serial_and_those_held(lines):
    kit = receiving_kit(UntouchedStore(), Recorder())
    _, body = delivery()
    kit.receiver.receive(signed(body, serial="ABCDEF"), body)
    (said,) = lines()
    for serial in ("ABCDEF", KEYS.public_key.serial, KEYS.certificate.serial):
        assert serial in said["detail"]


def test_a_duplicate_a_conflict_and_a_failure_each_have_their_outcome(store, lines):
    class Failing(Recorder):
        @hookimpl
        def on_closed(self, event): ...

        @hookimpl
        def on_refund(self, event):
            raise OSError("the ledger is down")

    kit = receiving_kit(store, Failing(), Expecting())
    for plaintext, event_type in [
        (transaction(), "TRANSACTION.SUCCESS"),
        (transaction(), "TRANSACTION.SUCCESS"),
        (transaction("T1002", total=99), "TRANSACTION.SUCCESS"),
        (refund(), "REFUND.SUCCESS"),
    ]:
        kit.receiver.receive(*delivery(plaintext, event_type))
    said = [(line["outcome"], line.get("reason"), line["status"]) for line in lines()]
    assert said == [
        ("fired", None, 204),
        ("duplicate", None, 204),
        ("conflict", "mismatch", 204),
        ("failed", "hook_error", 500),
    ]


def test_a_failure_is_an_error_with_its_trace(store, caplog):
    class Failing:
        @hookimpl
        def on_paid(self, event):
            raise OSError("the warehouse is down")

    receiving_kit(store, Failing(), Expecting()).receiver.receive(*delivery())
    (record,) = [r for r in caplog.records if fields_of(r)["line"] == "delivery"]
    assert record.levelno == logging.ERROR
    assert "the warehouse is down" in "".join(traceback.format_exception(record.exc_info[1]))


@pytest.mark.parametrize(
    "number",
    [
        "T1001\ndelivery mchid=1 outcome=fired",
        "T1001\r\nERROR all is lost",
        "T1001 outcome=fired",
        "T1001\u2028delivery",
        "T1001\x85delivery",
        "T1001\x0bdelivery",
        "T1001\x1b[2Jdelivery",
        "订单",
    ],
    ids=ascii,
)
def test_a_number_from_outside_cannot_forge_a_second_line_or_a_second_field(number, store, caplog):
    caplog.set_level(logging.DEBUG, "wechatpay_kit")
    kit = receiving_kit(store, Recorder(), Expecting())
    kit.receiver.receive(*delivery(transaction(number)))
    kit.receiver.receive(*delivery(transaction(number, mchid="1\n2"), id=f"N\n{number}"))
    headers, body = delivery()
    kit.receiver.receive([(n, v.replace("PUB", "\nPUB ")) for n, v in headers], body)
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert len(text.splitlines()) == len(caplog.records) == 3
    assert text.isascii()
    assert re.sub(QUOTED, "…", text).count(" outcome=") == 3  # what is quoted is one value
    assert caplog.records[0].wechatpay_kit["out_trade_no"] == number


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        (1, "1"),
        ("two words", "'two words'"),
        ("a\nb", r"'a\nb'"),
        ("茶", r"'\u8336'"),
        ("\ud800", r"'\ud800'"),
        ("\x7f", r"'\x7f'"),
        ("it's", "it's"),
    ],
)
def test_a_value_is_shown_so_that_it_stays_in_its_place(value, shown, caplog):
    log.write(logging.WARNING, "line", field=value, absent=None)
    assert caplog.records[0].getMessage() == f"line field={shown}"
    assert caplog.records[0].wechatpay_kit == {"line": "line", "field": value}


# No secret anywhere


def secrets(*bodies: bytes) -> list[str]:
    pems = [private_pem(KEYS.merchant.private_key), KEYS.certificate.pem, KEYS.public_key.pem]
    return [
        KEYS.merchant.apiv3_key.decode(),
        *(line for pem in pems for line in pem.decode().splitlines() if "-----" not in line),
        *(decode(body, Envelope).resource.ciphertext for body in bodies),
    ]


def test_no_repr_shows_a_secret_or_who_paid(store):
    recorder = Recorder()
    shop = merchant(apiv3_key_previous="f" * 32)
    kit = Kit(shop, plugins=[recorder, Expecting()], store=store, clock=Clock())
    told = [
        delivery(),
        delivery(),
        delivery(refund(), "REFUND.SUCCESS"),
        delivery(transaction("T1002", total=99)),
        delivery({"openid": OPENID}, "COUPON.USE"),
        ([], b""),
    ]
    for headers, body in told:
        kit.receiver.receive(headers, body)
    assert set(recorder.names()) == {
        "on_paid",
        "on_duplicate",
        "on_refund",
        "on_conflict",
        "on_notification",
        "on_rejected",
    }
    keys = NotificationKeys(shop.keys, shop.decryptor)
    notifications = [open_notification(headers, body, keys, NOW) for headers, body in told[:-1]]
    order = OrderRecord(
        mchid=MCHID,
        out_trade_no="T1001",
        appid="wx1",
        total=100,
        currency="CNY",
        state="open",
        created_at=NOW,
        body=b'{"payer":{"openid":"%s"}}' % OPENID.encode(),
    )
    refunded = RefundRecord(
        mchid=MCHID, out_refund_no="R1", refund=1, total=1, state="placing", created_at=NOW
    )
    things = [
        *(shop, kit, kit.receiver, kit.client, kit.store, shop.signer, shop.decryptor, shop.keys),
        *(keys, *(VerificationKey.from_certificates(KEYS.certificate.pem))),
        *(event for _, event in recorder.events),
        *notifications,
        *(order, refunded, kit.store.order(MCHID, "T1001"), *kit.unsettled()),
        *(decode(body, Envelope) for _, body in told[:-1]),
    ]
    hidden = [*secrets(*(body for _, body in told[:-1])), "f" * 32, OPENID]
    for thing in things:
        for said in (repr(thing), str(thing), f"{[thing]}"):
            assert [secret for secret in hidden if secret in said] == [], type(thing)
    kit.close()


def test_no_log_line_shows_a_secret_a_body_or_who_paid(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)

    class Failing(Recorder):
        @hookimpl
        def on_closed(self, event): ...

        @hookimpl
        def on_duplicate(self, event):
            raise OSError("metrics are down")

        @hookimpl
        def on_refund(self, event):
            raise OSError("the ledger is down")

        @hookimpl
        def on_rejected(self, event):
            raise OSError("the alarm is down")

    store = SqliteStore(tmp_path / "wechatpay.db")
    down = SqliteStore(tmp_path / "no such folder" / "wechatpay.db")
    sealed = [
        delivery(),
        delivery(),
        delivery(transaction("T1002", total=99)),
        delivery(refund(), "REFUND.SUCCESS"),
        delivery({"mchid": MCHID, "openid": OPENID}, "COUPON.USE"),
        delivery(transaction(mchid="1900000001")),
        delivery(transaction(trade_state="NOTPAY")),
        delivery(transaction(amount={"total": "1", "openid": OPENID})),
        delivery(transaction(), resource={"nonce": "0"}),
        delivery(transaction(), apiv3_key=b"another key of exactly 32 bytes!"),
        delivery(f"not JSON {OPENID}".encode()),
    ]
    forged = [(headers, body + OPENID.encode()) for headers, body in sealed[:2]]
    for kept in (store, down):
        kit = receiving_kit(kept, Failing(), Expecting())
        for headers, body in [*sealed, *forged, ([], OPENID.encode())]:
            kit.receiver.receive(headers, body)
    store.close()
    text = caplog.text  # with the traces
    assert "down" in text
    hidden = [*secrets(*(body for _, body in sealed)), OPENID, "another key of exactly"]
    assert [secret for secret in hidden if secret in text] == []
    for record in caplog.records:
        said = repr(fields_of(record))
        assert [secret for secret in hidden if secret in said] == []


def test_errors_of_decoding_show_the_path_and_not_the_value():
    body = b'{"id": "1", "event_type": "x", "resource": {"ciphertext": {"secret": 1}}}'
    with pytest.raises(Exception, match="ciphertext") as caught:
        decode(body, Envelope)
    assert "secret" not in str(caught.value)
    assert not isinstance(caught.value, msgspec.ValidationError)


def test_a_probe_of_wechat_pays_is_told_from_a_forgery(store, recorder, caplog):
    headers, body = delivery()
    probe = [
        (name, "WECHATPAY/SIGNTEST/" + value if name == "Wechatpay-Signature" else value)
        for name, value in headers
    ]
    forged = signed(b"another body")
    kit = receiving_kit(store, recorder)
    caplog.set_level("INFO", logger="wechatpay_kit")
    assert [kit.receiver.receive(pairs, body).status for pairs in (probe, forged)] == [401, 401]
    said = [record.wechatpay_kit for record in caplog.records]
    assert [(line["reason"], line.get("probe")) for line in said] == [
        ("bad_signature", True),
        ("bad_signature", None),
    ]
