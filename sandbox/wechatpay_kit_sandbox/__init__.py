"""A WeChat Pay APIv3 gateway on localhost, for development and tests.

::

    with Sandbox(notify_url="http://127.0.0.1:5000/wechatpay/notify") as sandbox:
        kit = Kit(Merchant.from_env(environ=sandbox.environment()), ...)
        kit.create_order(...)
        sandbox.pay("T10001")

:class:`Sandbox` needs the extra ``sandbox``, and says so where it is missing. The rest is imported
when it is first used: :mod:`wechatpay_kit_sandbox.testing`, for a shop's own tests and for who
writes an adapter, needs no server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_HOMES = {
    "Attempt": ".notifications",
    "ControlError": ".errors",
    "Delivery": ".delivery",
    "Keys": ".keys",
    "Notification": ".notifications",
    "Order": ".state",
    "Payment": ".gateway",
    "Refund": ".state",
    "Sandbox": ".server",
    "generate_keys": ".keys",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
