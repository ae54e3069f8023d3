"""Two merchants in one application: for each a kit, a prefix of the environment and a path.

``NORTH_MCHID``, ``NORTH_NOTIFY_URL=https://shop.example/north/wechatpay/notify``, …, and the same
with ``SOUTH_``.
"""

from uuid import uuid4

from flask import Blueprint, Flask, request
from wx_login import openid_of

from wechatpay_kit import Kit, PaidEvent, hookimpl
from wechatpay_kit_flask import notify_blueprint


class Fulfilment:
    @hookimpl
    def on_paid(self, event: PaidEvent) -> None:  # once an order; event.mchid says whose
        shipped.append((event.mchid, event.out_trade_no))


def shop_of(name: str, kit: Kit) -> Blueprint:
    shop = Blueprint(name, __name__, url_prefix=f"/{name}")
    shop.register_blueprint(notify_blueprint(kit), url_prefix="/wechatpay")

    @shop.post("/orders")
    def place_order() -> dict[str, object]:
        openid = openid_of(request.json["code"], kit.merchant)  # the user of the order's appid
        order = kit.create_order(
            out_trade_no=uuid4().hex, total=100, description="QQ", openid=openid
        )
        return {"out_trade_no": order.out_trade_no, "payment": order.request_payment()}

    @shop.get("/orders/<number>")
    def settle(number: str) -> dict[str, str]:  # the mini-program's own ok is no proof
        return {"trade_state": kit.query_order(out_trade_no=number).trade_state}

    return shop


shipped: list[tuple[str, str]] = []
north = Kit.from_env("NORTH_", plugins=[Fulfilment()])
south = Kit.from_env("SOUTH_", plugins=[Fulfilment()])
app = Flask(__name__)
app.register_blueprint(shop_of("north", north))  # POST /north/wechatpay/notify
app.register_blueprint(shop_of("south", south))
