"""Take WeChat Pay (APIv3) money in a mini-program, and never lose, double or fake an order.

Start with :class:`Kit` and :data:`hookimpl`. What is heavy is imported when it is first used, so
that a process that only receives notifications loads no HTTP client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import (
    ApiError,
    BillHashMismatchError,
    ConfigError,
    DecryptError,
    FrequencyLimitedError,
    HookError,
    InvalidRequestError,
    LeaseLostError,
    MessageError,
    NoAuthError,
    NoStatementError,
    NotEnoughError,
    OrderClosedError,
    OrderMismatchError,
    OrderNotExistError,
    OrderPaidError,
    OutcomeUnknownError,
    OutTradeNoUsedError,
    ParamError,
    ParameterError,
    ResourceNotExistsError,
    SignatureError,
    SignError,
    StatementNotReadyError,
    StoreBusyError,
    StoreError,
    SystemUnavailableError,
    TransportError,
    UnknownOrderError,
    WeChatPayError,
)
from .events import (
    ClosedEvent,
    ConflictEvent,
    DuplicateEvent,
    Event,
    NotificationEvent,
    PaidEvent,
    RefundEvent,
    RejectedEvent,
)
from .hookspecs import Hooks, hookimpl
from .kit import Kit, Order, SettledRefund, SettledTransaction
from .merchant import Merchant
from .models import Refund, Transaction
from .receiver import Answer, Receiver, open_notification
from .records import ExpectedOrder, OrderRecord, RefundRecord, Unsettled
from .settlement import Outcome
from .signer import RsaSigner, Signer
from .verifier import KeyRing, VerificationKey

if TYPE_CHECKING:
    from .bills import BillRow
    from .client import Client, TradeBill
    from .store.dynamodb import DynamoStore
    from .store.sqlite import SqliteStore

__all__ = [
    "Answer",
    "ApiError",
    "BillHashMismatchError",
    "BillRow",
    "Client",
    "ClosedEvent",
    "ConfigError",
    "ConflictEvent",
    "DecryptError",
    "DuplicateEvent",
    "DynamoStore",
    "Event",
    "ExpectedOrder",
    "FrequencyLimitedError",
    "HookError",
    "Hooks",
    "InvalidRequestError",
    "KeyRing",
    "Kit",
    "LeaseLostError",
    "Merchant",
    "MessageError",
    "NoAuthError",
    "NoStatementError",
    "NotEnoughError",
    "NotificationEvent",
    "Order",
    "OrderClosedError",
    "OrderMismatchError",
    "OrderNotExistError",
    "OrderPaidError",
    "OrderRecord",
    "OutTradeNoUsedError",
    "Outcome",
    "OutcomeUnknownError",
    "PaidEvent",
    "ParamError",
    "ParameterError",
    "Receiver",
    "Refund",
    "RefundEvent",
    "RefundRecord",
    "RejectedEvent",
    "ResourceNotExistsError",
    "RsaSigner",
    "SettledRefund",
    "SettledTransaction",
    "SignError",
    "SignatureError",
    "Signer",
    "SqliteStore",
    "StatementNotReadyError",
    "StoreBusyError",
    "StoreError",
    "SystemUnavailableError",
    "TradeBill",
    "Transaction",
    "TransportError",
    "UnknownOrderError",
    "Unsettled",
    "VerificationKey",
    "WeChatPayError",
    "hookimpl",
    "open_notification",
]

_HEAVY = {
    "BillRow": ".bills",
    "Client": ".client",
    "DynamoStore": ".store.dynamodb",
    "SqliteStore": ".store.sqlite",
    "TradeBill": ".client",
}


def __getattr__(name: str) -> Any:
    if name in _HEAVY:
        return getattr(import_module(_HEAVY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
