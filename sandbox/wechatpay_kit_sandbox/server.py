"""A sandbox that listens: the gateway behind a socket, in this process.

Knows sockets and threads; knows nothing of what is served. Binds loopback unless told otherwise;
the socket is bound before the server starts, so the port is known and taken at once.
"""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

try:
    import starlette as _starlette  # noqa: F401 - asked for here so that its absence is explained
    import uvicorn
except ModuleNotFoundError as error:
    if error.name not in {"starlette", "uvicorn"}:
        raise
    raise ImportError(
        f"the sandbox needs {error.name}, which is not installed: "
        "pip install 'wechatpay-kit[sandbox]'",
        name=error.name,
    ) from None

from .app import gateway_app
from .environment import environment, write_env_file
from .gateway import Gateway

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self, Unpack

    from starlette.types import ASGIApp

    from .gateway import GatewayOptions

__all__ = ["AppServer", "Sandbox", "bound"]

_START_LIMIT = 10.0  # seconds
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - named to be reached, not bound


class Sandbox(Gateway):
    """A WeChat Pay gateway on localhost; use it as a context manager.

    ``notify_url`` is what the environment tells the shop to give with its orders; the gateway
    notifies the address in each order. ``port=0`` takes a free one. Other arguments: those of
    :class:`~wechatpay_kit_sandbox.gateway.Gateway`.
    """

    def __init__(
        self,
        *,
        notify_url: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        **options: Unpack[GatewayOptions],
    ) -> None:
        super().__init__(**options)
        self.notify_url = notify_url
        self._host = host
        self._port = port
        self._server: AppServer | None = None

    @property
    def base_url(self) -> str:
        """``http://127.0.0.1:8920``: where the gateway is; raises ``RuntimeError`` before start."""
        if self._server is None:
            raise RuntimeError("the sandbox has no address yet: call start(), or use it in a with")
        host = _ANY_ADDRESS.get(self._host, self._host)
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self._port}"

    def environment(self) -> dict[str, str]:
        """The ``WECHATPAY_*`` variables that point a shop at this sandbox, keys as PEM text."""
        return environment(self.keys, self.base_url, self.notify_url)

    def write_env_file(self, path: str | Path) -> dict[str, str]:
        """Write the variables to ``path`` and the keys to PEM files beside it, all mode 0600.

        For ``set -a; . path`` and for python-dotenv. Returns the variables as written.
        """
        return write_env_file(path, self.keys, self.base_url, self.notify_url)

    def start(self) -> Self:
        """Listen, and let the clock's tasks run. Raises ``OSError`` if the port is taken."""
        if self._server is not None:
            raise RuntimeError("the sandbox is running already")
        listener = bound(self._host, self._port)
        self._port = listener.getsockname()[1]
        self._server = AppServer(gateway_app(self), listener, "sandbox-server")
        self._server.start()
        self.agenda.start()
        return self

    def stop(self) -> None:
        """Stop listening and delivering; state is gone with the object."""
        self.agenda.stop()
        if self._server is not None:
            self._server.stop()
            self._server = None
        self.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class AppServer:
    """An ASGI app behind a socket that is bound already, in a thread of its own."""

    def __init__(self, app: ASGIApp, listener: socket.socket, name: str) -> None:
        self._server = _Server(
            uvicorn.Config(
                app,
                http="h11",
                loop="asyncio",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_keep_alive=8,
                timeout_graceful_shutdown=1,
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name=name, daemon=True
        )

    def start(self) -> None:
        """Serve; raises ``RuntimeError`` where that does not begin within 10 s."""
        self._thread.start()
        if not self._server.is_up.wait(_START_LIMIT):
            raise RuntimeError(f"the server did not start within {_START_LIMIT:g} s")

    def stop(self) -> None:
        """Answer what is under way, then stop; the socket is closed."""
        self._server.should_exit = True
        self._thread.join()


class _Server(uvicorn.Server):
    """Says when it is up, so that nobody has to poll."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.is_up.set()


def bound(host: str, port: int) -> socket.socket:
    """A socket that has its address (port 0: a free one) before anyone serves it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sets TCP_NODELAY; without, each answer waits for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except BaseException:
        listener.close()
        raise
    return listener
