"""The handler for notifications: an event in, the answer in the shape of the event out.

Knows events, methods and paths; knows nothing of signatures or orders.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, overload

from wechatpay_kit import Answer, ConfigError

from . import alb, http_api, rest_api
from .lazy_kit import LazyKit

if TYPE_CHECKING:
    from collections.abc import Callable

    from wechatpay_kit import Kit

    from .request import Request
    from .secrets import Environment

__all__ = ["NotifyHandler", "notify_handler"]

# What is left to record or release a claim and to answer, before Lambda stops the process.
MARGIN = timedelta(milliseconds=500)
_ANY_PATH = ""  # no path of a request is empty


class _Source(Protocol):
    """One kind of event; a new one is a module of this shape and a place in ``_SOURCES``."""

    def recognises(self, event: Mapping[str, Any], /) -> bool: ...
    def read(self, event: Mapping[str, Any], /) -> Request: ...
    def answer(self, event: Mapping[str, Any], answer: Answer, /) -> dict[str, Any]: ...


_SOURCES: tuple[_Source, ...] = (http_api, alb, rest_api)


@overload
def notify_handler(
    factory: Callable[[], Kit] | Mapping[str, Callable[[], Kit]],
) -> NotifyHandler: ...
@overload
def notify_handler(
    factory: Callable[[Environment], Kit] | Mapping[str, Callable[[Environment], Kit]],
    *,
    environ: Environment,
) -> NotifyHandler: ...
def notify_handler(
    factory: Callable[..., Kit] | Mapping[str, Callable[..., Kit]],
    *,
    environ: Environment | None = None,
) -> NotifyHandler:
    """A Lambda handler that answers notifications with the kit that ``factory`` makes.

    The kit is made once an execution environment, with the first delivery (or by ``build()``).
    Any path will do, for API Gateway has routed already; a mapping of paths to factories answers
    those alone, one merchant each, and 404 elsewhere: ``{"/wechatpay/notify": make_kit}``. What
    is not a POST is answered 405.

    With ``environ`` the factory is called with it, and again once a secret in it has changed.
    The handler raises :class:`ConfigError` for an event that is no HTTP request, and what the
    factory raises; Lambda logs that and WeChat Pay comes again.
    """
    if not isinstance(factory, Mapping):
        return NotifyHandler({_ANY_PATH: LazyKit(factory, environ)})
    return NotifyHandler({path: LazyKit(make, environ) for path, make in factory.items()})


class NotifyHandler:
    """What :func:`notify_handler` returns; Lambda calls it with an event and a context."""

    def __init__(self, kits: Mapping[str, LazyKit]) -> None:
        self._kits = kits

    def __call__(self, event: Any, context: Any) -> dict[str, Any]:
        source = _source_of(event)
        return source.answer(event, self._answer(source.read(event), context))

    def build(self) -> None:
        """Make the kits now rather than with the first delivery, of whose 5 s that is a part.

        At the end of the handler's module this is Lambda's init phase, which has more CPU.
        """
        for kit in self._kits.values():
            kit.get()

    def _answer(self, request: Request, context: Any) -> Answer:
        kit = self._kits.get(request.path) or self._kits.get(_ANY_PATH)
        if kit is None:
            return Answer(404)
        if request.method != "POST":
            return Answer(405, (("Allow", "POST"),))
        receive = kit.get().receiver.receive  # before the time is taken: making a kit takes some
        return receive(request.headers, request.body, deadline=_time_left(context))


def _time_left(context: Any) -> timedelta | None:
    if context is None:
        return None
    left = timedelta(milliseconds=context.get_remaining_time_in_millis())
    return max(left - MARGIN, timedelta(0))


def _source_of(event: Any) -> _Source:
    if isinstance(event, Mapping):
        for source in _SOURCES:
            if source.recognises(event):
                return source
        shape = f"has the keys {sorted(map(str, event))}"
    else:
        shape = f"is a {type(event).__name__}"
    raise ConfigError(
        "this event is no HTTP request that a notification can come in: expected one of API "
        "Gateway (REST or HTTP API, with Lambda proxy integration), a Function URL or an "
        f"Application Load Balancer; this one {shape}"
    )
