"""The shops that can play: one module a framework, each of the same shape.

``serving(shop, listener)`` answers ``POST /orders`` and ``POST /wechatpay/notify`` on a socket
that is bound already, as long as its context lasts. Each imports its framework and its adapter
inside the function, so that the story needs no other's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import aws_lambda, flask, starlette
from .shop import OPENID, ORDERS, PATH, TOTAL, Shop

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    Serving = Callable[[Shop, socket.socket], AbstractContextManager[None]]

__all__ = ["DESCRIPTIONS", "OPENID", "ORDERS", "PATH", "SHOPS", "TOTAL", "Shop"]

SHOPS: dict[str, Serving] = {
    "flask": flask.serving,
    "starlette": starlette.serving,
    "lambda": aws_lambda.serving,
}
DESCRIPTIONS = {
    "flask": "a shop in Flask",
    "starlette": "a shop in Starlette",
    "lambda": "a shop with a Lambda handler",
}
