"""The process that places orders: it holds the private key, and shares the function's table."""

import sys
from uuid import uuid4

from wechatpay_kit import Kit

openid = sys.argv[1] if len(sys.argv) > 1 else "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"
kit = Kit.from_env()  # WECHATPAY_STORE=dynamodb://… is what the function has, too
order = kit.create_order(out_trade_no=uuid4().hex, total=100, description="QQ", openid=openid)
print(order.out_trade_no)  # noqa: T201 - for the next command
