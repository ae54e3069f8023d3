"""Two merchants in one function: for each a kit, a prefix of the environment and a path.

``NORTH_MCHID``, ``NORTH_STORE=dynamodb://wechatpay``, …, and the same with ``SOUTH_``. One table
may hold both: what it remembers is kept apart by mchid.
"""

from wechatpay_kit import Kit, PaidEvent, hookimpl
from wechatpay_kit_lambda import notify_handler


class Fulfilment:
    @hookimpl
    def on_paid(self, event: PaidEvent) -> None:  # once an order; event.mchid says whose
        shipped.append((event.mchid, event.out_trade_no))


def make_north() -> Kit:
    return Kit.from_env("NORTH_", plugins=[Fulfilment()], receive_only=True)


def make_south() -> Kit:
    return Kit.from_env("SOUTH_", plugins=[Fulfilment()], receive_only=True)


shipped: list[tuple[str, str]] = []
handler = notify_handler(
    {"/north/wechatpay/notify": make_north, "/south/wechatpay/notify": make_south}
)
handler.build()  # in Lambda's init phase rather than in the first delivery's time
