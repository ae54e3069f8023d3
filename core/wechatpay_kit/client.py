"""The API calls of one merchant, each signed, verified and decoded; useful by itself.

Knows paths and shapes; knows nothing of stores or hooks, and remembers nothing between calls.
Rules: APIv3 JSAPI orders (a mini-program's too), refunds, bills, certificates and media.
"""

from __future__ import annotations

import re
import secrets
import string
from typing import TYPE_CHECKING, Any, TypeVar, overload
from urllib.parse import quote, urlencode

import msgspec

from .clocks import wall_clock
from .decryptor import decrypt_sensitive, encrypt_sensitive
from .downloads import TradeBill
from .drafts import Draft, OrderOptions, RefundDraft, RefundOptions, draft_order, draft_refund
from .errors import ConfigError, MessageError, ParameterError, SignatureError
from .limits import check_out_refund_no, check_out_trade_no
from .media import image, video
from .models import (
    CertificatesReply,
    CloseRequest,
    MediaReply,
    OrderReply,
    Refund,
    RefundRequest,
    Transaction,
    decode,
    encode,
)
from .signer import request_payment
from .transport import Reply, Transport, TransportOptions
from .verifier import KeyRing, VerificationKey, normal_serial, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import date, datetime
    from typing import Unpack

    from .media import Upload
    from .merchant import Merchant

__all__ = [
    "Client",
    "Draft",
    "OrderOptions",
    "RefundDraft",
    "RefundOptions",
    "Reply",
    "Sealer",
    "TradeBill",
]

T = TypeVar("T")

_ORDERS = "/v3/pay/transactions"
_REFUNDS = "/v3/refund/domestic/refunds"
_ALPHABET = string.ascii_letters + string.digits


def _random_nonce() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(32))


class Sealer:
    """Encrypts sensitive request fields for one key; send its ``serial`` with the request."""

    def __init__(self, key: VerificationKey) -> None:
        self._key = key

    @property
    def serial(self) -> str:
        """What ``Wechatpay-Serial`` must name: ``request(…, serial=sealer.serial)``."""
        return self._key.serial

    def seal(self, text: str) -> str:
        """``text`` as base64 RSA-OAEP; :class:`ParameterError` if it is too long for the key."""
        return encrypt_sensitive(self._key.public_key, text)


