"""Who is refused, and with which status: size, headers, clock, key and signature.

Every case goes through ``Receiver.receive``, as a delivery would. The cases are data; what each
must lead to is design.md's table (``refusals.ROWS``).
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.refusals import Case, UntouchedStore, check_refusal, refuse, table
from deliveries import (
    KEYS,
    NOW,
    Clock,
    Expecting,
    Recorder,
    changed,
    delivery,
    envelope,
    receiving_kit,
    signed,
    transaction,
    without,
)
from wechatpay_kit import KeyRing, SignatureError, VerificationKey
from wechatpay_kit.verifier import signed_bytes, verify
from wechatpay_kit_sandbox.keys import generate_keys

NAMES = ("Wechatpay-Timestamp", "Wechatpay-Nonce", "Wechatpay-Signature", "Wechatpay-Serial")
BODY = envelope(transaction())
GOOD = signed(BODY)
SECONDS = int(NOW.timestamp())
STRANGER = generate_keys().certificate  # a key of somebody else's platform
HEX_SERIAL = KEYS.certificate.serial


def value_of(name: str, headers=GOOD) -> str:
    return dict(headers)[name]


# Headers


def header_refusals(name: str):
    value = value_of(name)
    yield Case(f"{name} absent", "missing_header", without(GOOD, name), BODY)
    doubled = {
        "twice": [*GOOD, (name, value)],
        "twice with another value": [*GOOD, (name, "1")],
        "twice with the other value first": [(name, "1"), *GOOD],
        "twice in another case": [*GOOD, (name.upper(), value)],
        "thrice": [*GOOD, (name, value), (name.lower(), value)],
        "twice, once empty": [*GOOD, (name, "")],
    }
    for fault, headers in doubled.items():
        yield Case(f"{name} {fault}", "malformed_header", headers, BODY)
    values = {
        "empty": "",
        "blank": " \t ",
        "joined by a proxy": f"{value}, {value}",
        "joined without a space": f"{value},{value}",
        "with a comma at its end": f"{value},",
        "with a space inside": f"{value[:4]} {value[4:]}",
        "with a tab inside": f"{value[:4]}\t{value[4:]}",
        "with a line feed at its end": f"{value}\n",
        "with a second header inside": f"{value}\r\nX-Evil: 1",
        "with a NUL": f"{value}\0",
        "with a no-break space before": f"\u00a0{value}",
        "with an ideographic space after": f"{value}\u3000",
        "with a letter beyond ASCII": f"{value[:-1]}é",
        "with a lone surrogate": f"{value}\ud800",
        "huge": value * 100_000,
    }
    for fault, wrong in values.items():
        yield Case(f"{name} {fault}", "malformed_header", changed(GOOD, name, wrong), BODY)


def header_acceptances(name: str):
    value = value_of(name)
    renamed = {"in lower case": name.lower(), "in upper case": name.upper()}
    renamed["in odd case"] = "".join(c.upper() if i % 2 else c for i, c in enumerate(name.lower()))
    for how, other in renamed.items():
        headers = [(other if n == name else n, v) for n, v in GOOD]
        yield Case(f"{name} {how}", None, headers, BODY)
    around = {"a space before": f" {value}", "a tab after": f"{value}\t", "both": f" \t{value}\t "}
    for how, padded in around.items():
        yield Case(f"{name} with {how}", None, changed(GOOD, name, padded), BODY)


@table(case for name in NAMES for case in header_refusals(name))
def test_each_signature_header_must_come_once_and_well_formed(case):
    refuse(case)


@table([case for name in NAMES for case in header_acceptances(name)])
def test_the_case_of_a_name_and_blanks_around_a_value_say_nothing(case, store):
    accept(case, store)


@table(
    [
        Case(
            "all names in lower case, as in HTTP/2", None, [(n.lower(), v) for n, v in GOOD], BODY
        ),
        Case("in reverse order", None, GOOD[::-1], BODY),
        Case(
            "among others", None, [("X-Forwarded-For", "1, 2"), *GOOD, ("Cookie", "\ud800")], BODY
        ),
        Case("others twice", None, [*GOOD, ("Wechatpay-Signature-Type", "x"), ("A", "1")], BODY),
        Case("nothing else", None, [pair for pair in GOOD if pair[0] in NAMES], BODY),
    ]
)
def test_other_headers_and_their_order_say_nothing(case, store):
    accept(case, store)


def test_a_delivery_without_any_header_is_refused():
    refuse(Case("no header", "missing_header", [], BODY))


# Timestamp


def timed(seconds: int):
    return signed(BODY, at=NOW + timedelta(seconds=seconds))


@table(
    [
        Case(f"{offset:+d} s", "clock", timed(offset), BODY)
        for offset in (-301, 301, -302, 302, -3600, 3600, -86400, 86400, -365 * 86400, 365 * 86400)
    ]
    + [
        Case(f"timestamp {text}", "clock", signed(BODY, timestamp=text), BODY)
        for text in ("0", "1", "000000000000", "999999999999", str(SECONDS)[:-1], f"{SECONDS}0")
    ]
)
def test_a_timestamp_over_300_seconds_off_is_refused(case):
    refuse(case)


@table(
    [
        Case(f"{offset:+d} s", None, timed(offset), BODY)
        for offset in (-300, -299, -1, 0, 1, 299, 300)
    ]
    + [Case("leading zeros", None, signed(BODY, timestamp=f"00{SECONDS}"), BODY)]
)
def test_a_timestamp_within_300_seconds_is_accepted(case, store):
    accept(case, store)


@table(
    Case(f"timestamp {name}", "malformed_header", signed(BODY, timestamp=text), BODY)
    for name, text in {
        "with a plus sign": f"+{SECONDS}",
        "with a minus sign": f"-{SECONDS}",
        "with an underscore": f"{SECONDS // 1000}_{SECONDS % 1000:03}",
        "in full-width digits": "".join(chr(0xFF10 + int(d)) for d in str(SECONDS)),
        "in Arabic-Indic digits": "".join(chr(0x660 + int(d)) for d in str(SECONDS)),
        "as superscript": "¹²³",
        "as a float": f"{SECONDS}.0",
        "as a float without digits after": f"{SECONDS}.",
        "with an exponent": "1.795e9",
        "as an integer with an exponent": "1e9",
        "in hex": hex(SECONDS),
        "as nan": "nan",
        "as inf": "inf",
        "of 20 digits": str(SECONDS).zfill(20),
        "of 13 digits, in milliseconds": f"{SECONDS}000",
        "of 5000 digits": "9" * 5000,
        "as a date": "2026-11-24T02:00:00Z",
        "as None": "None",
        "with a quote": f'"{SECONDS}"',
    }.items()
)
def test_a_timestamp_is_ascii_digits_only(case):
    refuse(case)


def test_a_part_of_a_second_on_our_clock_does_not_shorten_the_window(store):
    clock = Clock(NOW + timedelta(microseconds=999_999))
    accept(Case("-300 s and a bit", None, timed(-300), BODY), store, clock=clock)


# Size and bytes of the body


@pytest.mark.parametrize("above", [0, 1, 1000])
def test_a_body_up_to_the_limit_is_accepted(above, store):
    accept(Case("at the limit", None, GOOD, BODY), store, max_body=len(BODY) + above)


@pytest.mark.parametrize("limit", [len(BODY) - 1, len(BODY) // 2, 1, 0])
def test_a_body_over_the_limit_is_refused(limit):
    refuse(Case("over the limit", "too_large", GOOD, BODY), max_body=limit)


def test_the_limit_is_two_mebibytes_unless_told_otherwise(store):
    padded = BODY + b" " * (2 * 1024 * 1024 - len(BODY))
    refuse(Case("2 MiB and a byte", "too_large", signed(padded + b" "), padded + b" "))
    accept(Case("2 MiB", None, signed(padded), padded), store)


@table(
    Case(f"body {name}", "bad_signature", GOOD, body)
    for name, body in {
        "emptied": b"",
        "with LF added": BODY + b"\n",
        "with CRLF added": BODY + b"\r\n",
        "with a BOM before": b"\xef\xbb\xbf" + BODY,
        "with a space before": b" " + BODY,
        "with LF turned into CRLF": BODY.replace(b"{", b"{\r\n"),
        "short of its last byte": BODY[:-1],
        "with one bit turned": bytes([BODY[0] ^ 1]) + BODY[1:],
        "with another id": BODY.replace(b'"id"', b'"iD"'),
        "re-serialised": BODY.replace(b": ", b":"),
        "twice": BODY * 2,
        "in UTF-16": BODY.decode().encode("utf-16"),
        "of invalid UTF-8": b"\xff\xfe\xfd",
        "with the next line's bytes": BODY + b"\n\n",
    }.items()
)
def test_a_body_other_than_the_signed_bytes_is_refused(case):
    refuse(case)


# Signature

SIGNATURE = value_of("Wechatpay-Signature")
RAW = base64.b64decode(SIGNATURE)
MESSAGE = b"%d\n%s\n%s\n" % (SECONDS, value_of("Wechatpay-Nonce").encode(), BODY)


def platform_signature(message: bytes = MESSAGE, padding=None, digest=None) -> str:
    key = KEYS.public_key.private_key
    return base64.b64encode(key.sign(message, padding or PKCS1v15(), digest or SHA256())).decode()


def url_safe() -> Case:
    for number in range(1000):  # one in 20 signatures has neither + nor /
        headers = signed(BODY, nonce=f"{number:032}")
        text = value_of("Wechatpay-Signature", headers)
        if "+" in text and "/" in text:
            wrong = text.replace("+", "-").replace("/", "_")
            headers = changed(headers, "Wechatpay-Signature", wrong)
            return Case("signature url-safe", "bad_signature", headers, BODY)
    raise AssertionError("no signature with + and /")


@table(
    [
        Case(f"signature {name}", "bad_signature", changed(GOOD, NAMES[2], text), BODY)
        for name, text in {
            "without padding": SIGNATURE.rstrip("="),
            "with half its padding": SIGNATURE[:-1],
            "with too much padding": f"{SIGNATURE}====",
            "with padding in the middle": f"{SIGNATURE[:8]}=={SIGNATURE[8:]}",
            "with a probe's prefix": f"WECHATPAY/SIGNTEST/{SIGNATURE}",
            "of a probe": "WECHATPAY/SIGNTEST/" + base64.b64encode(b"\1" * 237).decode(),
            "of a probe's prefix alone": "WECHATPAY/SIGNTEST/",
            "of a probe without its slash": "WECHATPAY/SIGNTEST",
            "in hex": RAW.hex(),
            "of one letter": "A",
            "of four letters": "AAAA",
            "of padding alone": "====",
            "short of a byte": base64.b64encode(RAW[:-1]).decode(),
            "with a byte more": base64.b64encode(RAW + b"\0").decode(),
            "of zeros": base64.b64encode(bytes(256)).decode(),
            "of ones": base64.b64encode(b"\xff" * 256).decode(),
            "reversed": base64.b64encode(RAW[::-1]).decode(),
            "with one bit turned": base64.b64encode(bytes([RAW[0] ^ 1]) + RAW[1:]).decode(),
            "as text that is no base64": "!" * 344,
            "of 2048 letters": "A" * 2048,
            "in PSS": platform_signature(padding=PSS(MGF1(SHA256()), PSS.MAX_LENGTH)),
            "over SHA-1": platform_signature(digest=SHA1()),
            "of the body alone": platform_signature(BODY),
            "without the last LF": platform_signature(MESSAGE[:-1]),
            "over CRLF": platform_signature(MESSAGE.replace(b"\n", b"\r\n")),
            "of another nonce": platform_signature(MESSAGE.replace(b"\nEWE", b"\nEWF")),
            "of another second": platform_signature(MESSAGE.replace(b"%d" % SECONDS, b"1")),
            "of an empty message": platform_signature(b""),
        }.items()
    ]
    + [url_safe()]
)
def test_a_signature_that_is_not_of_these_bytes_is_refused(case):
    refuse(case)


@table(
    Case(f"signature {name}", "malformed_header", changed(GOOD, NAMES[2], text), BODY)
    for name, text in {
        "with a space inside": f"{SIGNATURE[:76]} {SIGNATURE[76:]}",
        "in lines, as MIME has it": "\n".join([SIGNATURE[:76], SIGNATURE[76:]]),
        "in lines folded as a header": "\r\n ".join([SIGNATURE[:76], SIGNATURE[76:]]),
        "of 2049 letters": "A" * 2049,
        "of a megabyte": "A" * 1_000_000,
        "in full-width letters": "Ａ" * 344,
    }.items()
)
def test_a_signature_that_is_not_one_line_is_refused(case):
    refuse(case)


def test_another_nonce_than_the_signed_one_is_refused():
    headers = changed(GOOD, "Wechatpay-Nonce", "0" * 32)
    refuse(Case("another nonce", "bad_signature", headers, BODY))


def test_another_timestamp_in_the_window_than_the_signed_one_is_refused():
    headers = changed(GOOD, "Wechatpay-Timestamp", str(SECONDS + 1))
    refuse(Case("a second later", "bad_signature", headers, BODY))


def test_the_border_between_nonce_and_body_cannot_be_moved():
    moved = b"x\n" + BODY
    headers = signed(moved, nonce="abc")
    headers = changed(headers, "Wechatpay-Nonce", "abc\nx")
    refuse(Case("moved border", "malformed_header", headers, BODY))


# Serial and keys


@table(
    [
        Case(f"serial {name}", "unknown_key", signed(BODY, serial=serial), BODY)
        for name, serial in {
            "of 40 hex digits not held": "5157F09EFDC096DE15EBE81A47057A7232F1B8E1",
            "of a public key not held": "PUB_KEY_ID_0000000000000024101100397200000006",
            "0": "0",
            "of zeros": "0" * 40,
            "of a held one's digits without the last": HEX_SERIAL[:-1],
            "with a digit more": f"{HEX_SERIAL}0",
            "of the prefix alone": "PUB_KEY_ID_",
            "without the prefix": KEYS.public_key.serial.removeprefix("PUB_KEY_ID_"),
            "of the merchant's own certificate": KEYS.merchant.serial_no,
            "of 64 letters": "A" * 64,
        }.items()
    ]
    + [Case("a stranger under its own name", "unknown_key", signed(BODY, key=STRANGER), BODY)]
)
def test_a_serial_that_is_not_held_is_refused(case):
    refuse(case)


@table(
    Case(f"serial {name}", "malformed_header", signed(BODY, serial=serial), BODY)
    for name, serial in {
        "of 65 letters": "A" * 65,
        "in pairs of hex": ":".join(HEX_SERIAL[i : i + 2] for i in range(0, 40, 2)),
        "with a minus sign": f"-{HEX_SERIAL}",
        "in full-width digits": "０" * 40,
        "of a path": "../../etc/passwd",
    }.items()
)
def test_a_serial_that_cannot_be_one_is_refused(case):
    refuse(case)


@table(
    Case(f"signed by {name}", "bad_signature", signed(BODY, key=key, serial=serial), BODY)
    for name, key, serial in [
        ("a stranger, naming the certificate", STRANGER, HEX_SERIAL),
        ("a stranger, naming the public key", STRANGER, KEYS.public_key.serial),
        ("the certificate, naming the public key", KEYS.certificate, KEYS.public_key.serial),
        ("the public key, naming the certificate", KEYS.public_key, HEX_SERIAL),
    ]
)
def test_a_right_signature_by_another_key_is_refused(case):
    refuse(case)


@table(
    Case(f"serial {name}", None, signed(BODY, key=key, serial=serial), BODY)
    for name, key, serial in [
        ("of the certificate", KEYS.certificate, HEX_SERIAL),
        ("of the public key", KEYS.public_key, KEYS.public_key.serial),
        ("of the certificate in lower case", KEYS.certificate, HEX_SERIAL.lower()),
        ("of the certificate with zeros before", KEYS.certificate, f"0000{HEX_SERIAL}"),
        ("in lower case with zeros before", KEYS.certificate, f"00{HEX_SERIAL.lower()}"),
        ("of the public key in lower case", KEYS.public_key, KEYS.public_key.serial.lower()),
    ]
)
def test_certificate_and_public_key_are_held_at_once_and_chosen_by_serial(case, store):
    accept(case, store)


def test_an_expired_certificate_no_longer_verifies(store):
    expiry = x509.load_pem_x509_certificate(KEYS.certificate.pem).not_valid_after_utc
    clock = Clock(expiry - timedelta(seconds=1))
    before = Case("in time", None, signed(BODY, key=KEYS.certificate, at=clock.now), BODY)
    accept(before, store, clock=clock)

    clock.advance(seconds=1)
    headers = signed(BODY, key=KEYS.certificate, at=clock.now)
    refuse(Case("expired", "unknown_key", headers, BODY), clock=clock)


def test_a_public_key_does_not_expire(store):
    clock = Clock(datetime(2056, 1, 1, tzinfo=UTC))
    accept(Case("in 30 years", None, signed(BODY, at=clock.now), BODY), store, clock=clock)


def test_a_shop_with_the_public_key_alone_refuses_the_certificate():
    recorder = Recorder()
    kit = receiving_kit(UntouchedStore(), recorder, platform_cert=None)
    case = Case("certificate", "unknown_key", signed(BODY, key=KEYS.certificate), BODY)
    check_refusal(case, kit.receiver.receive(case.headers, case.body), recorder, kit)


# The order of the checks: of two faults the earlier one answers


@table(
    [
        Case("headers before the clock", "missing_header", without(timed(900), NAMES[1]), BODY),
        Case("clock before the key", "clock", signed(BODY, key=STRANGER, timestamp="1"), BODY),
        Case("key before the signature", "unknown_key", signed(b"other", key=STRANGER), BODY),
        Case("signature before the content", "bad_signature", GOOD, b"not JSON"),
    ]
)
def test_the_earlier_check_answers(case):
    refuse(case)


def test_the_size_is_checked_before_the_headers():
    refuse(Case("no headers, too large", "too_large", [], BODY), max_body=10)


# verify itself

RING = KeyRing(
    [
        VerificationKey.from_public_key(KEYS.public_key.serial, KEYS.public_key.pem),
        *VerificationKey.from_certificates(KEYS.certificate.pem),
    ]
)


def test_verify_returns_the_serial_that_signed():
    for key in (KEYS.public_key, KEYS.certificate):
        assert verify(signed(BODY, key=key), BODY, keys=RING, now=NOW) == key.serial


def test_an_answer_without_a_body_is_verified_over_its_empty_line():
    assert verify(signed(b""), b"", keys=RING, now=NOW) == KEYS.public_key.serial
    assert signed_bytes("1554208460", "593BEC0C", b"") == b"1554208460\n593BEC0C\n\n"


def test_an_unknown_serials_error_names_the_serial_received_and_those_held():
    with pytest.raises(SignatureError) as caught:
        verify(signed(BODY, key=STRANGER), BODY, keys=RING, now=NOW)
    assert caught.value.reason == "unknown_key"
    assert caught.value.serial == STRANGER.serial
    for serial in (STRANGER.serial, KEYS.public_key.serial, KEYS.certificate.serial):
        assert serial in str(caught.value)


def test_an_expired_certificates_error_says_since_when():
    expiry = RING.get(HEX_SERIAL, NOW).expires_at
    with pytest.raises(SignatureError, match=f"expired on {expiry:%Y-%m-%d}") as caught:
        verify(signed(BODY, key=KEYS.certificate, at=expiry), BODY, keys=RING, now=expiry)
    assert caught.value.reason == "unknown_key"


_names = st.sampled_from([*NAMES, *(name.lower() for name in NAMES), "Wechatpay-serial "])
_any_text = st.text(st.characters(exclude_categories=()), max_size=80)  # surrogates too
_values = st.one_of(
    _any_text,
    st.sampled_from([value for name, value in GOOD if name in NAMES]),
    st.sampled_from(
        ["\n", "\r\n", "", " ", "9" * 5000, "\ud800", "=" * 3000, "WECHATPAY/SIGNTEST/"]
    ),
    st.integers(SECONDS - 302, SECONDS + 302).map(str),
    st.from_regex(r"[0-9A-Za-z+/=]{0,400}", fullmatch=True),
)
any_headers = st.one_of(
    st.lists(st.tuples(st.one_of(_names, _any_text), _values), max_size=12),
    st.tuples(_values, _values, _values, _values).map(
        lambda values: list(zip(NAMES, values, strict=True))
    ),
    st.tuples(st.sampled_from(NAMES), _values).map(lambda pair: changed(GOOD, *pair)),
)
any_body = st.one_of(st.binary(max_size=300), st.just(BODY), st.just(b""))


@settings(max_examples=400)
@given(headers=any_headers, body=any_body)
@example(headers=GOOD, body=BODY)
@example(headers=GOOD * 2, body=BODY)
@example(headers=[(name, "\ud800" * 100_000) for name in NAMES], body=b"")
@example(headers=[(name, "9" * 1_000_000) for name in NAMES], body=b"\xff" * 1000)
def test_verify_returns_or_raises_signature_error_for_any_bytes_and_headers(headers, body):
    try:
        serial = verify(iter(headers), body, keys=RING, now=NOW)
    except SignatureError:
        return
    assert serial in RING.serials
    assert body == BODY


# The ring


def test_adding_keys_keeps_those_held():
    ring = KeyRing(RING.get(serial, NOW) for serial in [KEYS.public_key.serial])
    ring.add(*VerificationKey.from_certificates(KEYS.certificate.pem))
    ring.add()
    assert set(ring.serials) == {KEYS.public_key.serial, KEYS.certificate.serial}


def test_a_ring_without_keys_says_so():
    with pytest.raises(SignatureError, match="held: none"):
        KeyRing().get("1", NOW)
    assert KeyRing().newest(NOW) is None


def test_the_key_to_encrypt_for_is_the_public_key_else_the_newest_certificate():
    old = certificate(not_before=NOW - timedelta(days=900), serial=1)
    new = certificate(not_before=NOW - timedelta(days=2), serial=2)
    gone = certificate(not_before=NOW - timedelta(days=1), serial=3, days=0.5)
    ring = KeyRing(VerificationKey.from_certificates(old + new + gone))
    assert ring.newest(NOW).serial == f"{2:040X}"
    ring.add(VerificationKey.from_public_key(KEYS.public_key.serial, KEYS.public_key.pem))
    assert ring.newest(NOW).serial == KEYS.public_key.serial


def test_certificates_of_one_pem_are_all_read_and_their_serials_have_40_digits():
    both = certificate(serial=0xABC) + KEYS.certificate.pem
    serials = [key.serial for key in VerificationKey.from_certificates(both)]
    assert serials == ["ABC".zfill(40), KEYS.certificate.serial]


@pytest.mark.parametrize(
    "pem",
    [b"", b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----", KEYS.certificate.pem],
    ids=["nothing", "an empty PEM", "a certificate"],
)
def test_what_is_no_public_key_is_a_value_error(pem):
    with pytest.raises(ValueError):  # noqa: PT011 - the loader's own texts differ
        VerificationKey.from_public_key("PUB_KEY_ID_1", pem)


def test_a_key_that_is_not_rsa_is_a_value_error():
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(ValueError, match="RSA"):
        VerificationKey.from_public_key("PUB_KEY_ID_1", pem)
    with pytest.raises(ValueError, match="RSA"):
        VerificationKey.from_certificates(certificate(key=key))


def certificate(*, not_before=NOW, serial=1, days=365.0, key=None) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    key = key or KEYS.certificate.private_key
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(not_before)
        .not_valid_after(not_before + timedelta(days=days))
        .sign(key, SHA256())
        .public_bytes(Encoding.PEM)
    )


def accept(case: Case, store, *, clock=None, **options) -> None:
    recorder = Recorder()
    kit = receiving_kit(store, recorder, Expecting(), clock=clock, **options)
    answer = kit.receiver.receive(case.headers, case.body)
    assert (answer.status, answer.body) == (204, b""), f"{case.name}: {answer}"
    assert recorder.names() == ["on_paid"], case.name


def test_the_builder_of_deliveries_is_accepted(store):
    headers, body = delivery()
    accept(Case("as built", None, headers, body), store)
