"""A shop in Flask, behind Werkzeug's server."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING

from wechatpay_kit import WeChatPayError

from .shop import ORDERS

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from .shop import Shop

__all__ = ["serving"]


@contextmanager
def serving(shop: Shop, listener: socket.socket) -> Iterator[None]:
    from wechatpay_kit_flask import notify_blueprint  # noqa: PLC0415, I001 - names its extra, first
    from flask import Flask, request  # noqa: PLC0415
    from werkzeug.serving import WSGIRequestHandler, make_server  # noqa: PLC0415

    app = Flask("demo_shop")
    app.register_blueprint(notify_blueprint(shop.kit), url_prefix="/wechatpay")

    @app.post(ORDERS)
    def place() -> dict[str, object]:
        order = shop.kit.create_order(**shop.order(request.get_json()["number"]))
        return {"out_trade_no": order.out_trade_no, "payment": order.request_payment()}

    @app.errorhandler(WeChatPayError)
    def refused(error: WeChatPayError) -> tuple[dict[str, str], int]:
        return {"error": str(error)}, 502

    class Quiet(WSGIRequestHandler):
        def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - its name
            pass

    listener.listen()
    server = make_server(
        "127.0.0.1", 0, app, threaded=True, request_handler=Quiet, fd=listener.fileno()
    )
    thread = Thread(target=server.serve_forever, args=(0.02,), name="demo-shop")
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
