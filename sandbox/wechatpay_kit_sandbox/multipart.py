"""Take a multipart/form-data body apart, byte for byte.

Knows boundaries and part headers; knows nothing of what the parts mean. The ``meta`` part is what a
merchant signs, so its bytes must come out as they came in.
"""

from __future__ import annotations

import re

__all__ = ["parts"]

_BOUNDARY = re.compile(r'multipart/form-data\s*;.*?boundary="?([^";]+)"?', re.IGNORECASE)
_NAME = re.compile(rb'content-disposition:[^\r\n]*?[;\s]name="?([^";\r\n]+)"?', re.IGNORECASE)


def parts(content_type: str, body: bytes) -> dict[str, bytes]:
    """Name → bytes of each part; what is no multipart body has no parts."""
    boundary = _BOUNDARY.match(content_type)
    if boundary is None:
        return {}
    found = {}
    # A leading CRLF makes the first delimiter look like all others.
    for piece in (b"\r\n" + body).split(b"\r\n--" + boundary[1].encode())[1:]:
        head, blank_line, content = piece.partition(b"\r\n\r\n")
        name = _NAME.search(head)
        if blank_line and name is not None:
            found[name[1].decode(errors="replace")] = content
    return found
