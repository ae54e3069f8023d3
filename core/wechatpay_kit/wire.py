"""One request on the wire: its exact target, connections, proxies, TLS, and whether it left.

Knows sockets and ``requests``; knows nothing of signatures or of what an answer means. Rule:
what is signed is what is sent, so nothing below this module may rewrite a path.
"""

from __future__ import annotations

import platform
import re
import socket
import threading
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from .errors import ParameterError
from .processes import PerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["FAULTS", "USER_AGENT", "Departure", "Wire", "chunks", "fault_text", "request_target"]

# What a network does: requests' errors are OSErrors, urllib3's while reading are HTTPErrors.
FAULTS = (OSError, HTTPError)

_IDLE = 7.0  # seconds; the gateway drops a connection that was idle for 8
_CHUNK = 64 * 1024
_POOL = 32  # connections kept for each host; threads beyond it open their own


def request_target(target: str) -> str:
    """Path and query as they are signed and sent: percent-encoded once, where that is needed.

    Raises :class:`ParameterError` for what a server, proxy or library on the way would rewrite,
    so that the signature would be over another path.
    """
    path = target.partition("?")[0]
    if not path.startswith("/") or path.startswith("//"):
        raise ParameterError("path", "must begin with one slash, like /v3/certificates", target)
    if any(
        re.sub("%2e", ".", part, flags=re.IGNORECASE) in {".", ".."} for part in path.split("/")
    ):
        raise ParameterError("path", "must have no segment . or ..", target)
    try:
        text = quote(re.sub("%(?![0-9A-Fa-f]{2})", "%25", target), safe="%/:@!$&'()*+,;=~-._?")
    except UnicodeEncodeError:
        raise ParameterError("path", "must be valid Unicode", ascii(target)) from None
    text = re.sub("%[0-9a-f]{2}", lambda match: match[0].upper(), text, flags=re.IGNORECASE)
    return text.removesuffix("?") if text.count("?") == 1 else text


class Departure:
    """Whether a byte of a request may have left, and the way to stop it from another thread."""

    def __init__(self) -> None:
        self.is_sent = False
        self._gate = threading.Lock()
        self._is_abandoned = False
        self._connection: HTTPConnection | None = None

    def begin(self, connection: HTTPConnection) -> None:
        """The first byte is about to leave; :class:`TimeoutError` if nobody waits any more."""
        with self._gate:
            if self._is_abandoned:
                raise TimeoutError("the caller has left")
            self.is_sent, self._connection = True, connection

    def abandon(self) -> bool:
        """Send nothing from now on and wait no longer; whether something was sent before."""
        with self._gate:
            self._is_abandoned = True
            sock = self._connection.sock if self._connection is not None else None
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        return self.is_sent


class Wire:
    """Sends requests and returns answers as they come; safe to use from many threads.

    One ``requests.Session`` a process, opened on first use. After a fork the child opens its own
    and never touches the inherited one, whose connections are the parent's. Threads share it
    because nothing on it changes once it is open: requests go through its adapter, whose
    connection pools are made for threads, and never through ``Session.send``, which keeps cookies
    and follows redirects. Proxies and CA bundle come from the environment, as ``requests``
    documents; TLS is verified, and no argument changes that.
    """

    def __init__(self) -> None:
        self._session = PerProcess(_open_session)

    def send(
        self,
        departure: Departure,
        method: str,
        host: str,
        target: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        timeouts: tuple[float, float],
    ) -> requests.Response:
        """Send once and return when the answer's headers are there; raises one of ``FAULTS``.

        ``host`` is scheme and authority, ``target`` is from :func:`request_target`, ``timeouts``
        are those to connect and to read in seconds.
        """
        prepared = requests.Request(method, host + "/", headers=headers, data=body).prepare()
        prepared.url = url = host + target  # preparing it would normalise it once more
        session = self._session()
        # "verify" comes out as True or as a CA bundle: the session's own is True, and stays it.
        settings: dict[str, Any] = dict(
            session.merge_environment_settings(url, {}, stream=True, verify=None, cert=None)
        )
        departure.is_sent, _local.departure = False, departure
        return session.get_adapter(url).send(prepared, timeout=timeouts, **settings)

    def close(self) -> None:
        """Close this process's connections; a later request opens new ones."""
        session = self._session.drop()
        if session is not None:
            session.close()


def chunks(response: requests.Response) -> Iterator[bytes]:
    """The raw bytes of an answer as they arrive; a body cut short is one of ``FAULTS``."""
    while chunk := response.raw.read1(_CHUNK, decode_content=False):
        yield chunk


def fault_text(fault: BaseException) -> str:
    """What happened, without the address asked for and without a proxy's password."""
    inner: BaseException | None = fault
    while inner is not None:  # the innermost says it; the outer ones repeat the address
        fault = inner
        parts = (getattr(fault, "reason", None), *fault.args)
        inner = next((part for part in parts if isinstance(part, BaseException)), None)
    return f"{type(fault).__name__}: {re.sub('//[^/@ ]*@', '//***@', str(fault))[:200]}"


_local = threading.local()  # .departure: of the request this thread is sending


class _Wire(HTTPConnection):
    """A connection that tells its departure when the request begins to leave."""

    _is_connecting = False
    _used = 0.0

    def connect(self) -> None:
        self._is_connecting = True
        try:
            super().connect()
        finally:
            self._is_connecting = False

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        if not self._is_connecting:  # a CONNECT to a proxy is not the request
            _local.departure.begin(self)
        super().send(data)

    def getresponse(self) -> Any:
        response = super().getresponse()
        self._used = time.monotonic()
        return response

    @property
    def is_connected(self) -> bool:
        """False for one so long idle that the gateway may be closing it as we send."""
        return super().is_connected and time.monotonic() - self._used < _IDLE


class _TlsWire(_Wire, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Wire


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsWire


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        if type(manager) is ProxyManager:
            manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
        else:  # SOCKS has connections of its own, which do not tell: assume the worst
            _local.departure.is_sent = True
        return manager


def _open_session() -> requests.Session:
    session = requests.Session()
    adapter = _Adapter(pool_connections=8, pool_maxsize=_POOL, max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def _user_agent() -> str:
    try:
        own = version("wechatpay-kit")
    except PackageNotFoundError:  # run from a source tree that is not installed
        own = "0"
    return f"wechatpay-kit/{own} Python/{platform.python_version()}"


USER_AGENT = _user_agent()
