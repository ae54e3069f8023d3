"""One HTTP POST of a notification, judged by its status alone.

Knows sockets and time-outs; knows nothing of what is delivered or when again.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import requests

__all__ = ["TIMEOUT", "Delivery", "Outcome", "Postman"]

TIMEOUT = 5.0  # seconds; WeChat Pay waits no longer


class Delivery(NamedTuple):
    """One delivery: freshly signed headers, and the body they sign. Post it as it is."""

    url: str
    headers: dict[str, str]
    body: bytes


class Outcome(NamedTuple):
    """What became of a delivery: a status, or the error that came instead."""

    status: int | None
    error: str | None
    latency_ms: float

    @property
    def is_done(self) -> bool:
        """2xx, whatever the body says."""
        return self.status is not None and 200 <= self.status < 300  # noqa: PLR2004 - HTTP's own


class Postman:
    """Posts deliveries; no redirects, no proxies, a connection of its own for each."""

    def __init__(self, timeout: float = TIMEOUT) -> None:
        self._timeout = timeout
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy from the environment has no way to loopback

    def post(self, delivery: Delivery) -> Outcome:
        started = time.monotonic()
        status, error = None, None
        try:
            with self._session.post(
                delivery.url,
                data=delivery.body,
                headers=delivery.headers,
                timeout=self._timeout,
                allow_redirects=False,
                stream=True,  # the status is all that counts; the body is not waited for
            ) as answer:
                status = answer.status_code
        except requests.Timeout:
            error = f"no answer within {self._timeout:g} s"
        except (requests.RequestException, ValueError) as failure:
            error = f"{type(failure).__name__}: {failure}"
        return Outcome(status, error, round((time.monotonic() - started) * 1000, 3))

    def close(self) -> None:
        self._session.close()
