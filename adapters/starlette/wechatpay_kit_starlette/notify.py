"""``POST …/notify``: raw bytes to the receiver, its answer back.

Knows Starlette's requests and routes; knows nothing of signatures, orders or the merchant.

*Middleware* runs before this route. One that answers for it (a redirect to a login page, a CSRF
check: WeChat Pay has no token, its signature proves more than one) loses every notification, and
one that changes the body leaves bytes that do not verify: let them pass this path.

*Body limit.* The receiver's (``Kit(max_body=…)``, 2 MiB), held while reading. The application's
``max_body_size`` is for its forms and does not apply: a smaller one would lose money.
"""

from __future__ import annotations

import inspect
import logging
import sys
from contextlib import ExitStack, aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router

from .threads import THREADS, Threads, run_on_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from wechatpay_kit import Kit

__all__ = ["lifespan", "notify_routes"]

_log = logging.getLogger("wechatpay_kit_starlette")

# Starlettes that let an application limit its bodies let a route overrule it.
_OWN_LIMIT: dict[str, Any] = (
    {"max_body_size": sys.maxsize} if "max_body_size" in inspect.signature(Route).parameters else {}
)


def notify_routes(kit: Kit, *, threads: int = THREADS) -> list[Route]:
    """The routes for ``kit``, to mount where its notify_url points: ``POST /notify``.

    Deliveries are verified, stored and heard by plain hooks in at most ``threads`` worker threads
    at once; ``async def`` hooks are awaited on the application's loop. A client that hangs up
    does not stop a delivery that has begun. Nothing here depends on a lifespan. Raises
    :class:`ConfigError` where no plugin implements ``on_paid``, or for ``threads`` below 1.
    """
    kit.receiver.check_ready()
    workers = Threads(threads)

    async def notify(request: Request) -> Response:
        try:
            body = await _raw_body(request, kit.receiver.max_body)
        except ClientDisconnect:
            _log.warning("a delivery's body did not arrive whole, for mchid %s", kit.receiver.mchid)
            return Response(status_code=400)
        answer = await workers.run(
            kit.receiver.receive, request.headers.items(), body, run_async=run_on_loop
        )
        response = Response(answer.body, answer.status)
        for name, value in answer.headers:
            response.headers.append(name, value)
        return response

    return [
        Route("/notify", notify, methods=["POST"], name="notify", **_OWN_LIMIT),
        # Else the router around us redirects /notify/ here, and WeChat Pay follows no redirect.
        Route("/notify/{rest:path}", Router(redirect_slashes=False), name="not_notify"),
    ]


@asynccontextmanager
async def lifespan(*kits: Kit) -> AsyncIterator[None]:
    """Close the connections of ``kits`` when the application ends; to compose with others.

    A courtesy to databases: kits open on first use, and need no lifespan to work::

        @asynccontextmanager
        async def shop_lifespan(app):
            async with lifespan(kit), httpx.AsyncClient() as http:
                yield {"http": http}
    """
    closing = ExitStack()
    for kit in kits:
        closing.callback(kit.close)
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(closing.close)


async def _raw_body(request: Request, limit: int) -> bytes:
    """The bytes as they came, or ``limit + 1`` of them where there are more."""
    body = bytearray()
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            body += chunk[: limit + 1 - len(body)]
            if len(body) > limit:
                break
    return bytes(body)
