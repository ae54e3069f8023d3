"""Every exception of the kit, and what to do about each.

Knows nothing of HTTP, keys or orders: only names, and the fields a caller branches on.

::

    WeChatPayError
    ├── ConfigError             the settings are wrong: .problems names each and shows a right one
    ├── ParameterError          a value broke a rule of APIv3 before anything was sent
    ├── SignatureError          not from WeChat Pay, or not now: .reason, .serial
    ├── DecryptError            no APIv3 key held opens the ciphertext
    ├── MessageError            a verified message does not decode: .field
    ├── ApiError                the gateway refused: .status .code .message .detail .request_id
    │   ├── ParamError, InvalidRequestError, SignError, NoAuthError     fix the request
    │   ├── OrderPaidError                                              settle by query, ship
    │   ├── OrderClosedError, OutTradeNoUsedError                       take a new number
    │   ├── OrderNotExistError, ResourceNotExistsError                  check the number
    │   ├── NotEnoughError                                              top up, same number
    │   ├── FrequencyLimitedError                                       wait, then repeat
    │   ├── NoStatementError                                            the day had no trade
    │   ├── StatementNotReadyError                                      .ready_at says when
    │   └── SystemUnavailableError                                      repeat, same number
    ├── TransportError          nothing was done at the gateway: repeat when it is reachable
    ├── OutcomeUnknownError     it may have been done: query before you act
    ├── OrderMismatchError      the number was placed before with other parameters
    ├── UnknownOrderError       the number was never placed through this store
    ├── BillHashMismatchError   the file is not the one announced; nothing was kept
    ├── StoreError              the order store could not answer
    │   ├── StoreBusyError      its lock was not free in time: come again
    │   └── LeaseLostError      the claim went to a successor before it was recorded
    └── HookError               a plugin raised: .transaction and __cause__
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

__all__ = [
    "ApiError",
    "BillHashMismatchError",
    "ConfigError",
    "DecryptError",
    "FrequencyLimitedError",
    "HookError",
    "InvalidRequestError",
    "LeaseLostError",
    "MessageError",
    "NoAuthError",
    "NoStatementError",
    "NotEnoughError",
    "OrderClosedError",
    "OrderMismatchError",
    "OrderNotExistError",
    "OrderPaidError",
    "OutTradeNoUsedError",
    "OutcomeUnknownError",
    "ParamError",
    "ParameterError",
    "ResourceNotExistsError",
    "SignError",
    "SignatureError",
    "SignatureReason",
    "StatementNotReadyError",
    "StoreBusyError",
    "StoreError",
    "SystemUnavailableError",
    "TransportError",
    "UnknownOrderError",
    "WeChatPayError",
]

SignatureReason = Literal[
    "missing_header", "malformed_header", "clock", "unknown_key", "bad_signature"
]


class WeChatPayError(Exception):
    """The root: catch it to catch everything the kit raises on purpose."""


class ConfigError(WeChatPayError):
    """Settings are missing or malformed; ``problems`` lists all of them at once."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class ParameterError(WeChatPayError, ValueError):
    """An argument breaks a limit of APIv3; nothing was sent. Correct ``field`` and call again."""

    def __init__(self, field: str, rule: str, value: object) -> None:
        self.field, self.rule, self.value = field, rule, value
        super().__init__(f"{field}: {rule}; got {_shown(value)}")


class SignatureError(WeChatPayError):
    """A message is not proven to come from WeChat Pay now: do not act on it.

    ``reason`` says which check failed; ``serial`` is the key that the message names, where
    it names one.
    """

    def __init__(self, message: str, *, reason: SignatureReason, serial: str | None = None) -> None:
        self.reason, self.serial = reason, serial
        super().__init__(message)


class DecryptError(WeChatPayError):
    """A ciphertext does not open; check ``WECHATPAY_APIV3_KEY`` and ``…_PREVIOUS``."""


