"""The function: a notification comes in, and what was paid is fulfilled, once."""

import logging

from wechatpay_kit import Kit, PaidEvent, RefundEvent, hookimpl
from wechatpay_kit_lambda import Environment, notify_handler

logger = logging.getLogger("shop")


class Fulfilment:
    @hookimpl
    def on_paid(self, event: PaidEvent) -> None:
        logger.info("ship %s", event.out_trade_no)  # hand event.key on: it is the same on a retry

    @hookimpl
    def on_refund(self, event: RefundEvent) -> None:
        logger.info("refund %s is %s", event.out_refund_no, event.refund.status)


handler = notify_handler(
    lambda environ: Kit.from_env(environ=environ, plugins=[Fulfilment()], receive_only=True),
    environ=Environment(),  # follows the secrets that template.yaml refers to
)
handler.build()  # in Lambda's init phase rather than in the first delivery's time
