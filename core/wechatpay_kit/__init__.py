"""wechatpay-kit."""
