"""A WeChat Pay APIv3 gateway on localhost, for development and tests.

::

    with Sandbox(notify_url="http://127.0.0.1:5000/wechatpay/notify") as sandbox:
        kit = Kit(Merchant.from_env(environ=sandbox.environment()), ...)
        kit.create_order(...)
        sandbox.pay("T10001")

Needs the extra ``sandbox``; without it, importing this package says so.
"""

from __future__ import annotations

try:
    import starlette as _starlette  # noqa: F401 - asked for here so that its absence is explained
    import uvicorn as _uvicorn  # noqa: F401 - the same
except ModuleNotFoundError as error:
    if error.name not in {"starlette", "uvicorn"}:
        raise
    raise ImportError(
        f"the sandbox needs {error.name}, which is not installed: "
        "pip install 'wechatpay-kit[sandbox]'",
        name=error.name,
    ) from None

from .delivery import Delivery
from .errors import ControlError
from .gateway import Payment
from .keys import Keys, generate_keys
from .notifications import Attempt, Notification
from .server import Sandbox
from .state import Order, Refund

__all__ = [
    "Attempt",
    "ControlError",
    "Delivery",
    "Keys",
    "Notification",
    "Order",
    "Payment",
    "Refund",
    "Sandbox",
    "generate_keys",
]
