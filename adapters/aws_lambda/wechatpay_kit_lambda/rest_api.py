"""Events of API Gateway's REST APIs, and of its HTTP APIs with payload format 1.0.

Recognise, read, answer; knows this one shape and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .request import Request, body_of, path_without_stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wechatpay_kit import Answer

__all__ = ["answer", "read", "recognises"]


def recognises(event: Mapping[str, Any]) -> bool:
    # An authorizer's event looks the same but for its type, and brings no body.
    return "httpMethod" in event and "resource" in event and "type" not in event


def read(event: Mapping[str, Any]) -> Request:
    path = event.get("path") or "/"
    if "version" in event:  # an HTTP API's
        path = path_without_stage(path, (event.get("requestContext") or {}).get("stage"))
    return Request(event["httpMethod"], path, _header_pairs(event), body_of(event))


def answer(event: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
    """With multi-value headers where the event has them; an ALB reads no others then."""
    shape: dict[str, Any] = {
        "statusCode": answer.status,
        "body": answer.body.decode(),
        "isBase64Encoded": False,
    }
    if event.get("multiValueHeaders") is None:
        return shape | {"headers": dict(answer.headers)}
    return shape | {"multiValueHeaders": {name: [value] for name, value in answer.headers}}


def _header_pairs(event: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """All values where the event has all: a doubled signature header must be seen to be refused."""
    many = event.get("multiValueHeaders")
    if many is not None:
        return tuple((name, value) for name, values in many.items() for value in values or ())
    return tuple((event.get("headers") or {}).items())
