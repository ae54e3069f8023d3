"""For a shop's own tests, and for who writes an adapter: signed deliveries, and one suite.

:class:`Deliveries` makes what WeChat Pay would send, for keys of one's own::

    weixin = Deliveries()
    kit = Kit.from_env(environ=weixin.environment(), plugins=[shop], store=…, receive_only=True)
    headers, body = weixin.delivery(weixin.transaction("T1001", total=100))
    assert kit.receiver.receive(headers, body).status == 204

:class:`AdapterConformance` (with pytest) is what every adapter must pass; docs/adapters.md shows
how. Needs no server of the sandbox's, and so no extra.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .conformance import AdapterConformance
    from .deliveries import Deliveries, Headers, changed, without
    from .sending import Reply, Sender, http_sender
    from .shop import Shop, shop_of

__all__ = [
    "AdapterConformance",
    "Deliveries",
    "Headers",
    "Reply",
    "Sender",
    "Shop",
    "changed",
    "http_sender",
    "shop_of",
    "without",
]

_HOMES = {
    "AdapterConformance": ".conformance",
    "Deliveries": ".deliveries",
    "Headers": ".deliveries",
    "Reply": ".sending",
    "Sender": ".sending",
    "Shop": ".shop",
    "changed": ".deliveries",
    "http_sender": ".sending",
    "shop_of": ".shop",
    "without": ".deliveries",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
