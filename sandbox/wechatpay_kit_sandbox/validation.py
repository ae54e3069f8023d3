"""Check JSON and query values by a table of fields, and refuse in the gateway's words.

Knows rules and values; knows nothing of HTTP, orders or which call is made. The first field that
breaks its rule is refused, as at the real gateway: PARAM_ERROR with location, field and value.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from .errors import PARAMETER, UNKNOWN_FIELD, Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Array", "Field", "Flag", "Number", "Object", "Text", "check", "read_json", "refusal"]

_BORDER_OF_BMP = 0xFFFF


class Rule(Protocol):
    """What a value must be."""

    def check(self, source: str, label: str, value: Any) -> None:
        """Raise :class:`Refusal` if ``value``, which stands at ``source``, breaks the rule."""


class Field(NamedTuple):
    """One field: its name, the name the gateway's texts call it by, and its rule."""

    name: str
    label: str
    rule: Rule
    is_required: bool = False


class Text(NamedTuple):
    """A string; lengths in characters, or in bytes where the gateway counts those."""

    longest: int
    shortest: int = 1
    unit: str = "字符数"
    pattern: str | None = None
    choices: tuple[str, ...] = ()

    def check(self, source: str, label: str, value: Any) -> None:
        if not isinstance(value, str):
            raise _wrong_type(source, label, value, "string")
        said = f"输入源“{source}”映射到值字段“{label}”字符串规则校验失败，"
        if any(ord(letter) > _BORDER_OF_BMP for letter in value):
            raise refusal(source, value, f"{said}不支持4字节字符")
        size = len(value.encode()) if self.unit == "字节数" else len(value)
        if size > self.longest:
            raise refusal(source, value, f"{said}{self.unit} {size}，大于最大值 {self.longest}")
        if size < self.shortest:
            raise refusal(source, value, f"{said}{self.unit} {size}，小于最小值 {self.shortest}")
        if self.pattern and not _compiled(self.pattern).search(value):
            raise refusal(source, value, f"{said}字符串必须匹配正则表达式“{self.pattern}”")
        if self.choices and value not in self.choices:
            raise refusal(source, value, f"{said}取值必须为 {'、'.join(self.choices)} 之一")


class Number(NamedTuple):
    """An integer within bounds."""

    least: int
    most: int = 2**63 - 1

    def check(self, source: str, label: str, value: Any) -> None:
        if type(value) is not int:
            raise _wrong_type(source, label, value, "integer")
        said = f"输入源“{source}”映射到数值字段“{label}”规则校验失败，"
        if value < self.least:
            raise refusal(source, value, f"{said}值低于最小值 {self.least}")
        if value > self.most:
            raise refusal(source, value, f"{said}值高于最大值 {self.most}")


class Flag(NamedTuple):
    """true or false."""

    def check(self, source: str, label: str, value: Any) -> None:
        if not isinstance(value, bool):
            raise _wrong_type(source, label, value, "bool")


class Object(NamedTuple):
    """A JSON object; ``most_bytes`` limits its serialised size."""

    fields: tuple[Field, ...]
    most_bytes: int | None = None

    def check(self, source: str, label: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise _wrong_type(source, label, value, "object")
        check(self.fields, value, source)
        if self.most_bytes is not None:
            Text(self.most_bytes, unit="字节数").check(
                source, label, msgspec.json.encode(value).decode()
            )


class Array(NamedTuple):
    """A list whose items all obey one rule."""

    item: Rule

    def check(self, source: str, label: str, value: Any) -> None:
        if not isinstance(value, list):
            raise _wrong_type(source, label, value, "array")
        for index, item in enumerate(value):
            self.item.check(f"{source}/{index}", label, item)


def check(fields: Sequence[Field], values: Mapping[str, Any], source: str) -> None:
    """Check ``values`` against the table; ``source`` is ``/body``, ``/query`` or ``/uri_template``.

    Raises :class:`Refusal`: unknown field, missing, wrong type, length, pattern, bounds.
    """
    for name, label, rule, is_required in fields:
        if name in values:
            rule.check(f"{source}/{name}", label, values[name])
        elif is_required:
            raise refusal(
                f"{source}/{name}",
                "",
                f"输入源“{source}/{name}”映射到字段“{label}”必填性规则校验失败，此字段为必填项",
            )
    unknown = [f"{source}/{name}" for name in values.keys() - {field.name for field in fields}]
    if unknown:
        raise Refusal(UNKNOWN_FIELD, {"location": None, "value": sorted(unknown)})


def read_json(body: bytes) -> dict[str, Any]:
    """The body as a JSON object; a Refusal if it is anything else."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise refusal("/body", "", "请求体不是合法的JSON对象")
    return value


def refusal(source: str, value: Any, message: str) -> Refusal:
    """PARAM_ERROR about the value at ``source`` (``/body/amount/total``)."""
    location, _, pointer = source.removeprefix("/").partition("/")
    detail = {"location": location, "field": f"/{pointer}", "value": value}
    return Refusal(PARAMETER, detail, message=message)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    # The texts quote "$"; the gateway's engine does not let a line feed pass before it.
    return re.compile(pattern.replace("$", r"\Z"), re.ASCII)


def _wrong_type(source: str, label: str, value: Any, kind: str) -> Refusal:
    return refusal(
        source,
        value,
        f"无法将 JSON 输入源“{source}”映射到目标字段“{label}”中，"
        f"此字段需要一个 {kind} 类型的 Json 值",
    )
