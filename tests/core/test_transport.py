"""What is sent is what is signed, and what comes back is concluded from as the table says."""

from __future__ import annotations

import inspect
import json
import logging
import os
import socket
import threading
import time
import warnings
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from ipaddress import ip_address

import pytest
import requests
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from core.gateway import (
    Gateway,
    closed_port,
    closes,
    forged,
    message,
    resets,
    sends,
    signed,
    truncated,
    unsigned,
)
from core.keys import (
    MERCHANT_SERIAL,
    NONCE,
    NOW,
    PLATFORM_SERIAL,
    PUBLIC_KEY_ID,
    certificate,
    merchant,
    private_pem,
    public_pem,
    signed_headers,
)
from wechatpay_kit.client import Client
from wechatpay_kit.errors import (
    ApiError,
    ConfigError,
    MessageError,
    OrderClosedError,
    OrderPaidError,
    OutcomeUnknownError,
    ParameterError,
    SignatureError,
    SignError,
    SystemUnavailableError,
    TransportError,
    WeChatPayError,
)
from wechatpay_kit.transport import Reply, Transport, TransportOptions
from wechatpay_kit.verifier import KeyRing, VerificationKey
from wechatpay_kit.wire import Wire, request_target

PATH = "/v3/certificates"
REFUSAL = json.dumps({"code": "PARAM_ERROR", "message": "no", "detail": {"field": "/x"}}).encode()
PAID = b'{"code": "ORDERPAID", "message": "paid"}'
CLOSED = b'{"code": "ORDER_CLOSED", "message": "closed"}'
FAILURE = b'{"code": "SYSTEM_ERROR", "message": "later"}'


class Pauses(list):
    """Takes the place of ``sleep``; remembers for how long it was asked."""

    __call__ = list.append


def transport(*urls: str, **options) -> Transport:
    base_url, backup_url = (*urls, None)[:2]
    mine = merchant(base_url=base_url, backup_url=backup_url, **options.pop("merchant", {}))
    settings = {
        "keys": mine.keys,
        "clock": lambda: NOW,
        "nonce": lambda: NONCE,
        "sleep": Pauses(),
        "jitter": lambda: 1.0,
    }
    return Transport(mine, **settings | options)


@contextmanager
def against(*script, **options):
    with Gateway(*script) as gateway:
        sender = transport(gateway.url, **options)
        try:
            yield gateway, sender
        finally:
            sender.close()


# What is sent

TARGETS = [
    ("/v3/a|b", "/v3/a%7Cb"),
    ("/v3/a%7Cb", "/v3/a%7Cb"),
    ("/v3/a%7cb", "/v3/a%7Cb"),
    ("/v3/订单?name=毛绒 QQ", "/v3/%E8%AE%A2%E5%8D%95?name=%E6%AF%9B%E7%BB%92%20QQ"),
    ("/v3/a*b-_.~", "/v3/a*b-_.~"),
    ("/v3/100%", "/v3/100%25"),
    ("/v3/a%b|%7C", "/v3/a%25b%7C%7C"),
    ("/v3/a?x=1&y=a/b?c&z=%2B+", "/v3/a?x=1&y=a/b?c&z=%2B+"),
    ("/v3/a#b", "/v3/a%23b"),
    ("/v3/a//b/", "/v3/a//b/"),
    ("/v3/a?", "/v3/a"),
    ("/v3/...", "/v3/..."),
    ('/v3/"<>\\^`{}[]', "/v3/%22%3C%3E%5C%5E%60%7B%7D%5B%5D"),
    ("/v3/a\r\nHost: evil", "/v3/a%0D%0AHost:%20evil"),
    ("/v3/a?b=..&c=/../d", "/v3/a?b=..&c=/../d"),
]


@pytest.mark.parametrize(("asked", "sent"), TARGETS)
def test_the_target_on_the_wire_is_the_signed_one(asked, sent):
    with against(signed()) as (gateway, sender):
        sender.exchange("GET", asked)
        (request,) = gateway.requests
    assert request.target == sent
    assert request.is_signed()


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40), st.text(max_size=40) | st.none())
def test_any_target_arrives_as_it_was_signed(path, query):
    asked = f"/v3/{path}" + (f"?{query}" if query is not None else "")
    try:
        target = request_target(asked)
    except ParameterError:
        return
    assert request_target(target) == target
    request = _on_the_wire(target)
    assert request.target == target
    assert request.is_signed()


