"""The two clocks.

*Wall time* is for signatures. The *business clock* rules expiry, bills and memory; it is the same
unless a sandbox turns it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

from .errors import ConfigError

__all__ = ["Clock", "SandboxClock", "wall_clock"]

Clock = Callable[[], datetime]


def wall_clock() -> datetime:
    """Now, aware."""
    return datetime.now(UTC)


class SandboxClock:
    """The business clock of a sandbox, asked each time: a test may turn it between two calls.

    ``url`` is its ``GET /_sandbox/clock``. Raises :class:`ConfigError` where no sandbox answers.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def __call__(self) -> datetime:
        from urllib.request import ProxyHandler, build_opener  # noqa: PLC0415 - sandboxes only

        opener = build_opener(ProxyHandler({}))  # a sandbox is on this machine
        try:
            with opener.open(self._url, timeout=2) as answer:
                return datetime.fromisoformat(json.load(answer)["now"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"the sandbox's clock at {self._url} does not answer ({type(error).__name__}); "
                "start the sandbox, or unset SANDBOX_CLOCK"
            ) from error
