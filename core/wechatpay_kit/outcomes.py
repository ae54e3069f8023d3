"""What an answer, or its absence, lets the caller of the gateway conclude.

Knows statuses, error bodies and what they are worth; knows nothing of sockets or keys.

==========================================  =====================  ==============================
what came back                              of a read (GET)        of a call that may change things
==========================================  =====================  ==============================
2xx, signature good                         the answer             the answer
2xx, signature absent or bad, repeated too  SignatureError         OutcomeUnknownError
3xx, 4xx, signed or not                     ApiError               ApiError [#]_
5xx to the last attempt                     ApiError               OutcomeUnknownError
nothing, and no byte was sent               TransportError         TransportError
nothing, truncated or too late              TransportError         OutcomeUnknownError
==========================================  =====================  ==============================

.. [#] OutcomeUnknownError if an earlier attempt of the same exchange may have been carried out: a
   refusal of the repeat says nothing of the first, unless it is "paid" or "closed".
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from .errors import (
    ApiError,
    MessageError,
    OutcomeUnknownError,
    SignatureError,
    TransportError,
)

if TYPE_CHECKING:
    from .errors import WeChatPayError

__all__ = ["Reply", "loggable", "outcome", "refusal", "unanswered", "unknown"]


class Reply(Struct, frozen=True, kw_only=True):
    """An answer as it came; ``verified`` says whether its signature was checked and is good."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    verified: bool = False

    @property
    def request_id(self) -> str | None:
        """What WeChat Pay's support asks for."""
        return next((value for name, value in self.headers if name.lower() == "request-id"), None)

    def json(self) -> Any:
        """The body as JSON; :class:`MessageError` where it is none."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise MessageError(f"the answer is no JSON: {error}") from None

    def __repr__(self) -> str:  # a body may hold an openid
        return f"Reply({self.status}, {len(self.body)} bytes, verified={self.verified})"


def refusal(reply: Reply, *, verified: bool) -> ApiError:
    """The error that a 3xx, 4xx or 5xx is, whatever its body."""
    try:
        said = reply.json()
    except MessageError:
        said = None
    said = said if isinstance(said, dict) else {}
    code, message, detail = said.get("code"), said.get("message"), said.get("detail")
    if not isinstance(message, str) or not message:
        is_redirect = reply.status < HTTPStatus.BAD_REQUEST
        message = "redirects are not followed" if is_redirect else "the answer says no more"
    return ApiError.of(
        reply.status,
        code if isinstance(code, str) and code else f"HTTP_{reply.status}",
        message,
        detail=detail if isinstance(detail, dict) else None,
        request_id=reply.request_id,
        verified=verified,
    )


def unanswered(
    call: str, why: str, *, may_be_done: bool, reply: Reply | None = None
) -> WeChatPayError:
    """No answer, or none that is whole; ``reply`` is an earlier one that was of no use."""
    if not may_be_done:
        return TransportError(f"{call}: {why}; nothing was done, repeat it")
    return OutcomeUnknownError(
        f"{call}: {why}; it was sent and may have been done: query before you act",
        status=reply.status if reply else None,
        request_id=reply.request_id if reply else None,
    )


def unknown(call: str, reply: Reply, cause: ApiError | SignatureError) -> OutcomeUnknownError:
    """An answer that leaves open what was done."""
    failure = OutcomeUnknownError(
        f"{call} was sent and may have been done: {cause}; query before you act",
        status=reply.status,
        code=cause.code if isinstance(cause, ApiError) else None,
        request_id=reply.request_id,
    )
    failure.__cause__ = cause
    return failure


def outcome(error: BaseException | None) -> str:
    """One word for the log."""
    for kind, word in _OUTCOMES:
        if isinstance(error, kind):
            return word
    return "ok" if error is None else "failed"


_OUTCOMES = (
    (ApiError, "refused"),
    (SignatureError, "unverified"),
    (OutcomeUnknownError, "unknown"),
    (TransportError, "unreachable"),
)


def loggable(target: str) -> str:
    """The path without what must not be logged: queries carry tokens, some paths an openid."""
    return re.sub("/o[0-9A-Za-z_-]{27}(?=/|$)", "/***", target.partition("?")[0])
