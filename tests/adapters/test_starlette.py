"""The Starlette adapter's route: bytes, limits, methods, mounting, middleware.

Each property holds on asyncio (uvicorn, real sockets) and on trio (the app driven directly, for
uvicorn knows no trio); tests that are themselves async run inside either loop.
"""

from __future__ import annotations

import inspect
import json
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.routing import Mount, Router

from adapters.asgi import (
    NOTIFY,
    OLDER_BASES_LEAK,
    connected,
    deliver,
    head,
    on_asyncio,
    on_trio,
    shop_app,
)
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
)
from wechatpay_kit import ConfigError, SqliteStore
from wechatpay_kit_starlette import AsyncKit, notify_routes

CONTENT_TYPES = (
    "application/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "text/plain; charset=utf-16",
    "",
)
OTHER = "1900000109"  # another merchant's mchid


@pytest.fixture(params=[on_asyncio, on_trio])
def serving(request):
    return request.param


@pytest.fixture
def kit(store, recorder):
    return receiving_kit(store, recorder, Expecting())


@pytest.fixture
def shop(kit, serving):
    with serving(shop_app(kit)) as shop:
        yield shop


def rejections(recorder):
    return [event.reason for event in recorder.of("on_rejected")]


# Deliveries


def test_a_notification_is_answered_204_and_fires_on_paid_once(shop, recorder):
    first, second = shop.post(*delivery()), shop.post(*delivery())
    assert (first.status_code, first.content) == (204, b"")
    assert "Content-Type" not in first.headers
    assert second.status_code == 204
    assert recorder.names() == ["on_paid", "on_duplicate"]


def test_a_refusal_says_fail_in_json(shop, recorder):
    headers, body = delivery()
    refused = shop.post(headers, body.replace(b"2026", b"2027", 1))
    assert refused.status_code == 401
    assert refused.headers.get_list("Content-Type") == ["application/json"]
    assert refused.json()["code"] == "FAIL"
    assert rejections(recorder) == ["bad_signature"]


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
@pytest.mark.parametrize("chunk", [None, 1, 7, 100_000])
def test_whatever_the_content_type_and_framing_the_bytes_arrive(
    shop, recorder, content_type, chunk
):
    headers, body = delivery()
    headers = changed(headers, "Content-Type", content_type)
    assert shop.post(headers, body, chunk=chunk).status_code == 204
    assert recorder.names() == ["on_paid"]


def test_header_names_in_any_case(shop):
    headers, body = delivery()
    for spelt in (str.lower, str.upper, str.swapcase):
        assert shop.post([(spelt(n), v) for n, v in headers], body).status_code == 204


def test_a_doubled_signature_header_reaches_the_receiver_doubled(shop, recorder):
    headers, body = delivery()
    nonce = [pair for pair in headers if pair[0] == "Wechatpay-Nonce"]
    assert shop.post(headers + nonce, body).status_code == 400
    assert rejections(recorder) == ["malformed_header"]


def test_64_copies_at_once_fire_once(shop, recorder):
    copies = [delivery() for _ in range(64)]
    with ThreadPoolExecutor(32) as threads:
        statuses = {a.status_code for a in threads.map(lambda copy: shop.post(*copy), copies)}
    assert statuses <= {204, 503}
    assert len(recorder.of("on_paid")) == 1


# Byte exactness

bodies = st.binary(max_size=600) | st.builds(
    lambda extra, spaces: (
        json.dumps(json.loads(envelope(transaction())) | {"extra": extra}, ensure_ascii=False)
        .replace(": ", ":" + spaces)
        .encode()
    ),
    st.text(st.characters(codec="utf-8")),
    st.text(" \t\r\n", max_size=5),
)


@pytest.fixture(scope="module", params=[on_asyncio, on_trio])
def exact_shop(request, tmp_path_factory):
    store = SqliteStore(tmp_path_factory.mktemp("exact") / "wechatpay.db")
    kit = receiving_kit(store, Recorder(), Expecting())
    with request.param(shop_app(kit)) as shop:
        yield shop
    store.close()


