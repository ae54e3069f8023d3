"""Notification bodies as no two serialisers would write them, for proofs of byte exactness.

Knows JSON's many spellings; knows nothing of signatures.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

__all__ = ["LETTERS", "arbitrary", "embellished", "spelled"]

LETTERS = "支付成功｜“”/\\'\"é🧸"
_WHITE = ("", "", " ", "\n", "\t", "\r\n", "   ")
_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_MOST = 4  # members or elements
_LONGEST = 300  # bytes


def embellished(envelope: bytes, style: Random) -> bytes:
    """``envelope`` with unknown fields added, in odd spacing, key order and escapes."""
    extra = {f"+{_text(style)}": _value(style, depth=2) for _ in range(style.randrange(_MOST))}
    return spelled(json.loads(envelope) | extra, style)


def arbitrary(style: Random) -> bytes:
    """Bytes that are nobody's JSON: a body is bytes before it is anything else."""
    return style.randbytes(style.randint(1, _LONGEST))


def spelled(document: Mapping[str, Any], style: Random) -> bytes:
    """``document`` in one of the many ways in which JSON may write it."""
    return _spelled(style, document).encode()


def _text(style: Random) -> str:
    letters = [*LETTERS, *(chr(style.randrange(1, 0xD800)) for _ in range(len(LETTERS)))]
    return "".join(style.choices(letters, k=style.randrange(12)))


def _value(style: Random, depth: int) -> Any:
    plain = [None, True, style.uniform(-1e9, 1e9), style.randint(-(2**63), 2**63), _text(style)]
    if depth and style.random() < 0.5:  # noqa: PLR2004 - as often as not
        inner = [_value(style, depth - 1) for _ in range(style.randrange(_MOST))]
        return style.choice([inner, {_text(style): value for value in inner}])
    return style.choice(plain)


def _spelled(style: Random, value: Any) -> str:
    if isinstance(value, dict):
        items = style.sample(list(value.items()), len(value))
        members = [f"{_spelled(style, k)}{_white(style)}:{_spelled(style, v)}" for k, v in items]
        text = "{%s}" % (",".join(members) or _white(style))
    elif isinstance(value, list):
        text = "[%s]" % (",".join(_spelled(style, item) for item in value) or _white(style))
    elif isinstance(value, str):
        letters = "".join(_letter(style, letter) for letter in value)
        text = f'"{letters}"'
    else:
        text = json.dumps(value)
    return f"{_white(style)}{text}{_white(style)}"


def _letter(style: Random, letter: str) -> str:
    if style.random() < 0.1:  # noqa: PLR2004 - now and then
        units = letter.encode("utf-16-be")
        case = style.choice(("04x", "04X"))
        codes = [int.from_bytes(units[i : i + 2]) for i in range(0, len(units), 2)]
        return "".join(f"\\u{code:{case}}" for code in codes)
    if letter == "/" and style.random() < 0.5:  # noqa: PLR2004 - as often as not
        return "\\/"
    return _SHORT.get(letter) or (letter if letter >= " " else f"\\u{ord(letter):04x}")


def _white(style: Random) -> str:
    return style.choice(_WHITE)
