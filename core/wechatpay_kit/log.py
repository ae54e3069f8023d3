"""One structured line a delivery and an API call, on the logger ``wechatpay_kit``.

Knows field names; knows nothing of what they mean. Values are numbers, states and identifiers:
never a secret, an openid, a body or a plaintext. The fields are documented in docs/logging.md;
they stand in the text as ``name=value`` and on the record as ``record.wechatpay_kit``.
"""

from __future__ import annotations

import logging

__all__ = ["logger", "write"]

logger = logging.getLogger("wechatpay_kit")


def write(
    level: int, line: str, *, exc_info: BaseException | None = None, **fields: object
) -> None:
    """Log ``line`` with those of ``fields`` that are not None."""
    said = {name: value for name, value in fields.items() if value is not None}
    text = " ".join(f"{name}={_quoted(value)}" for name, value in said.items())
    extra = {"wechatpay_kit": {"line": line, **said}}
    logger.log(level, "%s %s", line, text, exc_info=exc_info, extra=extra)


def _quoted(value: object) -> str:
    # Identifiers come from messages: an LF or a space in one must not forge a second line.
    text = str(value)
    return text if text.isascii() and text.isprintable() and " " not in text else ascii(text)
