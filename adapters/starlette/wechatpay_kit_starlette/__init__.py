"""Receive WeChat Pay's notifications in a Starlette or FastAPI app, and await the kit's calls.

Knows ASGI through Starlette and threads through anyio; knows nothing of signatures or orders::

    app = Starlette(routes=[Mount("/wechatpay", routes=notify_routes(kit))])
    app.mount("/wechatpay", Router(notify_routes(kit)))  # FastAPI

    shop = AsyncKit(kit)
    order = await shop.create_order(out_trade_no="T1001", …)

Runs on asyncio and on trio; ``async def`` hooks run on the application's own loop.
"""

from __future__ import annotations

try:
    import anyio as _anyio  # noqa: F401 - asked for here so that its absence is explained
    import starlette as _starlette  # noqa: F401 - the same
except ModuleNotFoundError as error:
    if error.name not in {"anyio", "starlette"}:
        raise
    raise ImportError(
        f"wechatpay_kit_starlette needs {error.name}, which is not installed: "
        "pip install 'wechatpay-kit[starlette]'",
        name=error.name,
    ) from None

from .calls import AsyncKit
from .notify import lifespan, notify_routes

__all__ = ["AsyncKit", "lifespan", "notify_routes"]