def _on_the_wire(target):
    if not _SHARED:
        gateway = Gateway(signed())
        gateway.__enter__()
        _SHARED.append((gateway, transport(gateway.url)))
    gateway, sender = _SHARED[0]
    sender.exchange("GET", target)
    return gateway.requests.pop()


_SHARED: list = []


@pytest.fixture(scope="module", autouse=True)
def _shared_gateway():
    yield
    for gateway, sender in _SHARED:
        sender.close()
        gateway.__exit__(None, None, None)


@pytest.mark.parametrize(
    "target",
    ["", "v3/a", "//evil.example/v3", "/v3/../a", "/v3/./a", "/v3/%2E%2e/a", "/..", "/v3/\ud800"],
)
def test_a_target_that_someone_on_the_way_would_rewrite_is_refused(target):
    with pytest.raises(ParameterError) as caught:
        request_target(target)
    assert caught.value.field == "path"


def test_a_request_carries_what_the_gateway_asks_for():
    body = '{"a": "毛绒"}'.encode()
    with against(signed()) as (gateway, sender):
        reply = sender.exchange("POST", "/v3/x", body=body)
        (request,) = gateway.requests
    assert request.body == body
    assert request.is_signed()
    assert request.authorization["timestamp"] == str(int(NOW.timestamp()))
    assert request.authorization["nonce_str"] == NONCE
    assert request.authorization["serial_no"] == MERCHANT_SERIAL
    assert request.headers["accept"] == "application/json"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["wechatpay-serial"] == PUBLIC_KEY_ID
    assert request.headers["user-agent"].startswith("wechatpay-kit/")
    assert " Python/3" in request.headers["user-agent"]
    assert (reply.status, reply.body, reply.request_id) == (200, b"{}", "08F5-0")
    assert reply.verified


def test_the_serial_of_sealed_fields_replaces_the_own_key_id():
    with against(signed()) as (gateway, sender):
        sender.exchange("POST", "/v3/x", body=b"{}", serial=PLATFORM_SERIAL)
        (request,) = gateway.requests
    assert request.headers["wechatpay-serial"] == PLATFORM_SERIAL


def test_in_certificate_mode_no_serial_is_sent():
    mode = {"public_key": None, "public_key_id": None, "platform_cert": certificate()}
    with against(signed(owner="platform", serial=PLATFORM_SERIAL), merchant=mode) as (
        gateway,
        sender,
    ):
        assert sender.exchange("GET", PATH).verified
        assert "wechatpay-serial" not in gateway.requests[0].headers


def test_an_upload_signs_its_meta_alone():
    with against(signed()) as (gateway, sender):
        sender.exchange("POST", "/v3/x", body=b"multipart", signed_body=b"meta", content_type="m/f")
        (request,) = gateway.requests
    assert request.is_signed(signed_body=b"meta")
    assert (request.body, request.headers["content-type"]) == (b"multipart", "m/f")


def test_an_answer_of_204_is_verified_over_an_empty_body():
    with against(sends(message(204, signed_headers(b""), b""))) as (gateway, sender):
        for _ in range(2):
            assert sender.exchange("POST", "/v3/x", body=b"{}").status == 204
        assert gateway.connections == 1


