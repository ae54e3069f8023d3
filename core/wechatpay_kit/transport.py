"""One signed HTTP exchange with the gateway: sign, send, fail over, verify, decode the error.

Knows hosts, attempts and time; knows nothing of what a call means. Rules: APIv3 request
signatures (the raw path and query and the very bytes of the body) and verification of answers
over the raw bytes. What may be concluded from an answer is the table in :mod:`.outcomes`.
"""

from __future__ import annotations

import contextvars
import logging
import random
import threading
import time
from concurrent.futures import Future
from contextlib import contextmanager
from http import HTTPStatus
from itertools import count
from typing import TYPE_CHECKING, TypedDict
from urllib.parse import urlsplit

import msgspec

from . import log
from .errors import OrderClosedError, OrderPaidError, SignatureError
from .outcomes import Reply, loggable, outcome, refusal, unanswered, unknown
from .signer import authorization
from .verifier import verify
from .wire import FAULTS, USER_AGENT, Departure, Wire, chunks, fault_text, request_target

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from datetime import datetime

    import requests

    from .errors import WeChatPayError
    from .merchant import Merchant
    from .verifier import KeyRing

    Headers = tuple[tuple[str, str], ...]
    Check = Callable[[Headers, bytes], None]

__all__ = ["Reply", "Transport", "TransportOptions"]

_LARGEST_ANSWER = 8 * 1024 * 1024  # bytes; only bills are large, and they are streamed
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 4.0  # seconds; the pause is a random part of 0.5, 1, 2, 4, 4…


class TransportOptions(TypedDict, total=False):
    """Time-outs in seconds, the number of attempts, and the sources of time and chance."""

    connect_timeout: float
    read_timeout: float
    attempts: int
    sleep: Callable[[float], None]
    jitter: Callable[[], float]
    monotonic: Callable[[], float]


