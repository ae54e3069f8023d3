"""What an event says of one HTTP request.

Knows the fields that all event sources share; knows nothing of which source it is, nor of
signatures. Never changes an event.
"""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING, Any, NamedTuple

from wechatpay_kit import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Request", "body_of", "path_without_stage"]


class Request(NamedTuple):
    """One request: header pairs and body are what was sent, byte for byte."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


def body_of(event: Mapping[str, Any]) -> bytes:
    """The bytes as they were sent; null is none.

    Raises :class:`ConfigError` where the body is no text, which no HTTP source does.
    """
    body = event.get("body")
    if body is None:
        return b""
    if not isinstance(body, str):
        raise ConfigError(
            f"the event's body is a {type(body).__name__}, not text; "
            "use a Lambda proxy integration without a mapping template"
        )
    if not event.get("isBase64Encoded"):
        # A lone surrogate is no UTF-8; its signature fails, which is better than not answering.
        return body.encode("utf-8", "surrogatepass")
    try:
        return binascii.a2b_base64(body, strict_mode=True)
    except ValueError:
        raise ConfigError("the event says isBase64Encoded, but its body is no Base64") from None


def path_without_stage(path: str, stage: object) -> str:
    """HTTP APIs put a stage's name before the path, unless it is ``$default``."""
    prefix = f"/{stage}"
    return path.removeprefix(prefix) if path.startswith(f"{prefix}/") else path
