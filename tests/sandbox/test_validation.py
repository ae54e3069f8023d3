"""The field tables against any JSON: granted or refused, never a fault of the gateway."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wechatpay_kit_sandbox import fields
from wechatpay_kit_sandbox.errors import Refusal
from wechatpay_kit_sandbox.validation import check, read_json

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def known(table):
    """Objects with the table's names and any values, so that the rules are reached."""
    return st.fixed_dictionaries({}, optional={field.name: json_values for field in table})


def granted(table, body):
    refusal = None
    try:
        check(table, read_json(body), "/body")
    except Refusal as error:
        refusal = error
    assert refusal is None or refusal.case.code == "PARAM_ERROR"
    return refusal is None or not msgspec.json.encode(refusal.body())


@pytest.mark.parametrize("table", [fields.ORDER, fields.REFUND, fields.CLOSE, fields.MEDIA_META])
def test_any_json_is_granted_or_refused(table):
    @given(known(table) | json_values)
    def holds(value):
        granted(table, json.dumps(value).encode(errors="surrogatepass"))

    holds()


@given(st.binary())
def test_any_bytes_are_granted_or_refused(body):
    granted(fields.ORDER, body)


@pytest.mark.parametrize(
    "value", [r'"\ud800"', r'"\ud83c\udf75"', "1e999", "9" * 500, "-0", "1E2", '"\\u0000"']
)
def test_values_at_the_edge_of_json(value):
    body = f'{{"mchid": {value}}}'.encode()
    assert not granted(fields.CLOSE, body) or value == '"\\u0000"'