class Transport:
    """Exchanges with one gateway for one merchant; safe to use from many threads and after a fork.

    ``clock`` is wall time, ``nonce`` makes at most 32 random characters. ``on_unknown_key`` is
    asked once an exchange when an answer names a key that is not held, and says whether it is
    worth looking again.
    """

    def __init__(
        self,
        merchant: Merchant,
        *,
        keys: KeyRing,
        clock: Callable[[], datetime],
        nonce: Callable[[], str],
        on_unknown_key: Callable[[], bool] | None = None,
        connect_timeout: float = 3.0,
        read_timeout: float = 10.0,
        attempts: int = 3,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._merchant = merchant
        self._keys = keys
        self._clock, self._nonce = clock, nonce
        self._on_unknown_key = on_unknown_key or (lambda: False)
        self._connect_timeout, self._read_timeout = connect_timeout, read_timeout
        self._attempts = attempts
        self._sleep, self._jitter, self._monotonic = sleep, jitter, monotonic
        self._wire = Wire()

    @property
    def hosts(self) -> tuple[str, ...]:
        """The gateway's addresses, main first."""
        merchant = self._merchant
        return tuple(url for url in (merchant.base_url, merchant.backup_url) if url)

    def exchange(
        self,
        method: str,
        target: str,
        *,
        body: bytes = b"",
        content_type: str = "application/json",
        signed_body: bytes | None = None,
        serial: str | None = None,
        idempotent: bool = False,
        check: Check | None = None,
        timeout: float | None = None,
    ) -> Reply:
        """Send one call and return its verified 2xx answer; the table in outcomes says the rest.

        ``target`` is path and query; what in it needs percent-encoding is encoded once, then
        signed and sent. ``signed_body`` is what is signed where that is not the body (uploads).
        ``serial`` names the key that sealed fields of the body. ``idempotent`` allows a POST to
        be repeated. ``timeout`` bounds all of it in seconds, name resolution included.
        ``check`` takes the place of the signature check against the ring and its refresh.
        """
        call = _Call(
            method=method.upper(),
            target=request_target(target),
            body=body,
            content_type=content_type,
            signed_body=body if signed_body is None else signed_body,
            serial=serial or self._merchant.public_key_id,
            hosts=self.hosts,
            check=check,
            idempotent=idempotent,
        )
        with self._logged(call):
            if timeout is None:  # a server that drips headers would otherwise hold us for ever
                timeout = self._attempts * (
                    self._connect_timeout + self._read_timeout + _LONGEST_PAUSE
                )
            call.deadline = self._monotonic() + timeout
            return self._run_within(timeout, call)

    @contextmanager
    def download(self, target: str, *, host: str) -> Generator[Iterator[bytes], None, None]:
        """The raw bytes of a file at ``host``, as they arrive.

        The request is signed as any, the answer is not: the caller compares a hash. Raises
        :class:`ApiError` for a refusal, :class:`TransportError` where the file does not come or
        stops coming.
        """
        call = _Call(
            method="GET",
            target=request_target(target),
            serial=self._merchant.public_key_id,
            hosts=(host,),
            is_stream=True,
        )
        with self._logged(call):
            self._run(call)
            with call.response as response:
                yield _arriving(call, response)

    def close(self) -> None:
        """Close this process's connections; a later call opens new ones."""
        self._wire.close()

    # An exchange: attempts, until one is decisive

    def _run(self, call: _Call) -> Reply:
        allowed = self._attempts
        for call.attempts in count(1):
            try:
                reply = call.reply = self._send(call)
            except FAULTS as fault:
                call.in_doubt |= call.departure.is_sent
                failure = call.unanswered(fault)
                may_repeat = call.repeatable or not call.in_doubt
            else:
                verdict = self._verdict(call, reply)
                if isinstance(verdict, Reply):
                    return verdict
                failure, may_repeat = verdict
                if isinstance(failure.__cause__ or failure, SignatureError):
                    # A probe is not repeated (APIv3, signature probes): one more attempt.
                    allowed, may_repeat = allowed + 1, may_repeat and not call.was_unsigned
                    call.was_unsigned = True
            if not may_repeat or call.attempts >= allowed or not self._pause(call):
                raise failure
        raise AssertionError  # pragma: no cover - count() does not end

    def _verdict(self, call: _Call, reply: Reply) -> Reply | tuple[WeChatPayError, bool]:
        """The answer to return, or the error to raise unless the call may be repeated."""
        if reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            call.in_doubt = True
            refused = refusal(reply, verified=self._is_signed(call, reply))
            return (
                refused if call.is_read else unknown(call.name, reply, refused)
            ), call.repeatable
        if reply.status >= HTTPStatus.MULTIPLE_CHOICES:
            refused = refusal(reply, verified=self._is_signed(call, reply))
            decisive = refused.verified and isinstance(refused, OrderPaidError | OrderClosedError)
            if call.in_doubt and not call.is_read and not decisive:
                return unknown(call.name, reply, refused), False
            return refused, False
        if call.is_stream:
            return reply
        try:
            self._check(call, reply)
        except SignatureError as error:
            call.in_doubt = True
            return (error if call.is_read else unknown(call.name, reply, error)), call.repeatable
        return msgspec.structs.replace(reply, verified=True)

    def _pause(self, call: _Call) -> bool:
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (call.attempts - 1)) * self._jitter()
        if call.deadline is not None and self._monotonic() + pause >= call.deadline:
            return False
        self._sleep(pause)
        return True

    def _run_within(self, timeout: float, call: _Call) -> Reply:
        # Time-outs of sockets bound each wait, not their sum: a resolver that hangs, an address
        # list of which each entry times out, a server that drips bytes. So the exchange runs
        # beside the caller, who leaves on time; its socket is shut, which ends it too.
        future: Future[Reply] = Future()

        def work() -> None:
            try:
                future.set_result(self._run(call))
            except BaseException as error:  # noqa: BLE001 - handed over to the caller's thread
                future.set_exception(error)

        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(work,), daemon=True).start()
        try:
            return future.result(timeout)
        except TimeoutError as late:
            call.in_doubt |= call.departure.abandon()
            raise call.unanswered(late) from late

    # One attempt: fresh timestamp, nonce and signature

    def _send(self, call: _Call) -> Reply:
        host = call.hosts[(call.attempts - 1) % len(call.hosts)]
        call.host = urlsplit(host).netloc
        call.response = response = self._wire.send(
            call.departure,
            call.method,
            host,
            call.target,
            headers=self._headers(call),
            body=call.body,
            timeouts=self._timeouts(call),
        )
        reply = Reply(
            status=response.status_code, headers=tuple(response.raw.headers.items()), body=b""
        )
        if call.is_stream and reply.status < HTTPStatus.MULTIPLE_CHOICES:
            return reply
        with response:
            return msgspec.structs.replace(reply, body=self._body(call, response))

    def _headers(self, call: _Call) -> dict[str, str]:
        merchant = self._merchant
        headers = {
            "Authorization": authorization(
                merchant.signer,
                mchid=merchant.mchid,
                method=call.method,
                target=call.target,
                body=call.signed_body,
                timestamp=str(int(self._clock().timestamp())),
                nonce=self._nonce(),
            ),
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # what is signed, or hashed, is what is on the wire
            "User-Agent": USER_AGENT,
        }
        if call.body:
            headers["Content-Type"] = call.content_type
        if call.serial:
            headers["Wechatpay-Serial"] = call.serial
        return headers

    def _timeouts(self, call: _Call) -> tuple[float, float]:
        left = float("inf") if call.deadline is None else call.deadline - self._monotonic()
        if left <= 0:
            raise TimeoutError("the time for this call is over")
        return min(self._connect_timeout, left), min(self._read_timeout, left)

    def _body(self, call: _Call, response: requests.Response) -> bytes:
        # The read time-out starts anew with every byte; an answer is small, so it counts once.
        limit = self._monotonic() + self._timeouts(call)[1]
        parts = []
        size = 0
        for part in chunks(response):
            parts.append(part)
            size += len(part)
            if size > _LARGEST_ANSWER:
                raise OSError(f"the answer is larger than {_LARGEST_ANSWER} bytes")
            if self._monotonic() > limit:
                raise TimeoutError("the answer did not end in time")
        return b"".join(parts)

    # What an answer is worth

    def _check(self, call: _Call, reply: Reply) -> None:
        if call.check is not None:
            call.check(reply.headers, reply.body)
            return
        try:
            verify(reply.headers, reply.body, keys=self._keys, now=self._clock())
        except SignatureError as error:
            if error.reason != "unknown_key" or call.asked_for_keys:
                raise
            call.asked_for_keys = True
            if not self._on_unknown_key():
                raise
            verify(reply.headers, reply.body, keys=self._keys, now=self._clock())

    def _is_signed(self, call: _Call, reply: Reply) -> bool:
        try:
            if call.check is None:
                self._check(call, reply)
            else:  # it is for the answer asked for; and a refusal must not refresh the ring
                verify(reply.headers, reply.body, keys=self._keys, now=self._clock())
        except SignatureError:
            return False
        return True

    @contextmanager
    def _logged(self, call: _Call) -> Generator[None, None, None]:
        started = self._monotonic()
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            log.write(
                logging.INFO if error is None else logging.WARNING,
                "call",
                method=call.method,
                path=loggable(call.target),
                host=call.host,
                outcome=outcome(error),
                status=call.reply.status if call.reply else None,
                code=getattr(error, "code", None),
                request_id=call.reply.request_id if call.reply else None,
                attempts=call.attempts,
                milliseconds=round((self._monotonic() - started) * 1000),
            )


