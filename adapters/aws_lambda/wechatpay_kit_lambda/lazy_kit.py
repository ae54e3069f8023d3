"""One kit an execution environment: built when it is first needed, again when a secret changed.

Knows factories, secrets and what a Lambda cannot remember; knows nothing of events.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from wechatpay_kit import ConfigError
from wechatpay_kit.log import logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from wechatpay_kit import Kit

    from .secrets import Environment

__all__ = ["LazyKit"]


class LazyKit:
    """Calls ``factory`` once, however many threads ask; with ``environ`` where there is one.

    Where ``environ`` brings another secret, the factory is called again for the deliveries that
    follow; those under way keep the kit they have.
    """

    def __init__(self, factory: Callable[..., Kit], environ: Environment | None = None) -> None:
        self._factory = factory
        self._environ = environ.copy() if environ is not None else None
        self._kit: Kit | None = None
        self._lock = threading.Lock()

    def get(self) -> Kit:
        """The kit to use now; what the factory raises is raised, and tried again next time."""
        if self._kit is None:
            with self._lock:
                if self._kit is None:
                    self._kit = self._build(self._environ)
                return self._kit
        if self._environ is not None and self._lock.acquire(blocking=False):
            try:
                self._follow(self._environ)
            finally:
                self._lock.release()
        return self._kit

    def _follow(self, environ: Environment) -> None:
        """Build from the secrets as they are now; the kit that worked stays if that fails."""
        fresh = environ.refreshed()
        if fresh is None:
            return
        try:
            self._kit, self._environ = self._build(fresh), fresh
        except Exception:  # noqa: BLE001 - whatever is wrong with the new, the old one takes money
            logger.exception("a secret changed, but no kit can be built with it; the old one stays")
        else:
            logger.info("a secret changed; the kit was built again")

    def _build(self, environ: Environment | None) -> Kit:
        kit = self._factory() if environ is None else self._factory(environ)
        _refuse_sqlite(kit)
        kit.receiver.check_ready()
        return kit


def _refuse_sqlite(kit: Kit) -> None:
    # By its module's name: a function without SQLite does not pay for importing it.
    kinds = [kind.__module__ for kind in type(kit.store).__mro__]
    is_sqlite = any(name.startswith("wechatpay_kit.store.sqlite") for name in kinds)
    if is_sqlite and "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
        raise ConfigError(
            "a SQLite store on Lambda would be a memory of its own in each execution environment, "
            "gone with it: orders would be unknown or fire twice. Share one with the process that "
            "places orders: WECHATPAY_STORE=dynamodb://table"
        )
