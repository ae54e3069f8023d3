"""Events of an Application Load Balancer, with single- or multi-value headers.

Recognise, read, answer. Read as a REST API's; the answer says its status in words too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import rest_api
from .rest_api import read

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wechatpay_kit import Answer

__all__ = ["answer", "read", "recognises"]


def recognises(event: Mapping[str, Any]) -> bool:
    return "httpMethod" in event and "elb" in (event.get("requestContext") or {})


def answer(event: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
    from http import HTTPStatus  # noqa: PLC0415 - functions behind another source do not pay for it

    words = f"{answer.status} {HTTPStatus(answer.status).phrase}"
    return rest_api.answer(event, answer) | {"statusDescription": words}
