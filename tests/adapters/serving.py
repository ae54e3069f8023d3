"""A WSGI app behind a real socket, and requests as raw as a test wants them.

Nothing here is an HTTP library's idea of a request: what a test writes goes over the wire.
"""

from __future__ import annotations

import socket
from contextlib import contextmanager
from http.client import HTTPResponse
from threading import Thread
from typing import NamedTuple

from werkzeug.serving import WSGIRequestHandler, make_server

NOTIFY = "/wechatpay/notify"


class Quiet(WSGIRequestHandler):
    def log(self, *args):
        pass


@contextmanager
def served(app):
    """The port of ``app`` on loopback, a thread for each connection."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def post(port, headers, body, *, chunk=None, method="POST", path=NOTIFY):
    """One request and its answer; ``chunk`` is the size of the chunks, None for Content-Length."""
    with connected(port) as connection:
        connection.sendall(head(method, path, [*headers, framing(body, chunk)]))
        connection.sendall(body if chunk is None else chunks(body, chunk))
        return answer(connection, method)


def connected(port):
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def head(method, path, headers):
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    if not any(name.lower() == "host" for name, _ in headers):
        lines.insert(1, "Host: shop.example")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def framing(body, chunk):
    return ("Transfer-Encoding", "chunked") if chunk else ("Content-Length", str(len(body)))


def chunks(body, size):
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [*parts, b""])


def answer(connection, method="POST"):
    with HTTPResponse(connection, method=method) as response:
        response.begin()
        return Answer(response.status, dict(response.getheaders()), response.read())
