"""One request as it is written, and what came back.

Knows HTTP/1.1 as little as the standard library's client does; knows nothing of deliveries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http.client import HTTPConnection
from typing import NamedTuple

__all__ = ["Reply", "Sender", "http_sender"]

_PATIENCE = 20.0  # seconds; a slow machine is no fault


class Reply(NamedTuple):
    """What a server answered."""

    status: int
    headers: Iterable[tuple[str, str]]
    body: bytes


Sender = Callable[
    [str, str, list[tuple[str, str]], bytes], tuple[int, Iterable[tuple[str, str]], bytes]
]
"""Sends (method, path, header pairs, body), each as it is, and returns what a Reply has."""


def http_sender(port: int, host: str = "127.0.0.1") -> Sender:
    """A sender to a server that listens there; a connection for each request."""

    def send(method: str, path: str, headers: list[tuple[str, str]], body: bytes) -> Reply:
        connection = HTTPConnection(host, port, timeout=_PATIENCE)
        try:
            names = {name.lower() for name, _ in headers}
            connection.putrequest(
                method, path, skip_host="host" in names, skip_accept_encoding=True
            )
            for name, value in [*headers, ("Content-Length", str(len(body)))]:
                connection.putheader(name, value)
            connection.endheaders(body)
            with connection.getresponse() as response:
                return Reply(response.status, response.getheaders(), response.read())
        finally:
            connection.close()

    return send
