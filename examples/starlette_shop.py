"""Two merchants in one application: for each a kit, a prefix of the environment and a path.

``NORTH_MCHID``, ``NORTH_NOTIFY_URL=https://shop.example/north/wechatpay/notify``, …, and the same
with ``SOUTH_``.
"""

from uuid import uuid4

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Mount, Route
from wx_login import openid_of

from wechatpay_kit import Kit, PaidEvent, hookimpl
from wechatpay_kit_starlette import AsyncKit, lifespan, notify_routes


class Fulfilment:
    @hookimpl
    async def on_paid(self, event: PaidEvent) -> None:  # once an order; event.mchid says whose
        shipped.append((event.mchid, event.out_trade_no))


def shop_routes(kit: Kit) -> list[BaseRoute]:
    shop = AsyncKit(kit)  # the kit's calls, as awaitables

    async def place_order(request: Request) -> JSONResponse:
        code = (await request.json())["code"]
        openid = await shop.run(openid_of, code, kit.merchant)  # the user of the order's appid
        order = await shop.create_order(
            out_trade_no=uuid4().hex, total=100, description="QQ", openid=openid
        )
        payment = await shop.run(order.request_payment)
        return JSONResponse({"out_trade_no": order.out_trade_no, "payment": payment})

    async def settle(request: Request) -> JSONResponse:  # the mini-program's own ok is no proof
        number = request.path_params["number"]
        transaction = await shop.query_order(out_trade_no=number)
        return JSONResponse({"trade_state": transaction.trade_state})

    return [
        Mount("/wechatpay", routes=notify_routes(kit)),  # POST /wechatpay/notify
        Route("/orders", place_order, methods=["POST"]),
        Route("/orders/{number}", settle),
    ]


shipped: list[tuple[str, str]] = []
north = Kit.from_env("NORTH_", plugins=[Fulfilment()])
south = Kit.from_env("SOUTH_", plugins=[Fulfilment()])
app = Starlette(
    routes=[Mount("/north", routes=shop_routes(north)), Mount("/south", routes=shop_routes(south))],
    lifespan=lambda _app: lifespan(north, south),
)
