"""Notification bodies as no two serialisers would write them, for properties of byte exactness."""

from __future__ import annotations

import json
from random import Random

from hypothesis import strategies as st

from wechatpay_kit_sandbox.testing.bodies import LETTERS, spelled

texts = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from(LETTERS)))
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
    return spelled(document | extra, Random(draw(st.integers(0, 2**32))))
