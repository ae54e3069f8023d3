"""Apply for a bill, and fetch it while its URL lives.

Knows days, tokens and life times; knows nothing of HTTP, nor of what is in a bill. Bill days follow
the business clock; a download URL lives real seconds, for a real client must fetch it.
"""

from __future__ import annotations

import gzip
import hashlib
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from .bills import ready_at, trade_bill
from .errors import (
    BILL_DATE_TOO_OLD,
    BILL_NOT_OF_MERCHANT,
    BILL_URL_EXPIRED,
    NO_STATEMENT,
    STATEMENT_CREATING,
    TODAY_HAS_NO_BILL,
    Refusal,
)
from .validation import refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .numbers import Numbers
    from .state import Ledger

__all__ = ["BillDesk", "BillTicket"]

_KEPT = timedelta(days=92)  # three months


class BillTicket(NamedTuple):
    """What an application for a bill is answered with; the hash is of the uncompressed file."""

    sha1: str
    token: str
    is_gzipped: bool


class _File(NamedTuple):
    mchid: str
    expires: float
    content: bytes


class BillDesk:
    """Bills of one ledger. Not thread-safe by itself."""

    def __init__(
        self,
        ledger: Ledger,
        numbers: Numbers,
        *,
        url_life: timedelta,
        monotonic: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._numbers = numbers
        self._url_life = url_life.total_seconds()
        self._monotonic = monotonic
        self._files: dict[str, _File] = {}

    def apply(self, mchid: str, query: Mapping[str, str], now: datetime) -> BillTicket:
        """The bill that ``query`` (checked for form) asks for; a Refusal while there is none."""
        day = _available_day(query["bill_date"], now)
        content = trade_bill(
            [order for order in self._ledger.orders(now) if order.mchid == mchid],
            [refund for refund in self._ledger.refunds() if refund.mchid == mchid],
            day,
            query.get("bill_type", "ALL"),
        )
        if content is None:
            raise Refusal(NO_STATEMENT)
        is_gzipped = "tar_type" in query
        self._files = {t: f for t, f in self._files.items() if f.expires > self._monotonic()}
        token = self._numbers.token()
        self._files[token] = _File(
            mchid,
            self._monotonic() + self._url_life,
            gzip.compress(content, mtime=0) if is_gzipped else content,
        )
        # The bill's hash is the protocol's; it guards against accidents, not against forgers.
        return BillTicket(hashlib.sha1(content).hexdigest(), token, is_gzipped)  # noqa: S324

    def fetch(self, mchid: str, token: str) -> bytes:
        """The file behind a token, as often as is asked while the token lives."""
        file = self._files.get(token)
        if file is None or file.expires <= self._monotonic():
            raise Refusal(BILL_URL_EXPIRED)
        if file.mchid != mchid:
            raise Refusal(BILL_NOT_OF_MERCHANT)
        return file.content


def _available_day(bill_date: str, now: datetime) -> date:
    try:
        day = date.fromisoformat(bill_date)
    except ValueError:
        raise refusal("/query/bill_date", bill_date, "账单日期格式不正确") from None
    if day >= now.date():
        raise Refusal(TODAY_HAS_NO_BILL)
    if now < ready_at(day):
        raise Refusal(STATEMENT_CREATING)
    if day < now.date() - _KEPT:
        raise Refusal(BILL_DATE_TOO_OLD)
    return day