def test_credentials_and_cookies_of_the_environment_are_not_sent(tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    headers = [*signed_headers(b"{}"), ("Set-Cookie", "session=1; Path=/")]
    with against(sends(message(200, headers, b"{}"))) as (gateway, sender):
        for _ in range(2):
            sender.exchange("GET", PATH)
        assert all(request.is_signed() for request in gateway.requests)
        assert all("cookie" not in request.headers for request in gateway.requests)


def test_a_merchant_that_may_only_receive_sends_nothing():
    with against(signed(), merchant={"receive_only": True, "private_key": None}) as (
        gateway,
        sender,
    ):
        with pytest.raises(ConfigError):
            sender.exchange("POST", "/v3/x", body=b"{}")
        assert gateway.requests == []


# What comes back: (method, idempotent, script, error, its status and code, requests made)

READ, ONCE, AGAIN = ("GET", False), ("POST", False), ("POST", True)
GOOD = signed()
BROKEN = unsigned(FAILURE, 500)

OUTCOMES = {
    "read 2xx": (READ, [GOOD], None, None, 1),
    "post 2xx": (ONCE, [GOOD], None, None, 1),
    "read unsigned": (READ, [unsigned(b"{}")], SignatureError, None, 2),
    "read forged": (READ, [forged()], SignatureError, None, 2),
    "read forged once": (READ, [forged(), GOOD], None, None, 2),
    "read forged, 500, forged": (READ, [forged(), BROKEN, forged()], SignatureError, None, 3),
    "post unsigned": (ONCE, [unsigned(b"{}")], OutcomeUnknownError, (200, None), 1),
    "post forged, idempotent": (AGAIN, [forged()], OutcomeUnknownError, (200, None), 2),
    "post forged once, idempotent": (AGAIN, [forged(), GOOD], None, None, 2),
    "read 400 signed": (READ, [signed(REFUSAL, 400)], ApiError, (400, "PARAM_ERROR"), 1),
    "read 400 unsigned": (READ, [unsigned(REFUSAL, 400)], ApiError, (400, "PARAM_ERROR"), 1),
    "post 401 unsigned": (
        AGAIN,
        [unsigned(b'{"code": "SIGN_ERROR", "message": "x"}', 401)],
        SignError,
        (401, "SIGN_ERROR"),
        1,
    ),
    "post 400 paid": (AGAIN, [signed(PAID, 400)], OrderPaidError, (400, "ORDERPAID"), 1),
    "post 429": (AGAIN, [unsigned(b"{}", 429)], ApiError, (429, "HTTP_429"), 1),
    "read 404 empty": (READ, [unsigned(b"", 404)], ApiError, (404, "HTTP_404"), 1),
    "read 405 html": (READ, [unsigned(b"<html>", 405)], ApiError, (405, "HTTP_405"), 1),
    "read 400 list": (READ, [unsigned(b"[]", 400)], ApiError, (400, "HTTP_400"), 1),
    "read 400 odd": (
        READ,
        [unsigned(b'{"code": 5, "message": [], "detail": "x"}', 400)],
        ApiError,
        (400, "HTTP_400"),
        1,
    ),
    "read 400 latin": (READ, [unsigned(b'{"code": "\xff"}', 400)], ApiError, (400, "HTTP_400"), 1),
    "read 302": (
        READ,
        [unsigned(b"", 302, ("Location", "/v3/other"))],
        ApiError,
        (302, "HTTP_302"),
        1,
    ),
    "post 307": (
        AGAIN,
        [unsigned(b"", 307, ("Location", "/v3/other"))],
        ApiError,
        (307, "HTTP_307"),
        1,
    ),
    "read 500": (READ, [BROKEN], SystemUnavailableError, (500, "SYSTEM_ERROR"), 3),
    "read 502 html": (
        READ,
        [unsigned(b"<html>", 502)],
        SystemUnavailableError,
        (502, "HTTP_502"),
        3,
    ),
    "read 500 once": (READ, [BROKEN, GOOD], None, None, 2),
    "post 500": (ONCE, [BROKEN], OutcomeUnknownError, (500, "SYSTEM_ERROR"), 1),
    "post 500 signed": (
        ONCE,
        [signed(FAILURE, 500)],
        OutcomeUnknownError,
        (500, "SYSTEM_ERROR"),
        1,
    ),
    "post 500, idempotent": (AGAIN, [BROKEN], OutcomeUnknownError, (500, "SYSTEM_ERROR"), 3),
    "post 500 twice, idempotent": (AGAIN, [BROKEN, BROKEN, GOOD], None, None, 3),
    "read reset": (READ, [resets], TransportError, None, 3),
    "read reset once": (READ, [resets, GOOD], None, None, 2),
    "read truncated": (READ, [truncated()], TransportError, None, 3),
    "read closed": (READ, [closes], TransportError, None, 3),
    "read no http": (READ, [sends(b"SMTP ready\r\n\r\n")], TransportError, None, 3),
    "read 500, then reset": (READ, [BROKEN, resets], TransportError, None, 3),
    "read reset, then 500": (
        READ,
        [resets, BROKEN],
        SystemUnavailableError,
        (500, "SYSTEM_ERROR"),
        3,
    ),
    "post reset": (ONCE, [resets], OutcomeUnknownError, (None, None), 1),
    "post truncated": (ONCE, [truncated()], OutcomeUnknownError, (None, None), 1),
    "post reset, idempotent": (AGAIN, [resets], OutcomeUnknownError, (None, None), 3),
    "post truncated twice": (AGAIN, [truncated(), truncated(), GOOD], None, None, 3),
    # A refusal of the repeat says nothing of the first attempt, which may have been carried out …
    "post reset, then 400": (
        AGAIN,
        [resets, signed(REFUSAL, 400)],
        OutcomeUnknownError,
        (400, "PARAM_ERROR"),
        2,
    ),
    "post 500, then 429": (
        AGAIN,
        [BROKEN, unsigned(b"{}", 429)],
        OutcomeUnknownError,
        (429, "HTTP_429"),
        2,
    ),
    # … unless it states, signed, what became of the order.
    "post reset, then paid": (
        AGAIN,
        [resets, signed(PAID, 400)],
        OrderPaidError,
        (400, "ORDERPAID"),
        2,
    ),
    "post forged, then closed": (
        AGAIN,
        [forged(), signed(CLOSED, 400)],
        OrderClosedError,
        (400, "ORDER_CLOSED"),
        2,
    ),
    "post reset, then paid, unsigned": (
        AGAIN,
        [resets, unsigned(PAID, 400)],
        OutcomeUnknownError,
        (400, "ORDERPAID"),
        2,
    ),
    "read reset, then 400": (
        READ,
        [resets, signed(REFUSAL, 400)],
        ApiError,
        (400, "PARAM_ERROR"),
        2,
    ),
}


@pytest.mark.parametrize(
    ("call", "script", "error", "said", "attempts"), OUTCOMES.values(), ids=OUTCOMES.keys()
)
def test_outcome(call, script, error, said, attempts):
    method, idempotent = call
    with against(*script) as (gateway, sender):
        with pytest.raises(error) if error else nullcontext() as caught:
            reply = sender.exchange(
                method, "/v3/x", body=b"{}" if method == "POST" else b"", idempotent=idempotent
            )
        assert len(gateway.requests) == attempts
        assert all(request.is_signed() for request in gateway.requests)
    if error is None:
        assert reply.verified
        return
    assert type(caught.value) is error or error is ApiError
    if said is not None:
        assert (caught.value.status, caught.value.code) == said


@pytest.mark.parametrize("answer", [signed(REFUSAL, 400), unsigned(REFUSAL, 400)])
def test_a_refusal_says_all_that_it_was_told(answer):
    with against(answer) as (_, sender), pytest.raises(ApiError) as caught:
        sender.exchange("GET", PATH)
    error = caught.value
    assert (error.message, error.detail) == ("no", {"field": "/x"})
    assert error.verified is (error.request_id == "08F5-0")


@pytest.mark.parametrize("answer", [forged(REFUSAL, 400), signed(REFUSAL, 400, owner="merchant")])
def test_a_refusal_signed_by_someone_else_is_not_verified(answer):
    with against(answer) as (_, sender), pytest.raises(ApiError) as caught:
        sender.exchange("GET", PATH)
    assert not caught.value.verified


def test_a_stale_answer_is_no_answer():
    stale = signed(at=datetime(2026, 11, 24, 1, 54, 59, tzinfo=UTC))
    with against(stale) as (_, sender), pytest.raises(SignatureError) as caught:
        sender.exchange("GET", PATH)
    assert caught.value.reason == "clock"


def test_a_doubled_signature_header_is_not_joined_but_refused():
    headers = [*signed_headers(b"{}"), ("Wechatpay-Nonce", "x")]
    with (
        against(sends(message(200, headers, b"{}"))) as (_, sender),
        pytest.raises(SignatureError) as caught,
    ):
        sender.exchange("GET", PATH)
    assert caught.value.reason == "malformed_header"


def test_an_error_shows_neither_body_nor_query_nor_authorization():
    cut = truncated(b'{"openid": "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"}')
    with against(cut) as (_, sender), pytest.raises(OutcomeUnknownError) as caught:
        sender.exchange("POST", "/v3/x?token=secret", body=b"{}")
    text = str(caught.value)
    assert "secret" not in text
    assert "oUpF" not in text
    assert "IncompleteRead" in text
    assert "oUpF" not in repr(Reply(status=200, headers=(), body=b"oUpF"))


def test_a_reply_that_is_no_json_says_so():
    assert Reply(status=200, headers=(), body=b'{"a": 1}').json() == {"a": 1}
    with pytest.raises(MessageError):
        Reply(status=200, headers=(), body=b"<html>").json()


# Keys that are not held yet


def ring_of(*keys):
    return KeyRing(keys)


def test_an_unknown_key_is_asked_for_once_and_the_same_bytes_are_verified_again():
    ring, asked = ring_of(), []

    def fetch():
        asked.append(1)
        ring.add(VerificationKey.from_public_key(PUBLIC_KEY_ID, public_pem("public_key")))
        return True

    with against(signed(), keys=ring, on_unknown_key=fetch) as (gateway, sender):
        assert sender.exchange("GET", PATH).verified
        assert (len(asked), len(gateway.requests)) == (1, 1)


@pytest.mark.parametrize("says", [True, False])
def test_an_unknown_key_that_stays_unknown_is_asked_for_once_in_an_exchange(says):
    asked = []
    with against(signed(), keys=ring_of(), on_unknown_key=lambda: asked.append(1) or says) as (
        gateway,
        sender,
    ):
        with pytest.raises(SignatureError) as caught:
            sender.exchange("GET", PATH)
        assert caught.value.reason == "unknown_key"
        assert PUBLIC_KEY_ID in str(caught.value)
        assert (len(asked), len(gateway.requests)) == (1, 2)


def test_only_an_unknown_key_is_asked_for():
    with (
        against(forged(), on_unknown_key=lambda: pytest.fail("asked")) as (_, sender),
        pytest.raises(SignatureError),
    ):
        sender.exchange("GET", PATH)


@pytest.mark.parametrize(
    ("answer", "error"), [(signed(REFUSAL, 400), ApiError), (signed(), SignatureError)]
)
def test_a_check_of_the_callers_own_asks_nobody_for_keys(answer, error):
    def check(headers, body):
        raise SignatureError("no", reason="unknown_key")

    with (
        against(answer, keys=ring_of(), on_unknown_key=lambda: pytest.fail("asked")) as (_, sender),
        pytest.raises(error),
    ):
        sender.exchange("GET", PATH, check=check)


# Repeats, hosts and pauses


def test_each_attempt_is_signed_afresh():
    times = iter(range(100))
    nonces = iter("abc")
    with against(
        BROKEN,
        BROKEN,
        GOOD,
        clock=lambda: datetime.fromtimestamp(NOW.timestamp() + next(times), UTC),
        nonce=lambda: next(nonces),
    ) as (gateway, sender):
        sender.exchange("POST", "/v3/x", body=b"{}", idempotent=True)
        said = [request.authorization for request in gateway.requests]
        assert all(request.is_signed() for request in gateway.requests)
    assert [fields["nonce_str"] for fields in said] == ["a", "b", "c"]
    assert len({fields["timestamp"] for fields in said}) == 3
    assert len({fields["signature"] for fields in said}) == 3


def test_pauses_grow_are_capped_and_are_a_random_part_of_that():
    pauses, parts = Pauses(), iter([1.0, 0.5, 1.0, 0.25, 1.0])
    with (
        against(BROKEN, attempts=6, sleep=pauses, jitter=lambda: next(parts)) as (_, sender),
        pytest.raises(SystemUnavailableError),
    ):
        sender.exchange("GET", PATH)
    assert pauses == [0.5, 0.5, 2.0, 1.0, 4.0]


@pytest.mark.parametrize("first", [BROKEN, resets, closes])
def test_a_failure_fails_over_to_the_backup_host_and_back(first):
    with Gateway(first, first, GOOD) as main, Gateway(first) as backup:
        sender = transport(main.url, backup.url, attempts=5)
        sender.exchange("GET", PATH)
        assert (len(main.requests), len(backup.requests)) == (3, 2)
        sender.close()


@pytest.mark.parametrize("idempotent", [True, False])
def test_a_call_that_never_left_may_always_be_repeated_elsewhere(idempotent):
    with closed_port() as dead, Gateway(GOOD) as backup:
        sender = transport(dead, backup.url)
        sender.exchange("POST", "/v3/x", body=b"{}", idempotent=idempotent)
        assert len(backup.requests) == 1
        sender.close()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_where_no_attempt_left_nothing_was_done(method):
    pauses = Pauses()
    with closed_port() as dead, pytest.raises(TransportError, match="nothing was done"):
        transport(dead, sleep=pauses).exchange(method, "/v3/x", body=b"{}", idempotent=True)
    assert len(pauses) == 2


def test_a_call_of_which_one_attempt_left_is_in_doubt():
    with Gateway(resets) as main, closed_port() as dead:
        sender = transport(main.url, dead)
        with pytest.raises(OutcomeUnknownError):
            sender.exchange("POST", "/v3/x", body=b"{}", idempotent=True)
        sender.close()


def test_a_name_that_does_not_resolve_is_not_reached(monkeypatch):
    def fails(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    with pytest.raises(TransportError, match="not known"):
        transport("https://gateway.example").exchange("POST", "/v3/x", body=b"{}")


# Time


def test_a_silent_server_is_waited_for_as_long_as_the_read_time_out():
    with against(GOOD, read_timeout=0.05, attempts=1) as (gateway, sender):
        gateway.script = [gateway.silent]
        with pytest.raises(OutcomeUnknownError, match="timed out"):
            sender.exchange("POST", "/v3/x", body=b"{}")
        with pytest.raises(TransportError):
            sender.exchange("GET", PATH)


def test_an_answer_that_drips_is_not_waited_for_longer_than_the_read_time_out():
    with against(GOOD, read_timeout=0.3, attempts=1) as (gateway, sender):
        body = b" " * 2000
        head = message(200, signed_headers(body), b"", length=len(body))
        gateway.script = [lambda r, s: (s.sendall(head), gateway.dripping(body)(r, s))]
        started = time.monotonic()
        with pytest.raises(TransportError, match="did not end"):
            sender.exchange("GET", PATH)
        assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("method", "error"), [("GET", TransportError), ("POST", OutcomeUnknownError)]
)
def test_a_budget_holds_even_against_headers_that_drip(method, error):
    with against(GOOD) as (gateway, sender):
        gateway.script = [gateway.dripping(message(200, signed_headers(b"{}"), b"{}"))]
        started = time.monotonic()
        with pytest.raises(error):
            sender.exchange(method, "/v3/x", body=b"", idempotent=True, timeout=0.3)
        assert time.monotonic() - started < 2
        assert len(gateway.requests) == 1


@pytest.mark.parametrize(
    ("method", "error"), [("GET", TransportError), ("POST", OutcomeUnknownError)]
)
def test_headers_that_drip_hold_nobody_although_no_budget_was_given(method, error, monkeypatch):
    """The budget is what all attempts may take: here 0.4 s for the one, and no pause."""
    monkeypatch.setattr("wechatpay_kit.transport._LONGEST_PAUSE", 0.0)
    with against(GOOD, connect_timeout=0.1, read_timeout=0.3, attempts=1) as (gateway, sender):
        gateway.script = [gateway.dripping(b"HTTP/1.1 200 OK\r\nX-Padding: " + b"a" * 5000)]
        started = time.monotonic()
        with pytest.raises(error):
            sender.exchange(method, "/v3/x", body=b"", idempotent=True)
        assert 0.3 < time.monotonic() - started < 5  # the headers take 100 s
        assert len(gateway.requests) == 1


@pytest.mark.parametrize(
    ("method", "error"), [("GET", TransportError), ("POST", OutcomeUnknownError)]
)
def test_an_answer_without_end_is_refused_by_its_size(method, error):
    sent = []

    def endless(_, sock):
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            sent.append(sock.send(b"a" * 65536))

    with (
        against(endless, attempts=1, read_timeout=60) as (_, sender),
        pytest.raises(error, match="larger than 8388608 bytes"),
    ):
        sender.exchange(method, "/v3/x", body=b"", idempotent=True)
    assert 8 * 2**20 < sum(sent) < 64 * 2**20  # the rest is in the buffers of the sockets


def test_what_was_given_up_before_it_left_is_never_sent(monkeypatch):
    asked, resolved, resolve = threading.Event(), threading.Event(), socket.getaddrinfo

    def hangs(*args, **kwargs):
        asked.set()
        assert resolved.wait(30)
        return resolve(*args, **kwargs)

    with against(GOOD) as (gateway, sender):
        monkeypatch.setattr(socket, "getaddrinfo", hangs)
        before = set(threading.enumerate())
        with pytest.raises(TransportError, match="nothing was done"):
            sender.exchange("POST", "/v3/x", body=b"{}", idempotent=True, timeout=0.2)
        assert asked.is_set()
        (left,) = [t for t in threading.enumerate() if t not in before and "_serve" not in t.name]
        resolved.set()
        left.join(10)
        assert not left.is_alive()
        assert gateway.requests == []


def test_a_budget_covers_all_attempts_and_pauses():
    now, pauses = [0.0], Pauses()

    def fails_late(request, sock):
        now[0] += 2.3
        BROKEN(request, sock)

    with (
        against(fails_late, sleep=pauses, monotonic=lambda: now[0]) as (gateway, sender),
        pytest.raises(SystemUnavailableError),
    ):
        sender.exchange("GET", PATH, timeout=5.0)
    assert (len(gateway.requests), pauses) == (2, [0.5])  # a third would begin 5.6 s after


def test_within_its_budget_a_call_answers_as_any():
    with against(BROKEN, GOOD) as (_, sender):
        assert sender.exchange("GET", PATH, timeout=30).verified
    with against(signed(REFUSAL, 400)) as (_, sender), pytest.raises(ApiError):
        sender.exchange("GET", PATH, timeout=30)


def test_a_budget_that_is_used_up_sends_nothing():
    clock = iter([0.0, 0.0])
    with (
        against(GOOD, monotonic=lambda: next(clock, 9.0)) as (gateway, sender),
        pytest.raises(TransportError, match="is over"),
    ):
        sender.exchange("POST", "/v3/x", body=b"{}", timeout=5.0)
    assert gateway.requests == []


# Connections


def test_a_connection_is_kept_and_is_not_used_after_it_was_idle_for_7_seconds(monkeypatch):
    with against(GOOD) as (gateway, sender):
        sender.exchange("GET", PATH)
        sender.exchange("GET", PATH)
        assert gateway.connections == 1
        later = time.monotonic() + 7.5
        monkeypatch.setattr(time, "monotonic", lambda: later)
        sender.exchange("GET", PATH)
        assert gateway.connections == 2


def test_threads_share_one_session_and_do_not_mix_answers():
    def echo(request, sock):
        body = json.dumps({"target": request.target}).encode()
        sock.sendall(message(200, signed_headers(body), body))

    with against(echo) as (gateway, sender):
        answers, start = {}, threading.Barrier(24)

        def work(number):
            start.wait()
            for turn in range(5):
                target = f"/v3/{number}/{turn}"
                answers[target] = sender.exchange("GET", target).json()["target"]

        threads = [threading.Thread(target=work, args=(n,)) for n in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(answers) == 120
        assert all(asked == got for asked, got in answers.items())
        assert gateway.connections <= 24


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_child_opens_its_own_connection_and_leaves_the_parents_alone():
    with against(GOOD) as (gateway, sender):
        sender.exchange("GET", PATH)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: the gateway has threads
            child = os.fork()
        if child == 0:
            status = 1
            try:
                sender.exchange("GET", "/v3/child")
                sender.close()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        sender.exchange("GET", "/v3/parent")
        on = {request.target: request.connection for request in gateway.requests}
        assert on["/v3/parent"] == on[PATH] != on["/v3/child"]


@pytest.fixture
def tls(tmp_path):
    names = [x509.IPAddress(ip_address("127.0.0.1"))]
    now = datetime.now(UTC)
    files = tmp_path / "certificate.pem", tmp_path / "key.pem"
    files[0].write_bytes(
        certificate(
            not_before=now.replace(year=now.year - 1, day=1),
            not_after=now.replace(year=now.year + 1, day=1),
            names=names,
        )
    )
    files[1].write_bytes(private_pem("platform"))
    return files


def test_a_server_that_no_authority_vouches_for_is_not_spoken_to(tls, monkeypatch):
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, "")
    with Gateway(GOOD, tls=tls) as gateway:
        sender = transport(gateway.url)
        with pytest.raises(TransportError, match="CERTIFICATE_VERIFY_FAILED"):
            sender.exchange("POST", "/v3/x", body=b"{}")
        assert gateway.requests == []
        sender.close()


def test_the_usual_variable_names_another_authority(tls, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tls[0]))
    with Gateway(GOOD, tls=tls) as gateway:
        sender = transport(gateway.url)
        assert sender.exchange("GET", PATH).verified
        sender.close()