class _Call:
    """One exchange: what is asked, and how far it came."""

    def __init__(
        self,
        *,
        method: str,
        target: str,
        hosts: Sequence[str],
        serial: str | None,
        body: bytes = b"",
        signed_body: bytes = b"",
        content_type: str = "application/json",
        check: Check | None = None,
        idempotent: bool = False,
        is_stream: bool = False,
    ) -> None:
        self.method, self.target, self.hosts, self.serial = method, target, hosts, serial
        self.body, self.signed_body, self.content_type = body, signed_body, content_type
        self.check, self.is_stream = check, is_stream
        self.is_read = method in {"GET", "HEAD"}
        self.repeatable = self.is_read or idempotent
        self.deadline: float | None = None

        self.attempts = 0
        self.departure = Departure()
        self.host: str | None = None
        self.response: requests.Response  # of the last attempt that got one
        self.reply: Reply | None = None
        self.in_doubt = False  # some attempt was sent and got no answer to rely on
        self.was_unsigned = False
        self.asked_for_keys = False

    @property
    def name(self) -> str:
        return f"{self.method} {loggable(self.target)}"

    def unanswered(self, fault: BaseException) -> WeChatPayError:
        failure = unanswered(
            self.name,
            f"{fault_text(fault)} ({self.attempts} attempts)",
            may_be_done=self.in_doubt and not self.is_read,
            reply=self.reply,
        )
        failure.__cause__ = fault
        return failure


def _arriving(call: _Call, response: requests.Response) -> Iterator[bytes]:
    try:
        yield from chunks(response)
    except FAULTS as fault:
        raise call.unanswered(fault) from fault
