"""A shop in Starlette, behind uvicorn; its endpoints await the kit."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from wechatpay_kit import WeChatPayError
from wechatpay_kit_sandbox.server import AppServer

from .shop import ORDERS

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from starlette.requests import Request
    from starlette.responses import Response

    from .shop import Shop

__all__ = ["serving"]


@contextmanager
def serving(shop: Shop, listener: socket.socket) -> Iterator[None]:
    from starlette.applications import Starlette  # noqa: PLC0415 - the sandbox has it, others not
    from starlette.responses import JSONResponse  # noqa: PLC0415
    from starlette.routing import Mount, Route  # noqa: PLC0415

    from wechatpay_kit_starlette import AsyncKit, notify_routes  # noqa: PLC0415 - names its extra

    kit = AsyncKit(shop.kit)

    async def place(request: Request) -> Response:
        order = await kit.create_order(**shop.order((await request.json())["number"]))
        payment = await kit.run(order.request_payment)
        return JSONResponse({"out_trade_no": order.out_trade_no, "payment": payment})

    async def refused(_request: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, 502)

    app = Starlette(
        routes=[
            Route(ORDERS, place, methods=["POST"]),
            Mount("/wechatpay", routes=notify_routes(shop.kit)),
        ],
        exception_handlers={WeChatPayError: refused},
    )
    server = AppServer(app, listener, "demo-shop")
    server.start()
    try:
        yield
    finally:
        server.stop()