def test_an_authority_file_that_is_missing_is_named(monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    with pytest.raises(TransportError, match="/nowhere/ca"):
        transport("https://127.0.0.1:9").exchange("POST", "/v3/x", body=b"{}")


def test_no_argument_reaches_the_switch_of_tls_verification():
    calls = (Client, Client.request, Transport, Transport.exchange, Wire, Wire.send)
    names = {name for call in calls for name in inspect.signature(call).parameters}
    names |= TransportOptions.__annotations__.keys()
    assert not {"verify", "session", "ssl_context", "cert_reqs"} & names


def test_a_proxy_is_taken_from_the_environment(monkeypatch):
    with Gateway(GOOD) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://user:secret@{proxy.host}")
        monkeypatch.setenv("http_proxy", f"http://user:secret@{proxy.host}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        sender = transport("http://127.0.0.1:9")
        sender.exchange("GET", PATH)
        sender.close()
        assert proxy.requests[0].target == f"http://127.0.0.1:9{PATH}"
        assert "proxy-authorization" in proxy.requests[0].headers


@pytest.mark.parametrize("answer", [unsigned(b"", 403), closes])
def test_a_proxy_that_refuses_the_tunnel_sent_nothing(answer, monkeypatch):
    with Gateway(answer) as proxy:
        for name in ("https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://user:secret@{proxy.host}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        with pytest.raises(TransportError) as caught:
            transport("https://127.0.0.1:9").exchange("POST", "/v3/x", body=b"{}")
        assert proxy.requests[0].method == "CONNECT"
        assert "secret" not in str(caught.value)


def test_behind_a_socks_proxy_the_worst_is_assumed(monkeypatch):
    monkeypatch.setattr("requests.adapters.SOCKSProxyManager", lambda *a, **k: _Socks())
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:9")
    with pytest.raises(OutcomeUnknownError, match="no SOCKS here"):
        transport("http://127.0.0.1:9").exchange("POST", "/v3/x", body=b"{}")


class _Socks:
    def connection_from_host(self, **options):
        raise requests.exceptions.ConnectionError("no SOCKS here")


# Files


def test_a_download_is_signed_but_its_answer_is_not_and_it_arrives_raw():
    file = b"\x1f\x8b not decoded " * 10_000
    with against(unsigned(file, 200, ("Content-Encoding", "gzip"))) as (gateway, sender):
        with sender.download("/v3/billdownload/file?token=a%2Bb", host=gateway.url) as chunks:
            assert b"".join(chunks) == file
        (request,) = gateway.requests
    assert request.is_signed()
    assert request.target == "/v3/billdownload/file?token=a%2Bb"
    assert request.headers["accept-encoding"] == "identity"


def test_a_download_is_begun_again_but_not_continued():
    with (
        against(BROKEN, resets, unsigned(b"file")) as (gateway, sender),
        sender.download(PATH, host=gateway.url) as chunks,
    ):
        assert b"".join(chunks) == b"file"
    with against(truncated(b"half")) as (gateway, sender):
        with pytest.raises(TransportError), sender.download(PATH, host=gateway.url) as chunks:
            list(chunks)
        assert len(gateway.requests) == 1


def test_a_refused_download_says_why():
    with (
        against(unsigned(REFUSAL, 400)) as (gateway, sender),
        pytest.raises(ApiError) as caught,
        sender.download(PATH, host=gateway.url),
    ):
        pytest.fail("there is no file")
    assert caught.value.code == "PARAM_ERROR"


def test_a_download_that_is_dropped_closes_its_connection():
    with against(unsigned(b"x" * 1_000_000)) as (gateway, sender):
        with sender.download(PATH, host=gateway.url) as chunks:
            next(chunks)
        with sender.download(PATH, host=gateway.url) as chunks:
            next(chunks)
        assert gateway.connections == 2


# The log


def lines(caplog):
    return [record.wechatpay_kit for record in caplog.records if hasattr(record, "wechatpay_kit")]


def test_an_exchange_writes_one_line(caplog):
    caplog.set_level(logging.INFO, logger="wechatpay_kit")
    target = "/v3/users/oUpF8uMuAJO_M2pxb1Q9zNjWeS6o/coupons?openid=oUpF8uMuAJO"
    with against(BROKEN, GOOD) as (gateway, sender):
        sender.exchange("GET", target)
        (line,) = lines(caplog)
    assert line == {
        "line": "call",
        "method": "GET",
        "path": "/v3/users/***/coupons",
        "host": gateway.host,
        "outcome": "ok",
        "status": 200,
        "request_id": "08F5-0",
        "attempts": 2,
        "milliseconds": line["milliseconds"],
    }
    assert "oUpF" not in caplog.text
    assert "WECHATPAY2" not in caplog.text


@pytest.mark.parametrize(
    ("script", "method", "outcome", "code"),
    [
        ([signed(REFUSAL, 400)], "GET", "refused", "PARAM_ERROR"),
        ([forged()], "GET", "unverified", None),
        ([resets], "POST", "unknown", None),
        ([resets], "GET", "unreachable", None),
    ],
)
def test_a_failed_exchange_writes_one_line_too(script, method, outcome, code, caplog):
    with against(*script) as (_, sender), pytest.raises(WeChatPayError):
        sender.exchange(method, "/v3/x")
    (line,) = lines(caplog)
    assert (line["outcome"], line.get("code")) == (outcome, code)


def test_a_download_writes_one_line(caplog):
    caplog.set_level(logging.INFO, logger="wechatpay_kit")
    with (
        against(unsigned(b"file")) as (gateway, sender),
        sender.download("/v3/file?token=secret", host=gateway.url) as chunks,
    ):
        list(chunks)
    (line,) = lines(caplog)
    assert (line["path"], line["outcome"]) == ("/v3/file", "ok")
