"""A gateway that answers byte for byte what a test tells it to, over real sockets.

Each request takes the next step of the script; the last step repeats. A step is a function of
the request and the connection, and the makers below cover answers, resets and silences.
"""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import ssl
import struct
import threading
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Self

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from core.keys import private_key, signed_headers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    Step = Callable[["Request", socket.socket], None]


@dataclass(frozen=True)
class Request:
    method: str
    target: str  # exactly as on the request line
    headers: dict[str, str]  # names in lower case
    body: bytes
    connection: int  # which of the gateway's connections it came on

    @property
    def authorization(self) -> dict[str, str]:
        scheme, _, rest = self.headers["authorization"].partition(" ")
        assert scheme == "WECHATPAY2-SHA256-RSA2048"
        return dict(re.findall(r'(\w+)="([^"]*)"', rest))

    def is_signed(self, signed_body: bytes | None = None) -> bool:
        """Whether the merchant signed these bytes; raises InvalidSignature if not."""
        said = self.authorization
        lines = [self.method, self.target, said["timestamp"], said["nonce_str"], ""]
        message = "\n".join(lines).encode() + (self.body if signed_body is None else signed_body)
        signature = base64.b64decode(said["signature"], validate=True)
        key = private_key("merchant").public_key()
        key.verify(signature, message + b"\n", PKCS1v15(), SHA256())
        return True


class Gateway:
    """Listens on a free loopback port while the context lasts."""

    def __init__(self, *script: Step, tls: tuple[Path, Path] | None = None) -> None:
        self.script = list(script)
        self.requests: list[Request] = []
        self.connections = 0
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if tls else None
        if self._tls and tls:
            self._tls.load_cert_chain(*tls)
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = f"{'https' if tls else 'http'}://{self.host}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def silent(self, _: Request, __: socket.socket) -> None:
        """A step that says nothing until the test is over."""
        self._over.wait(30)

    def dripping(self, data: bytes, every: float = 0.02) -> Step:
        """A step of a byte at a time, so that no single read ever waits for long."""

        def step(_: Request, sock: socket.socket) -> None:
            for index in range(len(data)):
                sock.sendall(data[index : index + 1])
                if self._over.wait(every):
                    return

        return step

    def _start(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                number = self.connections
                self._open.add(sock)
            self._start(self._serve, sock, number)

    def _serve(self, sock: socket.socket, number: int) -> None:
        plain = sock
        try:
            if self._tls:
                sock = self._tls.wrap_socket(sock, server_side=True)
            with sock, sock.makefile("rb") as stream:
                while request := _read(stream, number):
                    with self._lock:
                        self.requests.append(request)
                        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
                    step(request, sock)
        except OSError:
            pass  # the client left, or the test is over
        finally:
            with self._lock:
                self._open.discard(plain)
            plain.close()


def _read(stream: Iterable[bytes], connection: int) -> Request | None:
    line = stream.readline().decode("latin-1")
    if not line:
        return None
    method, target, _ = line.rstrip("\r\n").split(" ")
    headers = {}
    while (header := stream.readline()) not in {b"\r\n", b""}:
        name, _, value = header.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    body = stream.read(int(headers.get("content-length", 0)))
    return Request(method, target, headers, body, connection)


def message(
    status: int, headers: Iterable[tuple[str, str]], body: bytes, length: int | None = None
) -> bytes:
    head = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    head += [f"{name}: {value}" for name, value in headers]
    if status != HTTPStatus.NO_CONTENT:
        head.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*head, "", ""]).encode() + body


def sends(data: bytes) -> Step:
    return lambda _, sock: sock.sendall(data)


def signed(body: bytes = b"{}", status: int = 200, **signing: object) -> Step:
    """A good answer; ``signing`` as for ``signed_headers``."""
    headers = [("Request-ID", "08F5-0"), *signed_headers(body, **signing)]
    return sends(message(status, headers, body))


def unsigned(body: bytes = b"", status: int = 200, *headers: tuple[str, str]) -> Step:
    return sends(message(status, [("Request-ID", "08F5-1"), *headers], body))


def forged(body: bytes = b"{}", status: int = 200) -> Step:
    """Signed, but by a key that is not the one named: what a probe or a forger sends."""
    return signed(body, status, owner="stranger")


def truncated(body: bytes = b"{}", missing: int = 5) -> Step:
    """A signed answer whose connection ends before its announced length."""

    def step(_: Request, sock: socket.socket) -> None:
        sock.sendall(message(200, signed_headers(body), body, length=len(body) + missing))
        sock.shutdown(socket.SHUT_RDWR)

    return step


def resets(_: Request, sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise ConnectionResetError  # the socket closes without lingering: the client gets a RST


def closes(_: Request, sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def closed_port():
    """An address where nobody listens, and nobody else can."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