class Client:
    """Calls WeChat Pay for one merchant; safe to use from many threads and after a fork.

    ``keys`` (default the merchant's) verify answers; ``clock`` is wall time for signatures,
    ``business_clock`` (default the same) rules expiry and bill days, both aware. ``nonce`` makes
    32 random characters. ``on_unknown_key`` is called when an answer names a key that is not held
    or none is held to seal with; True says that the ring has new keys. Time-outs and retries:
    :class:`~wechatpay_kit.transport.TransportOptions`.

    Every call raises as the table in :mod:`wechatpay_kit.outcomes` says: a subclass of
    :class:`ApiError` for a refusal, :class:`TransportError` if nothing was done,
    :class:`OutcomeUnknownError` if something may have been; and :class:`ParameterError` before
    anything is sent.
    """

    def __init__(
        self,
        merchant: Merchant,
        *,
        keys: KeyRing | None = None,
        clock: Callable[[], datetime] = wall_clock,
        business_clock: Callable[[], datetime] | None = None,
        nonce: Callable[[], str] = _random_nonce,
        on_unknown_key: Callable[[], bool] | None = None,
        **transport: Unpack[TransportOptions],
    ) -> None:
        self.merchant = merchant
        self.keys = merchant.keys if keys is None else keys
        self._clock = clock
        self._business_clock = business_clock or clock
        self._nonce = nonce
        self._on_unknown_key = on_unknown_key or (lambda: False)
        self._transport = Transport(
            merchant,
            keys=self.keys,
            clock=clock,
            nonce=nonce,
            on_unknown_key=self._on_unknown_key,
            **transport,
        )

    def close(self) -> None:
        """Close the connections of this process; a later call opens new ones."""
        self._transport.close()

    def __repr__(self) -> str:
        return f"Client({self.merchant!r})"

    # Orders

    def create_order(
        self,
        *,
        out_trade_no: str,
        total: int,
        description: str,
        openid: str,
        default_time_expire: datetime | None = None,
        **options: Unpack[OrderOptions],
    ) -> OrderReply:
        """Place an order of ``total`` fen for the user ``openid``; its prepay_id lives 2 h.

        The same number with the same arguments may be placed again.
        """
        return self.send_order(
            self.draft_order(
                out_trade_no=out_trade_no,
                total=total,
                description=description,
                openid=openid,
                default_time_expire=default_time_expire,
                **options,
            )
        )

    def draft_order(
        self,
        *,
        out_trade_no: str,
        total: int,
        description: str,
        openid: str,
        default_time_expire: datetime | None = None,
        **options: Unpack[OrderOptions],
    ) -> Draft:
        """Check an order and serialise it; sends nothing."""
        return draft_order(
            self.merchant,
            out_trade_no=out_trade_no,
            total=total,
            description=description,
            openid=openid,
            now=self._business_clock(),
            default_time_expire=default_time_expire,
            options=options,
            sealer=self.sealer,
        )

    @overload
    def send_order(self, draft: Draft) -> OrderReply: ...

    @overload
    def send_order(self, *, body: bytes, serial: str | None = None) -> OrderReply: ...

    def send_order(
        self, draft: Draft | None = None, *, body: bytes = b"", serial: str | None = None
    ) -> OrderReply:
        """Send a draft, or its recorded ``body`` and ``serial`` again."""
        if draft is not None:
            body, serial = draft.body, draft.serial
        return self._post(f"{_ORDERS}/jsapi", body, OrderReply, serial=serial)

    def request_payment(self, prepay_id: str, *, appid: str | None = None) -> dict[str, str]:
        """The argument of ``wx.requestPayment``, signed now; sends nothing.

        ``appid`` must be the one that the order was placed with (default the merchant's).
        """
        if not prepay_id:
            raise ParameterError("prepay_id", "must be what placing the order answered", prepay_id)
        return request_payment(
            self.merchant.signer,
            appid=appid or self.merchant.appid,
            prepay_id=prepay_id,
            timestamp=str(int(self._clock().timestamp())),
            nonce=self._nonce(),
        )

    def query_order(
        self,
        *,
        out_trade_no: str | None = None,
        transaction_id: str | None = None,
        timeout: float | None = None,
    ) -> Transaction:
        """The order as WeChat Pay sees it, by either number; ``timeout`` is in seconds, in all."""
        if (out_trade_no is None) == (transaction_id is None):
            raise ParameterError(
                "out_trade_no", "exactly one of out_trade_no and transaction_id is needed", None
            )
        if out_trade_no is not None:
            check_out_trade_no(out_trade_no)
            where = f"out-trade-no/{_segment(out_trade_no)}"
        else:
            _check_transaction_id(transaction_id)
            where = f"id/{transaction_id}"
        reply = self._transport.exchange(
            "GET", f"{_ORDERS}/{where}?mchid={self.merchant.mchid}", timeout=timeout
        )
        transaction = decode(reply.body, Transaction)
        _is_of("mchid", transaction.mchid, self.merchant.mchid)
        _is_of("out_trade_no", transaction.out_trade_no, out_trade_no)
        _is_of("transaction_id", transaction.transaction_id, transaction_id)
        return transaction

    def close_order(self, out_trade_no: str) -> None:
        """Close an unpaid order for ever; :class:`OrderPaidError` if it is paid. May be repeated.

        Closing a number that was never placed uses it up.
        """
        check_out_trade_no(out_trade_no)
        self._transport.exchange(
            "POST",
            f"{_ORDERS}/out-trade-no/{_segment(out_trade_no)}/close",
            body=encode(CloseRequest(mchid=self.merchant.mchid)),
            idempotent=True,
        )

    # Refunds

    def create_refund(
        self, *, out_refund_no: str, refund: int, total: int, **options: Unpack[RefundOptions]
    ) -> Refund:
        """Give back ``refund`` fen of an order of ``total`` fen; PROCESSING means accepted.

        The same number with the same arguments may be sent again and never pays twice.
        """
        draft = self.draft_refund(
            out_refund_no=out_refund_no, refund=refund, total=total, **options
        )
        return self.send_refund(draft)

    def draft_refund(
        self, *, out_refund_no: str, refund: int, total: int, **options: Unpack[RefundOptions]
    ) -> RefundDraft:
        """Check a refund and serialise it; sends nothing."""
        return draft_refund(
            self.merchant, out_refund_no=out_refund_no, refund=refund, total=total, options=options
        )

    @overload
    def send_refund(self, draft: RefundDraft) -> Refund: ...

    @overload
    def send_refund(self, *, body: bytes, serial: str | None = None) -> Refund: ...

    def send_refund(
        self, draft: RefundDraft | None = None, *, body: bytes = b"", serial: str | None = None
    ) -> Refund:
        """Send a draft, or its recorded ``body`` again."""
        if draft is not None:
            body, serial = draft.body, draft.serial
        refund = self._post(_REFUNDS, body, Refund, serial=serial)
        _is_of("out_refund_no", refund.out_refund_no, decode(body, RefundRequest).out_refund_no)
        return refund

    def query_refund(self, out_refund_no: str) -> Refund:
        """The refund as WeChat Pay sees it."""
        check_out_refund_no(out_refund_no)
        reply = self._transport.exchange("GET", f"{_REFUNDS}/{_segment(out_refund_no)}")
        refund = decode(reply.body, Refund)
        _is_of("out_refund_no", refund.out_refund_no, out_refund_no)
        return refund

    # Bills

    def trade_bill(
        self, day: date, *, bill_type: str = "ALL", compressed: bool = True
    ) -> TradeBill:
        """The bill of a Beijing day; nothing is fetched before ``.download(path)`` or ``.rows()``.

        ``bill_type`` is ALL, SUCCESS or REFUND; ``compressed`` is how it travels. Raises
        :class:`StatementNotReadyError` before 10:00 Beijing time of the next day.
        """
        return TradeBill(
            day,
            bill_type=bill_type,
            compressed=compressed,
            transport=self._transport,
            now=self._business_clock,
        )

    # Keys and sensitive fields

    def platform_certificates(self, *, timeout: float | None = None) -> list[VerificationKey]:
        """WeChat Pay's platform certificates, decrypted and proven; changes no ring.

        Decrypting proves them (only WeChat Pay has the APIv3 key too), then the answer's signature
        must fit one of them or a key held. ``on_unknown_key`` is never called. In public-key mode
        a merchant has none: :class:`ResourceNotExistsError`.
        """
        found: list[VerificationKey] = []

        def check(headers: Iterable[tuple[str, str]], body: bytes) -> None:
            found[:] = self._open_certificates(body)
            now = self._clock()
            try:
                verify(headers, body, keys=KeyRing(found), now=now)
            except SignatureError as error:
                if error.reason != "unknown_key":
                    raise
                verify(headers, body, keys=self.keys, now=now)

        self._transport.exchange("GET", "/v3/certificates", check=check, timeout=timeout)
        return found

    def sealer(self) -> Sealer:
        """Encrypts sensitive fields for WeChat Pay's newest key held.

        Send what it sealed with ``serial=sealer.serial``. Raises :class:`ConfigError` where no key
        is held and none can be fetched.
        """
        key = self.keys.newest(self._clock())
        if key is None and self._on_unknown_key():
            key = self.keys.newest(self._clock())
        if key is None:
            raise ConfigError(
                "no key of WeChat Pay to encrypt for: set the public key with its id, or a "
                "platform certificate that has not expired"
            )
        return Sealer(key)

    def open_sealed(self, ciphertext: str) -> str:
        """The text of a sensitive answer field; :class:`DecryptError` if it is not for us."""
        return decrypt_sensitive(self.merchant.private_key, ciphertext)

    # Media, and everything else

    def upload_image(self, filename: str, content: bytes) -> str:
        """Upload a picture (jpg, bmp, png; at most 2 MiB); its media_id for other calls."""
        return self._upload("upload", image(filename, content))

    def upload_video(self, filename: str, content: bytes) -> str:
        """Upload a film (avi, wmv, mpeg, mp4, mov, …; at most 5 MiB); its media_id."""
        return self._upload("video_upload", video(filename, content))

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        json: Any = None,
        body: bytes | None = None,
        idempotent: bool | None = None,
        serial: str | None = None,
        timeout: float | None = None,
    ) -> Reply:
        """Any API that the kit does not model, signed, verified and retried the same way.

        ``json`` is serialised once; ``body`` is sent as it is. ``serial`` is the sealer's where
        fields are sealed. ``idempotent`` says that the same call may be repeated (GETs are).
        """
        if json is not None and body is not None:
            raise ParameterError("body", "json and body exclude each other", body)
        if serial is not None and not re.fullmatch("[0-9A-Za-z_]{1,64}", serial):
            raise ParameterError("serial", "must be a key's serial, sealer.serial", serial)
        if query:
            path += ("&" if "?" in path else "?") + urlencode(query, quote_via=quote)
        return self._transport.exchange(
            method,
            path,
            body=msgspec.json.encode(json) if json is not None else body or b"",
            serial=serial,
            idempotent=bool(idempotent),
            timeout=timeout,
        )

    def _post(self, path: str, body: bytes, kind: type[T], *, serial: str | None) -> T:
        reply = self._transport.exchange("POST", path, body=body, serial=serial, idempotent=True)
        return decode(reply.body, kind)

    def _upload(self, path: str, upload: Upload) -> str:
        reply = self._transport.exchange(
            "POST",
            f"/v3/merchant/media/{path}",
            body=upload.body,
            content_type=upload.content_type,
            signed_body=upload.meta,
            idempotent=True,
        )
        return decode(reply.body, MediaReply).media_id

    def _open_certificates(self, body: bytes) -> list[VerificationKey]:
        keys = []
        for listed in decode(body, CertificatesReply).data:
            sealed = listed.encrypt_certificate
            pem = self.merchant.decryptor.decrypt(
                algorithm=sealed.algorithm,
                nonce=sealed.nonce,
                associated_data=sealed.associated_data,
                ciphertext=sealed.ciphertext,
            )
            try:
                (key,) = VerificationKey.from_certificates(pem)
            except ValueError:
                raise MessageError(
                    f"certificate {listed.serial_no[:64]} is not one PEM certificate with an RSA "
                    "key",
                    field="data[].encrypt_certificate",
                ) from None
            if normal_serial(key.serial) != normal_serial(listed.serial_no):
                raise MessageError(
                    f"certificate {key.serial} is listed as {listed.serial_no[:64]}",
                    field="data[].serial_no",
                )
            keys.append(key)
        return keys


def _segment(value: str) -> str:
    return quote(value, safe="")


def _is_of(field: str, got: str | None, asked: str | None) -> None:
    """A signature does not tie an answer to its question; the numbers in it do."""
    if asked is not None and got != asked:
        raise MessageError(f"the answer is of {field} {got!r}, asked was {asked!r}", field=field)


def _check_transaction_id(value: object) -> None:
    if not isinstance(value, str) or not re.fullmatch("[0-9A-Za-z]{1,32}", value):
        raise ParameterError("transaction_id", "must be 1 to 32 letters and digits", value)
