from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated
from uuid import uuid4

from fastapi import Body, FastAPI
from starlette.routing import Router
from wx_login import openid_of

from wechatpay_kit import Kit, PaidEvent, hookimpl
from wechatpay_kit_starlette import AsyncKit, lifespan, notify_routes


class Fulfilment:
    @hookimpl
    async def on_paid(self, event: PaidEvent) -> None:  # once an order; await what you like
        shipped.append(event.out_trade_no)


@asynccontextmanager
async def connections(_app: FastAPI) -> AsyncIterator[None]:
    async with lifespan(kit):  # beside your own pools and clients
        yield


shipped: list[str] = []
kit = Kit.from_env(plugins=[Fulfilment()])
shop = AsyncKit(kit)  # the kit's calls, as awaitables
app = FastAPI(lifespan=connections)
app.mount("/wechatpay", Router(notify_routes(kit)))  # POST /wechatpay/notify


@app.post("/orders")
async def place_order(code: Annotated[str, Body(embed=True)]) -> dict[str, object]:
    openid = await shop.run(openid_of, code, kit.merchant)  # the user of the order's appid
    order = await shop.create_order(
        out_trade_no=uuid4().hex, total=100, description="QQ", openid=openid
    )
    payment = await shop.run(order.request_payment)
    return {"out_trade_no": order.out_trade_no, "payment": payment}


@app.get("/orders/{number}")
async def settle(number: str) -> dict[str, str]:  # the mini-program's own ok is no proof
    return {"trade_state": (await shop.query_order(out_trade_no=number)).trade_state}
