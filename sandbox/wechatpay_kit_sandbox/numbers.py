"""The numbers that WeChat Pay gives out, in the shapes observed at the real gateway.

Knows digits and dates; randomness comes in, so that a seed can rule it.
"""

from __future__ import annotations

import random
import string
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["Numbers"]

_ALPHANUMERIC = string.ascii_letters + string.digits


class Numbers:
    """A source of fresh numbers; not secrets, though the default source would do for them."""

    def __init__(self, source: random.Random | None = None) -> None:
        self._source = source or random.SystemRandom()

    def transaction_id(self, now: datetime) -> str:
        """28 digits, beginning with 4200."""
        return f"4200{self._digits(6)}{now:%Y%m%d}{self._digits(10)}"

    def refund_id(self, now: datetime) -> str:
        """29 digits, beginning with 50."""
        return f"503{self._digits(7)}{now:%Y%m%d}{self._digits(11)}"

    def prepay_id(self, now: datetime) -> str:
        """``wx``, the time, and hex: 36 characters."""
        return f"wx{now:%Y%m%d%H%M%S}{self._source.getrandbits(80):020x}"

    def notification_id(self) -> str:
        return str(uuid.UUID(int=self._source.getrandbits(128), version=4))

    def request_id(self, number: int) -> str:
        """``08`` and hex, then the gateway's internal error number, 0 where all is well."""
        return f"08{self._source.getrandbits(88):022X}-{number}"

    def nonce(self, length: int = 32) -> str:
        return "".join(self._source.choices(_ALPHANUMERIC, k=length))

    def token(self) -> str:
        return self.nonce(48)

    def _digits(self, count: int) -> str:
        return f"{self._source.randrange(10**count):0{count}d}"
