"""A delivery in, an answer out.

Knows the order of the checks and what each failure answers; knows no web framework, and nothing
of how an order is settled. Rules: APIv3 notifications (verify, decrypt, answer within 5 s).
"""

from __future__ import annotations

import json
import logging
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import Struct

from . import log, verifier
from .errors import (
    ConfigError,
    DecryptError,
    HookError,
    MessageError,
    SignatureError,
    StoreError,
    WeChatPayError,
)
from .events import RejectedEvent
from .facts import REFUND_STATUSES, check_paid
from .models import Envelope, RefundNotice, Shape, Transaction, decode
from .refresher import Refresh
from .settlement import Outcome, Settled, Terms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .decryptor import Decryptor
    from .plugins import AsyncRunner, Plugins
    from .refresher import KeyRefresher
    from .settlement import Settlement
    from .verifier import KeyRing

__all__ = [
    "MAX_BODY",
    "Answer",
    "Notification",
    "NotificationKeys",
    "Receiver",
    "open_notification",
]

MAX_BODY = 2 * 1024 * 1024  # bytes; documented ciphertexts reach 1 MiB
PROBE_PREFIX = "WECHATPAY/SIGNTEST/"  # of the signature in a probe of WeChat Pay's
ANSWER_WITHIN = 4.5  # seconds; WeChat Pay waits 5


class _Refusal(NamedTuple):
    step: str
    status: int
    message: str


# One row a check, in the order in which they are made. The message is for the sender: enough for
# an operator, nothing for an attacker; the log has the rest.
REFUSALS = {
    "too_large": _Refusal("size", 413, "body too large"),
    "missing_header": _Refusal("headers", 400, "a Wechatpay-* header is missing"),
    "malformed_header": _Refusal("headers", 400, "a Wechatpay-* header is malformed"),
    "clock": _Refusal("clock", 401, "timestamp outside the window"),
    "unknown_key": _Refusal("key", 401, "unknown Wechatpay-Serial"),
    "key_refresh": _Refusal("key", 503, "keys are being refreshed, come again"),
    "bad_signature": _Refusal("signature", 401, "signature does not verify"),
    "undecodable": _Refusal("content", 400, "notification does not decode"),
    "undecryptable": _Refusal("content", 400, "resource does not decrypt"),
    "other_merchant": _Refusal("merchant", 422, "not this merchant's"),
    "not_success": _Refusal("merchant", 422, "payment is not SUCCESS"),
}