class MessageError(WeChatPayError):
    """A message does not have the shape APIv3 documents; ``field`` is its JSON path."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        self.field = field
        super().__init__(message)


class ApiError(WeChatPayError):
    """The gateway answered with a refusal.

    Branch on the class or on ``code``, never on ``message``. ``status`` is the HTTP status,
    ``detail`` the gateway's own explanation, ``request_id`` what its support asks for, and
    ``verified`` whether the answer carried a valid signature (401s carry none).
    """

    codes: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        detail: Mapping[str, Any] | None = None,
        request_id: str | None = None,
        verified: bool = False,
    ) -> None:
        self.status, self.code, self.message = status, code, message
        self.detail, self.request_id, self.verified = detail, request_id, verified
        super().__init__(f"{status} {code}: {message} (Request-ID {request_id or 'absent'})")

    @classmethod
    def of(
        cls,
        status: int,
        code: str,
        message: str,
        *,
        detail: Mapping[str, Any] | None = None,
        request_id: str | None = None,
        verified: bool = False,
    ) -> ApiError:
        """The subclass that the code calls for; aliases such as ORDERPAID count as one code."""
        kind = _BY_CODE.get(code.replace("_", ""), ApiError)
        if kind is ApiError and status == 429:  # noqa: PLR2004 - codes for it differ by page
            kind = FrequencyLimitedError
        elif kind is ApiError and status >= 500:  # noqa: PLR2004 - any 5xx is "try again"
            kind = SystemUnavailableError
        return kind(status, code, message, detail=detail, request_id=request_id, verified=verified)


class ParamError(ApiError):
    """A field was refused; ``detail`` names it. Correct the request."""

    codes = ("PARAM_ERROR",)


class InvalidRequestError(ApiError):
    """The request contradicts the state or an earlier one. Query, then correct it."""

    codes = ("INVALID_REQUEST",)


class SignError(ApiError):
    """The gateway refused our signature. Check serial, private key and the machine's clock."""

    codes = ("SIGN_ERROR",)


class NoAuthError(ApiError):
    """The merchant has no permission for this API. Ask for it in the merchant platform."""

    codes = ("NO_AUTH",)


class OrderPaidError(ApiError):
    """The order is paid already. Query it to settle it; do not take the money again."""

    codes = ("ORDER_PAID",)


class OrderClosedError(ApiError):
    """The order is closed for ever. Place a new one under a new number."""

    codes = ("ORDER_CLOSED",)


class OutTradeNoUsedError(ApiError):
    """The number was used with other parameters. Query it, or take a new number."""

    codes = ("OUT_TRADE_NO_USED",)


class OrderNotExistError(ApiError):
    """WeChat Pay knows no such order."""

    codes = ("ORDER_NOT_EXIST",)


class ResourceNotExistsError(ApiError):
    """WeChat Pay knows no such refund, certificate or order to refund."""

    codes = ("RESOURCE_NOT_EXISTS", "REFUND_NOT_EXISTS")


class NotEnoughError(ApiError):
    """The balance does not cover the refund. Top up, then repeat with the same number."""

    codes = ("NOT_ENOUGH",)


class FrequencyLimitedError(ApiError):
    """Too many calls. Wait and repeat with the same number; query refunds first."""

    codes = ("FREQUENCY_LIMITED", "RATELIMIT_EXCEEDED", "FREQUENCY_LIMIT_EXCEED")


class NoStatementError(ApiError):
    """The day had no trade, so there is no bill: final, and no fault of the books."""

    codes = ("NO_STATEMENT_EXIST",)


class StatementNotReadyError(ApiError):
    """The bill is not made yet; ``ready_at`` (aware) is when to come back."""

    codes = ("STATEMENT_CREATING",)
    ready_at: datetime | None = None


class SystemUnavailableError(ApiError):
    """The gateway failed on a call that changes nothing. Repeat it."""

    codes = ("SYSTEM_ERROR", "BANK_ERROR", "SERVICE_UNAVAILABLE")


_BY_CODE = {
    code.replace("_", ""): kind for kind in ApiError.__subclasses__() for code in kind.codes
}


class TransportError(WeChatPayError):
    """The gateway was not reached, or a read went unanswered: nothing was done. Repeat."""


class OutcomeUnknownError(WeChatPayError):
    """A call that changes something was sent and no trustworthy answer came.

    Query the order or refund, or repeat with the same number and parameters.
    ``status`` and ``code`` are set where an answer came that cannot be relied on.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
    ) -> None:
        self.status, self.code, self.request_id = status, code, request_id
        super().__init__(message)


class OrderMismatchError(WeChatPayError):
    """The number was recorded before with other parameters; nothing was sent. Use a new number."""


class UnknownOrderError(WeChatPayError):
    """The number was never placed through this store; nothing was sent."""


class BillHashMismatchError(WeChatPayError):
    """The downloaded bill does not have the announced hash; no file was left. Fetch it again."""


class StoreError(WeChatPayError):
    """The order store could not do what was asked; nothing was acknowledged."""


class StoreBusyError(StoreError):
    """Another process holds the store's lock beyond the time there is. Come again."""


class LeaseLostError(StoreError):
    """A claim outlived its lease and a successor took it; what it did is not recorded."""


class HookError(WeChatPayError):
    """A plugin raised while a call of the shop's settled an order; it will be tried again.

    ``__cause__`` is the plugin's exception; ``transaction`` what WeChat Pay said.
    """

    def __init__(self, message: str, *, transaction: object = None) -> None:
        self.transaction = transaction
        super().__init__(message)


_SHOWN = 80  # characters of a refused value: enough to recognise it, not to flood a log


def _shown(value: object) -> str:
    text = ascii(value) if isinstance(value, bytes) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"
