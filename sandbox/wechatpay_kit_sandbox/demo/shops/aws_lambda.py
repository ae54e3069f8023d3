"""A shop whose notifications go to a Lambda handler, which holds no private key.

The server here plays API Gateway: a request comes in, an event of an HTTP API goes to the handler,
its answer goes out. Another address of it is the process that places orders, over the same store.
"""

from __future__ import annotations

import base64
import json
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from wechatpay_kit import WeChatPayError

from .shop import ORDERS, PATH

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping

    from .shop import Shop

    Answer = tuple[int, Mapping[str, str], bytes]

__all__ = ["serving"]

_TIMEOUT = 10_000  # ms; what the function is given


@contextmanager
def serving(shop: Shop, listener: socket.socket) -> Iterator[None]:
    from wechatpay_kit_lambda import notify_handler  # noqa: PLC0415 - only where it plays

    handler = notify_handler({PATH: shop.receiving})
    answering = partial(_answer, shop, handler)
    server = _Gateway(listener, answering)
    thread = Thread(target=server.serve_forever, args=(0.02,), name="demo-shop")
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _answer(
    shop: Shop,
    handler: Callable[[Any, Any], dict[str, Any]],
    path: str,
    headers: Mapping[str, str],
    body: bytes,
) -> Answer:
    if path == ORDERS:
        return _place(shop, json.loads(body)["number"])
    context = SimpleNamespace(get_remaining_time_in_millis=lambda: _TIMEOUT)
    answer = handler(_event(path, headers, body), context)
    return answer["statusCode"], answer["headers"], answer["body"].encode()


def _place(shop: Shop, number: str) -> Answer:
    said: dict[str, object]
    try:
        order = shop.kit.create_order(**shop.order(number))
        said = {"out_trade_no": order.out_trade_no, "payment": order.request_payment()}
        status = 200
    except WeChatPayError as error:
        said, status = {"error": str(error)}, 502
    return status, {"Content-Type": "application/json"}, json.dumps(said).encode()


def _event(path: str, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """As an HTTP API sends it, payload format 2.0."""
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {name.lower(): value for name, value in headers.items()},
        "requestContext": {
            "stage": "$default",
            "http": {"method": "POST", "path": path, "protocol": "HTTP/1.1"},
        },
        "body": base64.b64encode(body).decode(),
        "isBase64Encoded": True,
    }


class _Gateway(ThreadingHTTPServer):
    """Serves on a socket that is bound already."""

    daemon_threads = False  # closing it waits for what is under way

    def __init__(
        self, listener: socket.socket, answering: Callable[[str, Any, bytes], Answer]
    ) -> None:
        super().__init__(listener.getsockname(), _Request, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.answering = answering
        self.server_activate()


class _Request(BaseHTTPRequestHandler):
    server: _Gateway

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status, headers, content = self.server.answering(self.path, self.headers, body)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        pass