class Answer(NamedTuple):
    """What the adapter sends back."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class NotificationKeys(NamedTuple):
    """What opens a notification: WeChat Pay's keys, and the merchant's APIv3 keys."""

    ring: KeyRing
    decryptor: Decryptor


class Notification(Struct, frozen=True, kw_only=True):
    """A verified and decrypted notification.

    ``content`` is its modelled form; None for kinds and shapes that the kit does not model
    (combined, partner, other event types). ``serial`` signed it.
    """

    id: str
    event_type: str
    serial: str
    plaintext: bytes
    content: Transaction | RefundNotice | None = None
    create_time: datetime | None = None
    summary: str | None = None
    original_type: str | None = None

    def __repr__(self) -> str:  # the plaintext holds an openid
        return f"Notification({self.id!r}, {self.event_type!r})"


def open_notification(
    headers: Iterable[tuple[str, str]], body: bytes, keys: NotificationKeys, now: datetime
) -> Notification:
    """Verify, decode and decrypt; no I/O at all.

    ``headers`` are the pairs and ``body`` the raw bytes as received, ``now`` the wall clock
    (aware). Raises :class:`SignatureError`, then :class:`MessageError` or :class:`DecryptError`.
    """
    serial = verifier.verify(headers, body, keys=keys.ring, now=now)
    envelope = decode(body, Envelope)
    resource = envelope.resource
    plaintext = keys.decryptor.decrypt(
        algorithm=resource.algorithm,
        nonce=resource.nonce,
        associated_data=resource.associated_data,
        ciphertext=resource.ciphertext,
    )
    return Notification(
        id=envelope.id,
        event_type=envelope.event_type,
        serial=serial,
        plaintext=plaintext,
        content=_content(envelope.event_type, plaintext),
        create_time=_time(envelope.create_time),
        summary=envelope.summary,
        original_type=resource.original_type,
    )


class Receiver:
    """Answers deliveries for one merchant; safe for threads.

    ``max_body`` is the largest body in bytes, which adapters enforce while they read.
    """

    def __init__(
        self,
        *,
        mchid: str,
        keys: NotificationKeys,
        settlement: Settlement,
        plugins: Plugins,
        clock: Callable[[], datetime],
        refresher: KeyRefresher | None = None,
        max_body: int = MAX_BODY,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.mchid = mchid
        self.max_body = max_body
        self._keys = keys
        self._settlement = settlement
        self._plugins = plugins
        self._clock = clock
        self._refresher = refresher
        self._monotonic = monotonic

    def check_ready(self) -> None:
        """Raise :class:`ConfigError` where nobody listens for payments; adapters call it first."""
        self._settlement.require_listener()

    def receive(
        self,
        headers: Iterable[tuple[str, str]],
        body: bytes,
        *,
        deadline: timedelta | None = None,
        run_async: AsyncRunner | None = None,
    ) -> Answer:
        """Answer one delivery, whatever it is.

        ``deadline`` is the time left to the caller where it knows (zero is a value), which bounds
        leases and lock waits; ``run_async`` is its way to run a coroutine function. Raises
        nothing for what was delivered; ``RuntimeError`` where it is called on an event loop's own
        thread while async hooks are registered.
        """
        if run_async is None:
            self._plugins.refuse_running_loop()
        delivery = _Delivery(self, deadline, run_async)
        answer = Answer(500)
        try:
            answer = self._answer(delivery, headers, body)
        finally:  # also where the process is being interrupted
            delivery.write(answer.status, len(body))
        return answer

    def _answer(
        self, delivery: _Delivery, headers: Iterable[tuple[str, str]], body: bytes
    ) -> Answer:
        try:
            self._plugins.freeze()
            notification = self._open(headers, body)
            delivery.of(notification)
            self._check_ours(notification)
            settled = self._settle(notification, delivery.terms())
        except _RefusedError as refused:
            return self._refuse(delivery, refused, len(body))
        except Exception as error:  # noqa: BLE001 - whatever happens is answered and logged
            return delivery.failed(error)
        return delivery.settled(settled)

    def _open(self, headers: Iterable[tuple[str, str]], body: bytes) -> Notification:
        if len(body) > self.max_body:
            raise _RefusedError("too_large", f"{len(body)} bytes, more than {self.max_body}")
        pairs = tuple(headers)
        try:
            return self._open_or_refresh(pairs, body)
        except SignatureError as error:
            is_probe = error.reason == "bad_signature" and _is_probe(pairs)
            raise _RefusedError(
                error.reason, str(error), error.serial, is_probe=is_probe
            ) from error
        except MessageError as error:
            raise _RefusedError("undecodable", str(error), _serial(pairs)) from error
        except DecryptError as error:
            raise _RefusedError("undecryptable", str(error), _serial(pairs)) from error

    def _open_or_refresh(self, headers: tuple[tuple[str, str], ...], body: bytes) -> Notification:
        if self._refresher is not None:
            self._refresher.refresh_if_old()
        try:
            return open_notification(headers, body, self._keys, self._clock())
        except SignatureError as error:
            if error.reason != "unknown_key" or self._refresher is None:
                raise
            refreshed = self._refresher.refresh()
            if refreshed is not Refresh.DONE:
                raise _RefusedError(
                    "key_refresh", f"{error}; refresh {refreshed}", error.serial
                ) from error
        return open_notification(headers, body, self._keys, self._clock())

    def _check_ours(self, notification: Notification) -> None:
        content = notification.content
        claimed = {content.mchid} if content is not None else _merchants(notification.plaintext)
        if claimed and self.mchid not in claimed:
            raise _RefusedError(
                "other_merchant",
                f"for mchid {', '.join(sorted(claimed))}; this address is {self.mchid}'s",
                notification.serial,
            )
        if isinstance(content, Transaction) and content.trade_state != "SUCCESS":
            raise _RefusedError(
                "not_success", f"trade_state {content.trade_state}", notification.serial
            )

    def _settle(self, notification: Notification, terms: Terms) -> Settled:
        content = notification.content
        if isinstance(content, Transaction):
            return self._settlement.paid(content, terms)
        if isinstance(content, RefundNotice):
            return self._settlement.refund(content.refund(), terms, at=notification.create_time)
        return self._settlement.notification(
            terms,
            {
                "id": notification.id,
                "event_type": notification.event_type,
                "plaintext": notification.plaintext,
                "create_time": notification.create_time,
                "summary": notification.summary,
                "original_type": notification.original_type,
            },
        )

    def _refuse(self, delivery: _Delivery, refused: _RefusedError, size: int) -> Answer:
        refusal = REFUSALS[refused.reason]
        delivery.said(
            outcome="refused",
            probe=refused.is_probe or None,
            reason=refused.reason,
            step=refusal.step,
            serial=refused.serial,
            detail=str(refused),
        )
        event = RejectedEvent(
            mchid=self.mchid,
            key=f"rejected/{self.mchid}/{refused.reason}",
            step=refusal.step,
            reason=refused.reason,
            status=refusal.status,
            serial=refused.serial,
            size=size,
        )
        self._plugins.tell("on_rejected", event, run_async=delivery.run_async)
        return _failure(refusal.status, refusal.message)


class _RefusedError(Exception):
    def __init__(
        self, reason: str, message: str, serial: str | None = None, *, is_probe: bool = False
    ) -> None:
        self.reason, self.serial, self.is_probe = reason, serial, is_probe
        super().__init__(message)


class _Delivery:
    """One delivery: the time it has, and what its log line will say."""

    def __init__(
        self, receiver: Receiver, deadline: timedelta | None, run_async: AsyncRunner | None
    ) -> None:
        self._monotonic = receiver._monotonic  # noqa: SLF001 - one class in two parts
        self._began = self._monotonic()
        self._deadline = deadline
        self.run_async = run_async
        self._said: dict[str, Any] = {"mchid": receiver.mchid}
        self._trace: BaseException | None = None

    def terms(self) -> Terms:
        return Terms("notification", self._hold, self._wait, self.run_async)

    def _hold(self) -> timedelta | None:
        return None if self._deadline is None else self._deadline - self._elapsed()

    def _wait(self) -> timedelta:
        left = timedelta(seconds=ANSWER_WITHIN) - self._elapsed()
        hold = self._hold()
        return left if hold is None else min(left, hold)

    def _elapsed(self) -> timedelta:
        return timedelta(seconds=self._monotonic() - self._began)

    def of(self, notification: Notification) -> None:
        self.said(
            event_type=notification.event_type,
            notification_id=notification.id,
            serial=notification.serial,
            out_trade_no=getattr(notification.content, "out_trade_no", None),
        )

    def said(self, **fields: object) -> None:
        self._said |= fields

    def settled(self, settled: Settled) -> Answer:
        self.said(outcome=settled.outcome, reason=settled.reason, fence=settled.fence)
        if settled.is_final:
            return Answer(204)
        if settled.outcome is Outcome.CONFLICT:
            return _failure(500, "conflict, an operator must look")
        return _failure(503, "busy, come again")

    def failed(self, error: Exception) -> Answer:
        failure = next(row for row in _FAILURES if isinstance(error, row.error))
        self.said(outcome="failed", reason=failure.reason, detail=str(error))
        # The plugin's own exception, not ours around it: some formatters show no cause.
        self._trace = (error.__cause__ or error) if failure.traced else None
        return _failure(failure.status, failure.message)

    def write(self, status: int, size: int) -> None:
        is_well = status < 400 and self._said.get("outcome") != Outcome.EXPIRED  # noqa: PLR2004 - HTTP's
        level = logging.INFO if is_well else logging.WARNING
        milliseconds = round((self._monotonic() - self._began) * 1000)
        log.write(
            logging.ERROR if status == 500 else level,  # noqa: PLR2004 - HTTP's
            "delivery",
            exc_info=self._trace,
            **self._said,
            status=status,
            size=size,
            milliseconds=milliseconds,
        )


class _Failure(NamedTuple):
    error: type[Exception]
    status: int
    reason: str
    message: str
    traced: bool = False


# What goes wrong from settlement on; the first row that fits. WeChat Pay tells us again.
_FAILURES = (
    _Failure(HookError, 500, "hook_error", "a hook failed, come again", traced=True),
    _Failure(StoreError, 503, "store", "busy, come again"),
    _Failure(ConfigError, 500, "config", "not configured"),
    _Failure(WeChatPayError, 503, "gateway", "the order could not be queried, come again"),
    _Failure(Exception, 500, "error", "failed, come again", traced=True),
)


def _failure(status: int, message: str) -> Answer:
    body = json.dumps({"code": "FAIL", "message": message}).encode()
    return Answer(status, (("Content-Type", "application/json"),), body)


_MODELLED: dict[str, type[Transaction | RefundNotice]] = {
    "TRANSACTION.SUCCESS": Transaction,
    "REFUND.SUCCESS": RefundNotice,
    "REFUND.ABNORMAL": RefundNotice,
    "REFUND.CLOSED": RefundNotice,
}


def _content(event_type: str, plaintext: bytes) -> Transaction | RefundNotice | None:
    kind = _MODELLED.get(event_type)
    if kind is None:
        return None
    shape = decode(plaintext, Shape)
    if shape.combine_out_trade_no is not None or shape.sp_mchid is not None:
        return None
    content = decode(plaintext, kind)
    if isinstance(content, Transaction) and content.trade_state == "SUCCESS":
        check_paid(content)
    if isinstance(content, RefundNotice) and content.refund_status not in REFUND_STATUSES:
        return None
    return content


def _merchants(plaintext: bytes) -> set[str]:
    """The merchants that a plaintext of another kind names, where it is JSON and names any."""
    try:
        named = msgspec.json.decode(plaintext, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return set()
    fields = ("mchid", "sp_mchid", "sub_mchid", "combine_mchid")
    return {named[field] for field in fields if isinstance(named.get(field), str)}


def _time(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def _serial(headers: Iterable[tuple[str, str]]) -> str | None:
    return _header(headers, "wechatpay-serial") or None


def _is_probe(headers: Iterable[tuple[str, str]]) -> bool:
    """Whether WeChat Pay says that it tests us; refused like any forgery, but no alarm."""
    return _header(headers, "wechatpay-signature").startswith(PROBE_PREFIX)


def _header(headers: Iterable[tuple[str, str]], wanted: str) -> str:
    return next((value for name, value in headers if name.lower() == wanted), "").strip(" \t")
