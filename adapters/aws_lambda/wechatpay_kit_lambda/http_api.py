"""Events of API Gateway's HTTP APIs (payload format 2.0) and of Function URLs, which share it.

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
    return (
        event.get("version") == "2.0"
        and "http" in (event.get("requestContext") or {})
        and "type" not in event
    )


def read(event: Mapping[str, Any]) -> Request:
    """Doubled headers arrive joined by a comma, by which the verifier knows and refuses them."""
    context = event["requestContext"]
    path = path_without_stage(event.get("rawPath") or "/", context.get("stage"))
    headers = tuple((event.get("headers") or {}).items())
    return Request(context["http"]["method"], path, headers, body_of(event))


def answer(_event: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
    return {
        "statusCode": answer.status,
        "headers": dict(answer.headers),
        "body": answer.body.decode(),
        "isBase64Encoded": False,
    }
