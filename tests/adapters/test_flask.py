"""The Flask adapter behind a real socket: bytes, limits, methods, and what relaxes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Blueprint, Flask, g, request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.json_texts import bodies
from adapters.serving import NOTIFY, answer, chunks, connected, head, post, served
from deliveries import (
    MCHID,
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
from wechatpay_kit import ConfigError, Kit, SqliteStore, hookimpl
from wechatpay_kit_flask import WeChatPay, notify_blueprint

CONTENT_TYPES = (
    "application/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "text/plain; charset=utf-16",
    "",
)
SIGNATURE = ("Wechatpay-Timestamp", "Wechatpay-Nonce", "Wechatpay-Signature", "Wechatpay-Serial")
OTHER = "1900000109"  # another merchant's mchid


@pytest.fixture
def kit(store, recorder):
    return receiving_kit(store, recorder, Expecting())


def shop(kit, **config):
    app = Flask("shop")
    app.config.update(config)
    app.register_blueprint(notify_blueprint(kit), url_prefix="/wechatpay")
    return app


@pytest.fixture
def port(kit):
    with served(shop(kit)) as port:
        yield port


def rejections(recorder):
    return [event.reason for event in recorder.of("on_rejected")]


# Deliveries


def test_a_notification_is_answered_204_and_fires_on_paid_once(port, recorder):
    first, second = post(port, *delivery()), post(port, *delivery())
    assert (first.status, first.body) == (204, b"")
    assert second.status == 204
    assert recorder.names() == ["on_paid", "on_duplicate"]
    assert recorder.of("on_paid")[0].transaction.transaction_id == transaction()["transaction_id"]


def test_an_empty_answer_names_no_content_type(port):
    assert "Content-Type" not in post(port, *delivery()).headers


def test_a_refusal_says_fail_in_json(port, recorder):
    headers, body = delivery()
    refused = post(port, headers, body.replace(b"2026", b"2027", 1))
    assert refused.status == 401
    assert refused.headers["Content-Type"] == "application/json"
    assert json.loads(refused.body)["code"] == "FAIL"
    assert recorder.names() == ["on_rejected"]
    assert rejections(recorder) == ["bad_signature"]


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
@pytest.mark.parametrize("chunk", [None, 1, 7, 100_000])
def test_whatever_the_content_type_and_framing_the_bytes_arrive(
    port, recorder, content_type, chunk
):
    headers, body = delivery()
    headers = changed(headers, "Content-Type", content_type)
    assert post(port, headers, body, chunk=chunk).status == 204
    assert recorder.names() == ["on_paid"]


def test_header_names_in_any_case(port):
    headers, body = delivery()
    for spelt in (str.lower, str.upper, str.swapcase):
        assert post(port, [(spelt(n), v) for n, v in headers], body).status == 204


def test_64_copies_at_once_fire_once(port, recorder):
    copies = [delivery() for _ in range(64)]
    with ThreadPoolExecutor(32) as threads:
        statuses = {a.status for a in threads.map(lambda copy: post(port, *copy), copies)}
    assert statuses <= {204, 503}
    assert len(recorder.of("on_paid")) == 1


def test_a_raising_hook_is_500_and_comes_again(store):
    class Fulfilment:
        failures = 1

        @hookimpl
        def on_paid(self, event):
            if self.failures:
                self.failures -= 1
                raise OSError("the warehouse is shut")

    kit = receiving_kit(store, Fulfilment(), Expecting())
    with served(shop(kit)) as port:
        first = post(port, *delivery())
        assert first.status == 500
        assert b"warehouse" not in first.body
        assert post(port, *delivery()).status == 204


def test_an_async_hook_runs(store):
    paid = []

    class Fulfilment:
        @hookimpl
        async def on_paid(self, event):
            paid.append(event.out_trade_no)

    with served(shop(receiving_kit(store, Fulfilment(), Expecting()))) as port:
        assert post(port, *delivery()).status == 204
    assert paid == ["T1001"]


# Byte exactness


@pytest.fixture(scope="module")
def lasting_port(tmp_path_factory):
    """One shop for a thousand deliveries; its recorder is not looked at."""
    store = SqliteStore(tmp_path_factory.mktemp("exact") / "wechatpay.db")
    with served(shop(receiving_kit(store, Recorder(), Expecting()))) as port:
        yield port
    store.close()


@settings(max_examples=1000, suppress_health_check=[HealthCheck.too_slow])
@given(
    body=bodies(envelope(transaction())),
    content_type=st.sampled_from(CONTENT_TYPES),
    chunk=st.sampled_from([None, None, 64, 4096]),
)
def test_the_verifier_gets_the_very_bytes(lasting_port, body, content_type, chunk):
    # The signature is over the bytes as made here, so one byte changed on the way is a 401.
    headers = changed(signed(body), "Content-Type", content_type)
    assert post(lasting_port, headers, body, chunk=chunk).status == 204


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(body=bodies(envelope(transaction())), data=st.data())
def test_one_bit_changed_on_the_way_is_refused(lasting_port, body, data):
    place = data.draw(st.integers(0, len(body) - 1))
    bent = bytearray(body)
    bent[place] ^= 1 << data.draw(st.integers(0, 7))
    assert post(lasting_port, signed(body), bytes(bent)).status == 401


# The body's limit

LIMIT = 4096


@pytest.fixture
def small_kit(store, recorder):
    return receiving_kit(store, recorder, Expecting(), max_body=LIMIT)


@pytest.fixture
def small_port(small_kit):
    with served(shop(small_kit)) as port:
        yield port


def padded(size):
    """A genuine delivery whose body has ``size`` bytes."""
    spare = size - len(envelope(transaction(), summary=""))
    body = envelope(transaction(), summary="x" * spare)
    assert len(body) == size
    return signed(body), body


@pytest.mark.parametrize("chunk", [None, 1000])
@pytest.mark.parametrize(("size", "status"), [(LIMIT - 1, 204), (LIMIT, 204), (LIMIT + 1, 413)])
def test_limit_to_the_byte(small_port, recorder, size, status, chunk):
    assert post(small_port, *padded(size), chunk=chunk).status == status
    expected = ["on_rejected"] if status == 413 else ["on_paid"]
    assert recorder.names() == expected


def test_too_large_is_the_receivers_own_refusal(small_port, recorder):
    refused = post(small_port, *padded(LIMIT + 1))
    assert json.loads(refused.body)["code"] == "FAIL"
    (event,) = recorder.of("on_rejected")
    assert (event.reason, event.status) == ("too_large", 413)


def test_no_more_than_the_limit_is_waited_for(small_port, recorder):
    headers, body = padded(LIMIT + 1)
    with connected(small_port) as connection:
        announced = ("Content-Length", str(10**12))
        connection.sendall(head("POST", NOTIFY, [*headers, announced]) + body)
        assert answer(connection).status == 413
    assert rejections(recorder) == ["too_large"]


def test_a_chunked_body_without_end_is_refused(small_port, recorder):
    headers, _ = delivery()
    with connected(small_port) as connection:
        framing = ("Transfer-Encoding", "chunked")
        connection.sendall(head("POST", NOTIFY, [*headers, framing]))
        connection.sendall(chunks(b"x" * (LIMIT + 1), 512).removesuffix(b"0\r\n\r\n"))
        assert answer(connection).status == 413
    assert rejections(recorder) == ["too_large"]


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
@pytest.mark.parametrize("chunk", [None, 100])
def test_the_apps_limits_are_for_its_forms(kit, content_type, chunk):
    limits = {"MAX_CONTENT_LENGTH": 10, "MAX_FORM_MEMORY_SIZE": 10, "MAX_FORM_PARTS": 1}
    headers, body = delivery()
    headers = changed(headers, "Content-Type", content_type)
    with served(shop(kit, **limits)) as port:
        assert post(port, headers, body, chunk=chunk).status == 204


def test_without_length_or_chunks_there_is_no_body(port, recorder):
    headers, body = delivery()
    with connected(port) as connection:
        connection.sendall(head("POST", NOTIFY, headers) + body)
        assert answer(connection).status == 401
    assert rejections(recorder) == ["bad_signature"]


@pytest.mark.parametrize("length", ["-1", "ten", "1e3", ""])
def test_a_senseless_length_is_no_body(port, recorder, length):
    headers, body = delivery()
    with connected(port) as connection:
        framing = ("Content-Length", length)
        connection.sendall(head("POST", NOTIFY, [*headers, framing]) + body)
        assert answer(connection).status == 401
    assert recorder.names() == ["on_rejected"]


# Headers and methods


@pytest.mark.parametrize("name", SIGNATURE)
def test_a_doubled_header_is_refused(port, recorder, name):
    headers, body = delivery()
    (value,) = (v for n, v in headers if n == name)
    assert post(port, [*headers, (name, value)], body).status == 400
    assert rejections(recorder) == ["malformed_header"]


@pytest.mark.parametrize("name", SIGNATURE)
def test_an_underscore_is_no_dash(port, recorder, name):
    headers, body = delivery()
    (value,) = (v for n, v in headers if n == name)
    renamed = [*without(headers, name), (name.replace("-", "_"), value)]
    assert post(port, renamed, body).status == 400
    assert rejections(recorder) == ["missing_header"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_only_post_is_answered(port, recorder, method):
    refused = post(port, *delivery(), method=method)
    assert refused.status == 405
    assert refused.headers["Allow"] == "POST"
    assert recorder.events == []


def test_the_address_has_one_spelling(port, recorder):
    for path in (f"{NOTIFY}/", "/wechatpay//notify", "/wechatpay", "/notify"):
        assert post(port, *delivery(), path=path).status in {308, 404}
    assert recorder.events == []


@pytest.mark.parametrize(
    "config",
    [
        {"DEBUG": True},
        {"TESTING": True},
        {"PROPAGATE_EXCEPTIONS": True, "TRAP_HTTP_EXCEPTIONS": True},
        {"SERVER_NAME": "shop.example"},
    ],
    ids=lambda config: "+".join(config),
)
def test_no_setting_relaxes_a_check(kit, recorder, config):
    headers, body = delivery()
    with served(shop(kit, **config)) as port:
        assert post(port, headers, b"{}").status == 401
        assert post(port, without(headers, "Wechatpay-Signature"), body).status == 400
        assert post(port, *delivery(), method="GET").status in {405, 500}  # trapped: 500
    assert set(recorder.names()) == {"on_rejected"}


@pytest.mark.parametrize(
    "header",
    [
        ("Host", "127.0.0.1"),
        ("Host", "localhost:1"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Forwarded-Host", "api.mch.weixin.qq.com"),
        ("X-Real-IP", "101.226.103.1"),
        ("X-HTTP-Method-Override", "GET"),
        ("Content-Encoding", "gzip"),
        ("Authorization", "WECHATPAY2-SHA256-RSA2048 x"),
    ],
    ids=lambda header: ": ".join(header),
)
def test_no_header_relaxes_a_check(port, recorder, header):
    headers, body = delivery()
    assert post(port, [header, *headers], body + b" ").status == 401
    assert post(port, [header, *headers], body).status == 204
    assert recorder.names() == ["on_rejected", "on_paid"]


# Clients that hang up


def test_a_client_that_hangs_up_is_no_forger(port, recorder):
    headers, body = delivery()
    framing = ("Content-Length", str(len(body)))
    for part in (b"", body[:1], body[:-1]):
        with connected(port) as connection:
            connection.sendall(head("POST", NOTIFY, [*headers, framing]) + part)
    assert post(port, headers, body).status == 204
    assert recorder.names() == ["on_paid"]


@pytest.mark.parametrize("broken", [b"5\r\nabc", b"zz\r\n", b"", b"-1\r\n", b"3\r\nabcde\r\n"])
def test_a_broken_chunk_is_400_and_told_to_nobody(port, recorder, broken):
    headers, _ = delivery()
    with connected(port) as connection:
        framing = ("Transfer-Encoding", "chunked")
        connection.sendall(head("POST", NOTIFY, [*headers, framing]) + broken)
        connection.shutdown(1)  # no more will come
        assert answer(connection).status == 400
    assert recorder.events == []


# Middleware of the app


def reading_app(kit, read):
    app = shop(kit)
    app.before_request(lambda: (read(), None)[1])
    return app


@pytest.mark.parametrize(
    "read",
    [
        lambda: request.get_data(),
        lambda: request.get_json(silent=True),
        lambda: request.data,
        lambda: request.form,
        lambda: request.values,
        lambda: request.content_length,
    ],
    ids=["get_data", "get_json", "data", "form", "values", "nothing"],
)
@pytest.mark.parametrize("chunk", [None, 100])
def test_what_reads_the_request_first_does_not_eat_it(kit, read, chunk):
    with served(reading_app(kit, read)) as port:
        assert post(port, *delivery(), chunk=chunk).status == 204


@pytest.mark.parametrize("chunk", [None, 100])
def test_what_drains_the_stream_first_leaves_nothing_to_verify(kit, recorder, chunk):
    with served(reading_app(kit, lambda: request.stream.read())) as port:
        assert post(port, *delivery(), chunk=chunk).status == 401
    assert rejections(recorder) == ["bad_signature"]


@pytest.mark.parametrize("chunk", [None, 100])
def test_what_reads_the_request_afterwards_finds_the_bytes(kit, chunk):
    app, seen = shop(kit), []

    @app.after_request
    def audit(response):
        seen.append((request.get_data(), request.get_json()["event_type"]))
        return response

    headers, body = delivery()
    with served(app) as port:
        assert post(port, headers, body, chunk=chunk).status == 204
    assert seen == [(body, "TRANSACTION.SUCCESS")]


def test_middleware_can_let_the_endpoint_pass(kit):
    """As the docstring says for CSRF (by the view's dotted name) and for logins."""
    app = shop(kit)

    @app.before_request
    def protect():
        view = app.view_functions[request.endpoint]
        g.view = f"{view.__module__}.{view.__name__}"
        exempt = g.view == "wechatpay_kit_flask.notify" and request.endpoint == "wechatpay.notify"
        return None if exempt else ("who are you?", 403)

    with served(app) as port:
        assert post(port, *delivery()).status == 204


# Registration


def test_two_merchants_in_one_app(tmp_path):
    recorders = {name: Recorder() for name in ("wechatpay", "second")}
    stores = {name: SqliteStore(tmp_path / f"{name}.db") for name in recorders}
    first = receiving_kit(stores["wechatpay"], recorders["wechatpay"], Expecting())
    second = receiving_kit(stores["second"], recorders["second"], Expecting(), mchid=OTHER)
    app = shop(first)
    app.register_blueprint(notify_blueprint(second, name="second"), url_prefix="/second")
    assert {"wechatpay.notify", "second.notify"} <= app.view_functions.keys()
    with served(app) as port:
        theirs = delivery(transaction(mchid=OTHER))
        assert post(port, *delivery()).status == 204
        assert post(port, *theirs, path="/second/notify").status == 204
        assert post(port, *theirs).status == 422
    for store in stores.values():
        store.close()
    assert recorders["wechatpay"].names() == ["on_paid", "on_rejected"]
    assert [event.mchid for event in recorders["second"].of("on_paid")] == [OTHER]
    assert MCHID != OTHER


def test_a_name_is_registered_once(kit):
    app = shop(kit)
    with pytest.raises(ValueError, match="'wechatpay' is already registered"):
        app.register_blueprint(notify_blueprint(kit), url_prefix="/elsewhere")


@pytest.mark.parametrize("prefix", ["/wechatpay", "/wechatpay/"])
def test_an_address_is_one_merchants(kit, prefix):
    app = shop(kit)
    with pytest.raises(ConfigError, match=r"POST /wechatpay/notify is wechatpay\.notify already"):
        app.register_blueprint(notify_blueprint(kit, "second"), url_prefix=prefix)


def test_an_address_may_have_a_page_for_people(kit):
    app = Flask("shop")
    app.add_url_rule("/wechatpay/notify", "about", lambda: "for WeChat Pay", methods=["GET"])
    app.register_blueprint(notify_blueprint(kit), url_prefix="/wechatpay")
    with served(app) as port:
        assert post(port, *delivery()).status == 204


def test_in_a_blueprint_of_the_shops(kit):
    app, parent = Flask("shop"), Blueprint("payments", __name__)
    parent.register_blueprint(notify_blueprint(kit), url_prefix="/wechatpay")
    app.register_blueprint(parent, url_prefix="/payments")
    with served(app) as port:
        assert post(port, *delivery(), path=f"/payments{NOTIFY}").status == 204


def test_nobody_listening_is_an_error_at_registration(store):
    class Metrics:
        @hookimpl
        def on_duplicate(self, event): ...

    kit, app = receiving_kit(store, Metrics()), Flask("shop")
    blueprint = notify_blueprint(kit)
    with pytest.raises(ConfigError, match="no plugin implements on_paid"):
        app.register_blueprint(blueprint, url_prefix="/wechatpay")
    with pytest.raises(ConfigError, match="no plugin implements on_paid"):
        WeChatPay(kit, name="second").init_app(app)
    assert "wechatpay_kit" not in app.extensions
    assert app.test_client().post(NOTIFY).status_code == 404


def test_plugins_may_come_until_the_blueprint_is_registered(store, recorder):
    kit = receiving_kit(store, Expecting())
    blueprint = notify_blueprint(kit)
    kit.register(recorder)
    Flask("shop").register_blueprint(blueprint)


# The extension


def test_extension_in_an_application_factory(tmp_path):
    wechatpay = WeChatPay()

    def create_app(name):
        app, recorder = Flask(name), Recorder()
        kit = receiving_kit(SqliteStore(tmp_path / f"{name}.db"), recorder, Expecting())
        wechatpay.init_app(app, kit)
        return app, kit, recorder

    made = [create_app("one"), create_app("two")]
    for app, kit, recorder in made:
        assert app.extensions["wechatpay_kit"] == {"wechatpay": kit}
        with app.app_context():
            assert wechatpay.kit is kit
        with served(app) as port:
            assert post(port, *delivery()).status == 204
        kit.close()
        assert recorder.names() == ["on_paid"]


def test_extension_with_its_kit_and_an_address(kit):
    wechatpay, app = WeChatPay(kit), Flask("shop")
    wechatpay.init_app(app, url_prefix="/pay")
    with served(app) as port:
        assert post(port, *delivery(), path="/pay/notify").status == 204
        assert post(port, *delivery()).status == 404


def test_extension_for_two_merchants(kit, store):
    app, other = Flask("shop"), receiving_kit(store, Recorder(), mchid=OTHER)
    WeChatPay(kit).init_app(app)
    second = WeChatPay(other, name="second")
    second.init_app(app, url_prefix="/second")
    assert app.extensions["wechatpay_kit"] == {"wechatpay": kit, "second": other}
    with app.app_context():
        assert second.kit is other


def test_extension_twice_is_an_error(kit):
    wechatpay, app = WeChatPay(kit), Flask("shop")
    wechatpay.init_app(app)
    for again in (wechatpay, WeChatPay(kit)):
        with pytest.raises(ConfigError, match="wechatpay is registered on this app already"):
            again.init_app(app, url_prefix="/elsewhere")
    with pytest.raises(ConfigError, match=r"POST /wechatpay/notify is wechatpay\.notify already"):
        WeChatPay(kit, name="second").init_app(app)
    assert list(app.extensions["wechatpay_kit"]) == ["wechatpay"]


def test_extension_without_a_kit_says_so(kit):
    wechatpay, app = WeChatPay(), Flask("shop")
    with pytest.raises(ConfigError, match=r"init_app\(app, kit\)"):
        wechatpay.init_app(app)
    with app.app_context(), pytest.raises(RuntimeError, match=r"call init_app\(app\)"):
        _ = wechatpay.kit
    with pytest.raises(RuntimeError):  # outside any app
        _ = wechatpay.kit
    assert isinstance(kit, Kit)


# Installation


def imported_without(module):
    code = f"import sys; sys.modules[{module!r}] = None; import wechatpay_kit_flask"
    env = os.environ | {"PYTHONWARNINGS": "error"}
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )


def test_without_flask_the_import_names_the_extra():
    done = imported_without("flask")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ImportError: wechatpay_kit_flask needs flask, which is not installed: "
        "pip install 'wechatpay-kit[flask]'"
    )


def test_another_missing_module_is_not_blamed_on_the_extra():
    assert "wechatpay-kit[flask]" not in imported_without("jinja2").stderr