@settings(max_examples=1000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(body=bodies, chunk=st.none() | st.integers(1, 400))
def test_1000_generated_bodies_reach_the_verifier_byte_for_byte(exact_shop, body, chunk):
    answer = exact_shop.post(signed(body), body, chunk=chunk)
    # Past the signature: the bytes that were signed are the bytes that were verified.
    assert answer.status_code == 204 or b"does not decode" in answer.content


# The body limit


def limited(store, recorder, limit):
    return receiving_kit(store, recorder, Expecting(), max_body=limit)


@pytest.mark.parametrize("chunk", [None, 1000])
def test_a_body_at_the_limit_is_verified_and_one_byte_more_is_413(store, recorder, serving, chunk):
    headers, body = delivery()
    with serving(shop_app(limited(store, recorder, len(body)))) as shop:
        assert shop.post(headers, body, chunk=chunk).status_code == 204
        refused = shop.post(headers, body + b" ", chunk=chunk)
    assert (refused.status_code, refused.json()["code"]) == (413, "FAIL")
    assert recorder.of("on_rejected")[0].size == len(body) + 1


@pytest.mark.anyio
async def test_an_endless_body_is_read_no_further_than_the_limit(store, recorder):
    taken = []
    app = shop_app(limited(store, recorder, 4096))
    endless = (taken.append(chunk) or chunk for chunk in repeat(b"x" * 1000, 100_000))
    answer = await deliver(app, delivery()[0], endless)
    assert answer.status_code == 413
    assert len(taken) == 5
    assert recorder.of("on_rejected")[0].size == 4097


@pytest.mark.anyio
async def test_a_chunk_beyond_the_limit_is_cut_to_one_byte_more(store, recorder):
    app = shop_app(limited(store, recorder, 4096))
    assert (await deliver(app, delivery()[0], [b"x" * 100_000])).status_code == 413
    assert recorder.of("on_rejected")[0].size == 4097


def test_413_comes_before_the_rest_of_what_was_announced(store, recorder):
    with (
        on_asyncio(shop_app(limited(store, recorder, 4096))) as shop,
        connected(shop.port) as client,
    ):
        client.sendall(head([*delivery()[0], ("Content-Length", str(2**30))]) + b"x" * 4097)
        assert client.recv(12) == b"HTTP/1.1 413"


@pytest.mark.skipif(
    "max_body_size" not in inspect.signature(Starlette).parameters,
    reason="this Starlette does not let an application limit its bodies",
)
def test_a_smaller_limit_of_the_application_loses_no_money(kit, recorder, serving):
    with serving(shop_app(kit, max_body_size=100)) as shop:
        assert shop.post(*delivery()).status_code == 204
    assert recorder.names() == ["on_paid"]


@pytest.mark.anyio
async def test_a_body_cut_short_by_the_client_reaches_nobody(kit, recorder, caplog):
    headers, body = delivery()
    await deliver(shop_app(kit), headers, [body[:-1]], hangs_up="early")
    assert recorder.names() == []
    assert [record.name for record in caplog.records] == ["wechatpay_kit_starlette"]
    assert MCHID in caplog.text


# Methods, paths, and what relaxes nothing


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_405(shop, recorder, method):
    headers, body = delivery()
    answer = shop.request(method, NOTIFY, headers, body)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "POST"
    assert recorder.names() == []


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize(
    "path",
    ["/", "/notify", "/wechatpay/", "/wechatpay/notify/", "/wechatpay/notify//",
     "/wechatpay/notify/x", "/wechatpay/notifyx", "/wechatpay/Notify", "/wechatpay//notify"],
)  # fmt: skip
def test_wrong_paths_are_404(shop, recorder, method, path):
    headers, body = delivery()
    assert shop.request(method, path, headers, body).status_code == 404
    assert recorder.names() == []


@pytest.mark.parametrize("debug", [False, True])
def test_neither_debug_nor_hosts_nor_forwarding_relax_anything(kit, recorder, serving, debug):
    relaxing = [
        ("Host", "localhost"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Forwarded-Host", "localhost"),
        ("X-Forwarded-Proto", "https"),
        ("Forwarded", "for=127.0.0.1"),
    ]
    headers, body = delivery()
    with serving(shop_app(kit, debug=debug)) as shop:
        assert shop.post([*headers, *relaxing], body + b" ").status_code == 401
        assert shop.post([*headers[:1], *relaxing], body).status_code == 400
        assert shop.post([*headers, *relaxing], body).status_code == 204
    assert recorder.names() == ["on_rejected", "on_rejected", "on_paid"]


# Mounting


def by_mounted_router(kit):
    app = FastAPI()
    app.mount("/wechatpay", Router(notify_routes(kit)))
    return app


def by_mounted_application(kit):
    app = FastAPI()
    app.mount("/wechatpay", Starlette(routes=notify_routes(kit)))
    return app


def by_routes_of_the_application(kit):
    return FastAPI(routes=[Mount("/wechatpay", routes=notify_routes(kit))])


@pytest.mark.parametrize(
    "mounted", [by_mounted_router, by_mounted_application, by_routes_of_the_application]
)
def test_fastapi_serves_the_routes(kit, recorder, serving, mounted):
    headers, body = delivery()
    with serving(mounted(kit)) as shop:
        assert shop.post(headers, body).status_code == 204
        assert shop.post(headers, body + b" ").json()["code"] == "FAIL"
        assert shop.request("GET", NOTIFY).status_code == 405
        assert shop.post(headers, body, path=f"{NOTIFY}/").status_code == 404
    assert recorder.names() == ["on_paid", "on_rejected"]


def test_the_address_can_be_looked_up_by_name(kit):
    app = Starlette(routes=[Mount("/wechatpay", routes=notify_routes(kit), name="wechatpay")])
    assert app.url_path_for("wechatpay:notify") == NOTIFY


def test_nobody_listening_is_an_error_when_the_routes_are_built(store):
    with pytest.raises(ConfigError, match="on_paid"):
        notify_routes(receiving_kit(store, Expecting()))


@pytest.mark.parametrize("build", [notify_routes, AsyncKit])
def test_no_threads_are_an_error_when_it_is_built(kit, build):
    with pytest.raises(ConfigError, match="threads must be at least 1; got 0"):
        build(kit, threads=0)


def test_two_merchants_in_one_application(store, serving, caplog):
    ours, theirs = Recorder(), Recorder()
    app = Starlette(
        routes=[
            Mount("/a", routes=notify_routes(receiving_kit(store, ours, Expecting()))),
            Mount(
                "/b", routes=notify_routes(receiving_kit(store, theirs, Expecting(), mchid=OTHER))
            ),
        ]
    )
    for_us, for_them = delivery(), delivery(transaction(mchid=OTHER))
    with serving(app) as shop:
        assert shop.post(*for_us, path="/a/notify").status_code == 204
        assert shop.post(*for_them, path="/b/notify").status_code == 204
        caplog.clear()
        assert shop.post(*for_us, path="/b/notify").status_code == 422
    assert ours.names() == ["on_paid"]
    assert theirs.names() == ["on_paid", "on_rejected"]
    assert f"mchid={OTHER}" in caplog.text


# Behind common middleware


class Passing(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        response = await call_next(request)
        response.headers["X-Passed"] = "yes"
        return response


class Reading(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        await request.body()
        return await call_next(request)


SESSIONS = Middleware(SessionMiddleware, secret_key="secret")
GZIP = Middleware(GZipMiddleware, minimum_size=1)
PASSING = Middleware(Passing)
READING = Middleware(Reading)
CORS = Middleware(CORSMiddleware, allow_origins=["https://shop.example"], allow_methods=["GET"])
MIDDLEWARE = {
    "sessions": [SESSIONS],
    "gzip": [GZIP],
    "base": [PASSING],
    "base that reads": [READING],
    "cors": [CORS],
    "all": [SESSIONS, GZIP, PASSING, READING, CORS],
}


@pytest.mark.parametrize(
    "middleware",
    [pytest.param(chain, id=name, marks=OLDER_BASES_LEAK) for name, chain in MIDDLEWARE.items()],
)
@pytest.mark.parametrize("chunk", [None, 500])
def test_middleware_changes_neither_bytes_nor_answers(kit, recorder, serving, middleware, chunk):
    headers, body = delivery()
    headers += [
        ("Origin", "https://else.example"),
        ("Cookie", "session=nonsense"),
        ("Accept-Encoding", "gzip"),
    ]
    with serving(shop_app(kit, middleware=middleware)) as shop:
        answer = shop.post(headers, body, chunk=chunk)
        assert (answer.status_code, answer.content) == (204, b"")
        refused = shop.post(headers, body + b" ", chunk=chunk)
        assert (refused.status_code, refused.json()["code"]) == (401, "FAIL")
        assert ("Content-Encoding" in refused.headers) == (GZIP in middleware)
        assert shop.request("PUT", NOTIFY, headers, body).status_code == 405
        assert shop.post(headers, b"x" * (2**21 + 1), chunk=chunk and 2**16).status_code == 413
    assert recorder.names() == ["on_paid", "on_rejected", "on_rejected"]
