"""Notification bodies as no two serialisers would write them, for properties of byte exactness."""

from __future__ import annotations

import json
from random import Random

from hypothesis import strategies as st

WHITE = ("", "", " ", "\n", "\t", "\r\n", "   ")
SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}

texts = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("支付成功｜“”/\\'\"é🧸")))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


@st.composite
def bodies(draw, envelope):
    """``envelope`` with unknown fields added, in odd spacing, key order and escapes."""
    document = json.loads(envelope)
    extra = draw(st.dictionaries(texts.filter(lambda name: name not in document), values))
    style = Random(draw(st.integers(0, 2**32)))
    return _value(style, document | extra).encode()


def _value(style, value):
    if isinstance(value, dict):
        items = style.sample(list(value.items()), len(value))
        members = [f"{_value(style, k)}{_white(style)}:{_value(style, v)}" for k, v in items]
        text = "{%s}" % (",".join(members) or _white(style))
    elif isinstance(value, list):
        text = "[%s]" % (",".join(_value(style, item) for item in value) or _white(style))
    elif isinstance(value, str):
        letters = "".join(_letter(style, letter) for letter in value)
        text = f'"{letters}"'
    else:
        text = json.dumps(value)
    return f"{_white(style)}{text}{_white(style)}"


def _letter(style, letter):
    if style.random() < 0.1:
        units = letter.encode("utf-16-be")
        case = style.choice(("04x", "04X"))
        codes = [int.from_bytes(units[i : i + 2]) for i in range(0, len(units), 2)]
        return "".join(f"\\u{code:{case}}" for code in codes)
    if letter == "/" and style.random() < 0.5:
        return "\\/"
    return SHORT.get(letter) or (letter if letter >= " " else f"\\u{ord(letter):04x}")


def _white(style):
    return style.choice(WHITE)
