"""The sandbox's control calls: what no gateway offers, and every test needs.

JSON, unsigned, meant for loopback; errors are ``{"error": "…"}`` with 400, 404 or 409.
Below ``/_sandbox``:

``GET /clock``
    ``{"now": "2026-11-24T10:00:00+08:00", "rate": 1.0}``, the business clock
``POST /clock``
    ``{"advance": seconds}``, ``{"to": RFC 3339}`` or ``{"rate": n}``; answers as the GET does, when
    all that fell due has been done
``GET /orders``
    ``{"orders": […]}``, the oldest first
``GET /orders/{out_trade_no}``
    one order, with its ``refunds``
``POST /orders/{out_trade_no}/pay``
    optional ``{"openid": "…", "notify": false}``; answers ``order``, ``notification`` and
    ``attempt``, when the first delivery has been attempted
``POST /orders/{out_trade_no}/fail``
    a failed attempt to pay: the order stays NOTPAY; answers the order
``POST /refunds/{out_refund_no}/finish``
    optional ``{"status": "SUCCESS" | "ABNORMAL" | "CLOSED", "notify": false}``; answers as pay,
    with ``refund``
``GET /notifications``
    ``{"notifications": […]}``, each with its attempts
``POST /notifications/{id}/resend``
    one more delivery now; answers its attempt
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec
from msgspec import Struct
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from .clock import rfc3339
from .errors import ControlError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .gateway import Gateway, Payment
    from .notifications import Notification
    from .state import Refund

__all__ = ["control_routes"]

T = TypeVar("T")


class _Pay(Struct, frozen=True, forbid_unknown_fields=True):
    openid: str | None = None
    notify: bool = True


class _Finish(Struct, frozen=True, forbid_unknown_fields=True):
    status: Literal["SUCCESS", "ABNORMAL", "CLOSED"] = "SUCCESS"
    notify: bool = True


class _Clock(Struct, frozen=True, forbid_unknown_fields=True):
    advance: float | None = None
    to: datetime | None = None
    rate: float | None = None


def control_routes(gateway: Gateway) -> list[Route]:
    """Routes under ``/_sandbox/``."""
    calls: tuple[tuple[str, str, Callable[..., dict[str, Any]]], ...] = (
        ("GET", "/clock", _get_clock),
        ("POST", "/clock", _set_clock),
        ("GET", "/orders", _list_orders),
        ("GET", "/orders/{number}", _show_order),
        ("POST", "/orders/{number}/pay", _pay),
        ("POST", "/orders/{number}/fail", _fail),
        ("POST", "/refunds/{number}/finish", _finish_refund),
        ("GET", "/notifications", _list_notifications),
        ("POST", "/notifications/{number}/resend", _resend),
    )
    return [
        Route(f"/_sandbox{path}", _serve(gateway, handler), methods=[method])
        for method, path, handler in calls
    ]


def _serve(
    gateway: Gateway, handler: Callable[..., dict[str, Any]]
) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        try:
            body = await request.body()
            number = request.path_params.get("number", "")
            # In a thread: a call may deliver, and a receiver may call the gateway back.
            document = await run_in_threadpool(handler, gateway, number, body)
        except ControlError as error:
            return _json({"error": str(error)}, error.status)
        except ClientDisconnect:
            return Response(status_code=400)
        return _json(document)

    return serve


def _get_clock(gateway: Gateway, _number: str, _body: bytes) -> dict[str, Any]:
    return {"now": rfc3339(gateway.now()), "rate": gateway.clock.rate}


def _set_clock(gateway: Gateway, number: str, body: bytes) -> dict[str, Any]:
    asked = _decode(body, _Clock)
    given = [name for name in ("advance", "to", "rate") if getattr(asked, name) is not None]
    if len(given) != 1:
        raise ControlError(400, f"give one of advance, to and rate; got {given or 'none'}")
    try:
        if asked.advance is not None:
            gateway.advance(timedelta(seconds=asked.advance))
        elif asked.to is not None:
            gateway.advance_to(asked.to)
        elif asked.rate is not None:
            gateway.set_rate(asked.rate)
    except (OverflowError, ValueError):
        raise ControlError(400, f"{given[0]} is beyond what a clock can show") from None
    return _get_clock(gateway, number, body)


def _list_orders(gateway: Gateway, _number: str, _body: bytes) -> dict[str, Any]:
    return {"orders": msgspec.to_builtins(gateway.orders())}


def _show_order(gateway: Gateway, number: str, _body: bytes) -> dict[str, Any]:
    order: dict[str, Any] = msgspec.to_builtins(gateway.order(number))
    return order | {"refunds": [_refund_view(refund) for refund in gateway.refunds(number)]}


def _pay(gateway: Gateway, number: str, body: bytes) -> dict[str, Any]:
    asked = _decode(body, _Pay)
    return _payment_view(gateway.pay(number, openid=asked.openid, notify=asked.notify))


def _fail(gateway: Gateway, number: str, _body: bytes) -> dict[str, Any]:
    order: dict[str, Any] = msgspec.to_builtins(gateway.fail(number))
    return order


def _finish_refund(gateway: Gateway, number: str, body: bytes) -> dict[str, Any]:
    asked = _decode(body, _Finish)
    return _payment_view(gateway.finish_refund(number, asked.status, notify=asked.notify))


def _list_notifications(gateway: Gateway, _number: str, _body: bytes) -> dict[str, Any]:
    return {"notifications": [_notification_view(n) for n in gateway.notifications()]}


def _resend(gateway: Gateway, number: str, _body: bytes) -> dict[str, Any]:
    attempt: dict[str, Any] = msgspec.to_builtins(gateway.resend(number))
    return attempt


def _payment_view(payment: Payment) -> dict[str, Any]:
    return {
        "order": msgspec.to_builtins(payment.order),
        "refund": payment.refund and _refund_view(payment.refund),
        "notification": payment.notification and _notification_view(payment.notification),
        "attempt": msgspec.to_builtins(payment.attempt),
    }


def _refund_view(refund: Refund) -> dict[str, Any]:
    view: dict[str, Any] = msgspec.to_builtins(refund)
    return view | {"status": refund.status}


def _notification_view(notification: Notification) -> dict[str, Any]:
    view: dict[str, Any] = msgspec.to_builtins(notification)
    return view | {"body": notification.body.decode()}


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ControlError(400, f"the body does not fit this call: {error}") from None


def _json(document: dict[str, Any], status: int = 200) -> Response:
    return Response(msgspec.json.encode(document), status, media_type="application/json")
