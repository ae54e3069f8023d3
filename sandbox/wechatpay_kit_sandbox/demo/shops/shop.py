"""What every shop of the demo has, whatever it is written in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from wechatpay_kit import Kit

__all__ = ["OPENID", "ORDERS", "PATH", "TOTAL", "Shop"]

ORDERS = "/orders"
PATH = "/wechatpay/notify"
TOTAL = 8800  # fen
OPENID = "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"


class Shop(NamedTuple):
    """``kit`` places orders; ``receiving`` makes one that can only be notified."""

    kit: Kit
    receiving: Callable[[], Kit]

    def order(self, number: str) -> dict[str, Any]:
        """The arguments of ``create_order`` for what the mini-program asks."""
        return {
            "out_trade_no": number,
            "total": TOTAL,
            "description": "Plush QQ",
            "openid": OPENID,
        }
