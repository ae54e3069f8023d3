"""ASGI apps under test: on asyncio behind uvicorn's real socket, on trio in a loop of their own.

uvicorn knows no trio, so there the app is driven directly. Both are offered to plain functions;
:func:`deliver` is one request inside the loop of an async test, the server's part played by hand.
"""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from functools import partial

import anyio
import anyio.from_thread
import anyio.lowlevel
import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from wechatpay_kit_starlette import notify_routes

NOTIFY = "/wechatpay/notify"


# On trio, older BaseHTTPMiddlewares leave their own generators to the garbage collector.
OLDER_BASES_LEAK = pytest.mark.filterwarnings("ignore:Async generator 'starlette:ResourceWarning")


def shop_app(*kits, routes=(), threads=40, **options):
    mounts = [Mount("/wechatpay", routes=notify_routes(kit, threads=threads)) for kit in kits]
    return Starlette(routes=[*mounts, *routes], **options)


class Shop:
    """An app that is served. ``port`` is its real one, None where there is no socket."""

    def __init__(self, send, port=None):
        self._send = send
        self.port = port

    def request(self, method, path, headers=(), body=b"", *, chunk=None):
        """One answer; ``chunk`` is the size of the chunks, None for Content-Length."""
        return self._send(method, path, list(headers), body, chunk)

    def post(self, headers, body, *, path=NOTIFY, chunk=None):
        return self.request("POST", path, headers, body, chunk=chunk)


@contextmanager
def on_asyncio(app):
    with served(app) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:

        def send(method, path, headers, body, chunk):
            content = body if chunk is None else iter(parts(body, chunk))
            return client.request(method, path, headers=headers, content=content)

        yield Shop(send, port)


@contextmanager
def on_trio(app):
    with anyio.from_thread.start_blocking_portal("trio") as portal:

        def send(method, path, headers, body, chunk):
            chunks = [body] if chunk is None else parts(body, chunk)
            return portal.call(partial(deliver, method=method, path=path), app, headers, chunks)

        yield Shop(send)


@contextmanager
def served(app, listener=None, lifespan="off"):
    """The port of ``app`` on loopback, by uvicorn in a thread of its own."""
    listener = listener or bound()
    server = _Server(
        uvicorn.Config(app, ws="none", lifespan=lifespan, log_config=None, access_log=False)
    )
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        assert server.is_up.wait(10)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


class _Server(uvicorn.Server):
    def __init__(self, config):
        super().__init__(config)
        self.is_up = threading.Event()

    async def startup(self, sockets=None):
        await super().startup(sockets=sockets)
        self.is_up.set()


def bound():
    """A listener on a free port, so that an address is known before anyone serves it."""
    # With the protocol named, asyncio sets TCP_NODELAY; without, each answer waits for an ACK.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    return listener


def connected(port):
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def head(headers, path=NOTIFY):
    lines = [f"POST {path} HTTP/1.1", "Host: shop.example", *(f"{n}: {v}" for n, v in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def parts(body, size):
    return [body[start : start + size] for start in range(0, len(body), size)]


async def post(app, signed, **how):
    """One signed delivery, as :func:`deliver` sends it."""
    headers, body = signed
    return await deliver(app, headers, [body], **how)


async def deliver(app, headers, chunks, *, method="POST", path=NOTIFY, hangs_up=False):
    """One request, and what the app sent; afterwards the client waits, or hangs up.

    ``chunks`` is any iterable: what the app does not ask for is not taken from it. None is
    answered for an app that sent nothing.
    """
    named = [("Host", "shop.example"), *headers]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in named],
        "client": ("127.0.0.1", 40000),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    coming = iter(chunks)
    is_whole = False
    sent = []

    async def receive():
        nonlocal is_whole
        await anyio.lowlevel.checkpoint()
        chunk = next(coming, None)
        if chunk is not None:
            return {"type": "http.request", "body": chunk, "more_body": True}
        if is_whole and not hangs_up:
            await anyio.sleep_forever()
        if is_whole or hangs_up == "early":
            return {"type": "http.disconnect"}
        is_whole = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        await anyio.lowlevel.checkpoint()
        sent.append(message)

    await app(scope, receive, send)
    start = next((m for m in sent if m["type"] == "http.response.start"), None)
    content = b"".join(m.get("body", b"") for m in sent if m["type"] == "http.response.body")
    if start is None:
        return None
    return httpx.Response(start["status"], headers=start["headers"], content=content)
