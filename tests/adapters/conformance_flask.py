"""The suite's shop under gunicorn: ``CONFORMANCE_SHOP`` is its folder."""

from __future__ import annotations

import os

from flask import Flask

from wechatpay_kit_flask import notify_blueprint
from wechatpay_kit_sandbox.testing import Shop, shop_of


def make_app(shop: Shop) -> Flask:
    app = Flask("shop")
    app.config.update(DEBUG=shop.debug, TESTING=shop.debug)
    app.register_blueprint(notify_blueprint(shop.kit()), url_prefix="/wechatpay")
    return app


def app() -> Flask:
    return make_app(shop_of(os.environ["CONFORMANCE_SHOP"]))
