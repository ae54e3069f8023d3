"""``python -m wechatpay_kit.cli``: the same as the console script."""

from . import main

main()
