"""The gateway over HTTP: authenticate, call, sign the answer.

Knows routes, headers and statuses; knows nothing of order rules. An unknown path is 404 and a wrong
method 405, both with an empty body, as at the real gateway. Headers: wechatpay-apiv3 §1.5.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from . import auth, endpoints
from .control import control_routes
from .endpoints import Call, Reply
from .errors import Case, Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .gateway import Gateway

__all__ = ["gateway_app"]

_log = logging.getLogger("wechatpay_kit_sandbox")

_HEADERS = {
    "Server": "nginx",
    "Cache-Control": "no-cache, must-revalidate",
    "X-Content-Type-Options": "nosniff",
    "Content-Language": "zh-CN",
    "Keep-Alive": "timeout=8",
}
_BROKEN = Case(500, "SYSTEM_ERROR", "系统异常，请稍后重试", 268435456)


class _Endpoint(NamedTuple):
    method: str
    path: str
    family: auth.Family
    handler: Callable[[Gateway, Call], Reply]
    signed_body: Callable[[str, bytes], bytes] = lambda _content_type, body: body
    is_slow: bool = False


_ORDER = "/v3/pay/transactions/out-trade-no/{out_trade_no}"
_REFUNDS = "/v3/refund/domestic/refunds"
_ENDPOINTS = (
    _Endpoint("POST", "/v3/pay/transactions/jsapi", auth.TRANSACTIONS, endpoints.place_order),
    _Endpoint("GET", _ORDER, auth.TRANSACTIONS, endpoints.query_order),
    _Endpoint(
        "GET",
        "/v3/pay/transactions/id/{transaction_id}",
        auth.TRANSACTIONS,
        endpoints.query_order_by_transaction,
    ),
    _Endpoint("POST", f"{_ORDER}/close", auth.TRANSACTIONS, endpoints.close_order),
    _Endpoint("POST", _REFUNDS, auth.REFUNDS, endpoints.create_refund),
    _Endpoint("GET", f"{_REFUNDS}/{{out_refund_no}}", auth.REFUNDS, endpoints.query_refund),
    _Endpoint(
        "GET", "/v3/bill/tradebill", auth.BILLS, endpoints.apply_for_trade_bill, is_slow=True
    ),
    _Endpoint("GET", "/v3/billdownload/file", auth.BILLS, endpoints.download_bill),
    _Endpoint("GET", "/v3/certificates", auth.CERTIFICATES, endpoints.certificates),
    _Endpoint(
        "POST",
        "/v3/merchant/media/upload",
        auth.BILLS,
        endpoints.upload_image,
        endpoints.signed_meta,
    ),
    _Endpoint(
        "POST",
        "/v3/merchant/media/video_upload",
        auth.BILLS,
        endpoints.upload_video,
        endpoints.signed_meta,
    ),
)


def gateway_app(gateway: Gateway) -> Starlette:
    """The ASGI application: ``/v3/…`` and the control calls under ``/_sandbox/``."""
    routes = [
        Route(endpoint.path, _serve(gateway, endpoint), methods=[endpoint.method])
        for endpoint in _ENDPOINTS
    ]
    app = Starlette(
        routes=[*routes, *control_routes(gateway)],
        exception_handlers={404: _empty(404), 405: _empty(405)},
    )
    app.router.redirect_slashes = False
    return app


def _serve(gateway: Gateway, endpoint: _Endpoint) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        try:
            body = await request.body()
        except ClientDisconnect:
            return Response(status_code=400)
        if endpoint.is_slow:
            return await run_in_threadpool(_answer, gateway, endpoint, request, body)
        return _answer(gateway, endpoint, request, body)

    return serve


def _answer(gateway: Gateway, endpoint: _Endpoint, request: Request, body: bytes) -> Response:
    headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in request.scope["headers"]]
    content_type = request.headers.get("content-type", "")
    signed = auth.SignedRequest(
        request.method, _target(request), headers, endpoint.signed_body(content_type, body)
    )
    try:
        merchant = auth.check(signed, endpoint.family, gateway.merchants, gateway.wall())
    except Refusal as refusal:
        return _refused_unauthenticated(gateway, endpoint.family, refusal)
    call = Call(
        merchant=merchant,
        path=request.path_params,
        query=dict(
            parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        ),
        content_type=content_type,
        body=body,
        origin=_origin(request),
    )
    number, reply = _call(gateway, endpoint, call)
    headers_out = {"Request-ID": gateway.numbers.request_id(number)}
    if reply.file is not None:
        return _response(200, headers_out, reply.file, "application/octet-stream")
    answer = b"" if reply.document is None else msgspec.json.encode(reply.document)
    headers_out |= gateway.seal.headers(answer, request.headers.get("wechatpay-serial"))
    return _response(reply.status, headers_out, answer)


def _call(gateway: Gateway, endpoint: _Endpoint, call: Call) -> tuple[int, Reply]:
    """The reply, and the internal error number that its Request-ID ends in."""
    try:
        with gateway.lock:
            return 0, endpoint.handler(gateway, call)
    except Refusal as refusal:
        return refusal.case.number, Reply(refusal.case.status, refusal.body())
    except Exception:  # noqa: BLE001 - a fault of ours is a 500 in the gateway's own form
        _log.exception("the sandbox failed at %s %s", endpoint.method, endpoint.path)
        return _BROKEN.number, Reply(_BROKEN.status, Refusal(_BROKEN).body())


def _refused_unauthenticated(gateway: Gateway, family: auth.Family, refusal: Refusal) -> Response:
    """Nobody to sign for: no Wechatpay-* headers, and on some 401s no Request-ID."""
    status = refusal.case.status
    is_named = status != 401 or family.names_request_on_401  # noqa: PLR2004 - HTTP's own
    headers = {"Request-ID": gateway.numbers.request_id(refusal.case.number)} if is_named else {}
    return _response(status, headers, msgspec.json.encode(refusal.body()))


def _target(request: Request) -> str:
    """Path and query as they came over the wire."""
    raw: bytes = request.scope["raw_path"]
    query: bytes = request.scope["query_string"]
    return (raw + b"?" + query if query else raw).decode("latin-1")


def _origin(request: Request) -> str:
    """Scheme and host as the client addressed them: where it will fetch a bill from."""
    host, port = request.scope["server"]
    return f"{request.scope['scheme']}://{request.headers.get('host', f'{host}:{port}')}"


def _response(
    status: int,
    headers: dict[str, str],
    body: bytes,
    content_type: str = "application/json; charset=utf-8",
) -> Response:
    # Built by hand: the names keep the spelling in which the real gateway sends them.
    response = Response(body, status)
    named = _HEADERS | headers
    if body:
        named |= {"Content-Type": content_type}
    if status != 204:  # noqa: PLR2004 - HTTP's own: no content, no length
        named |= {"Content-Length": str(len(body))}
    response.raw_headers = [(name.encode(), value.encode()) for name, value in named.items()]
    return response


def _empty(status: int) -> Callable[[Request, Exception], Response]:
    def answer(_request: Request, _error: Exception) -> Response:
        return _response(status, {}, b"")

    return answer
