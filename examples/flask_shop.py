from uuid import uuid4

from flask import Flask, request
from wx_login import openid_of

from wechatpay_kit import Kit, PaidEvent, hookimpl
from wechatpay_kit_flask import notify_blueprint


class Fulfilment:
    @hookimpl
    def on_paid(self, event: PaidEvent) -> None:  # once an order, however often we are told
        app.logger.warning("ship %s", event.out_trade_no)


app, kit = Flask(__name__), Kit.from_env(plugins=[Fulfilment()])
app.register_blueprint(notify_blueprint(kit), url_prefix="/wechatpay")  # POST /wechatpay/notify


@app.post("/orders")
def place_order() -> dict[str, object]:
    openid = openid_of(request.json["code"], kit.merchant)  # the user of the order's appid
    order = kit.create_order(out_trade_no=uuid4().hex, total=100, description="QQ", openid=openid)
    return {"out_trade_no": order.out_trade_no, "payment": order.request_payment()}


@app.get("/orders/<number>")
def settle(number: str) -> dict[str, str]:  # the mini-program asks here: its own ok is no proof
    return {"trade_state": kit.query_order(out_trade_no=number).trade_state}
