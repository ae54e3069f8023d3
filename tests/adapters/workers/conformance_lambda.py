"""The suite's shop as a Lambda function: ``CONFORMANCE_SHOP`` is its folder."""

from __future__ import annotations

import os

from wechatpay_kit_lambda import notify_handler
from wechatpay_kit_sandbox.testing import shop_of

handler = notify_handler(
    {"/wechatpay/notify": lambda: shop_of(os.environ["CONFORMANCE_SHOP"]).kit()}
)
