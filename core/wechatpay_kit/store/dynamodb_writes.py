"""What is written to a DynamoDB table: items, changes and their conditions, as requests.

Knows DynamoDB's expressions and attribute values; does no I/O.
"""

from __future__ import annotations

import uuid
from typing import Any

__all__ = ["Change", "Item", "Key", "Write", "as_attribute", "as_item", "named"]

Key = tuple[str, str]
"""Partition key and sort key."""
Item = dict[str, Any]
Value = str | int | float | bytes | list[str]


class Change:
    """What happens to one item, and the conditions under which it does."""

    def __init__(self) -> None:
        self._set: dict[str, Value | None] = {}
        self._set_once: dict[str, Value | None] = {}
        self._conditions: list[tuple[str, str, Value | None]] = []
        self._deletes = False

    def set(self, **values: Value | None) -> Change:
        """Set attributes; None removes one."""
        self._set |= values
        return self

    def set_once(self, **values: Value | None) -> Change:
        """Set the attributes that the item does not have yet."""
        self._set_once |= values
        return self

    def delete(self) -> Change:
        self._deletes = True
        return self

    def require(self, name: str, test: str, value: Value | None = None) -> Change:
        """``test`` is *absent*, *present*, a comparison, or *absent or* a comparison."""
        self._conditions.append((name, test, value))
        return self

    def request(self, table: str, key: Key) -> tuple[str, dict[str, Any]]:
        """The kind of action, as TransactWriteItems calls it, and its parameters."""
        expressions = _Expressions()
        parts: dict[str, Any] = {"TableName": table, "Key": named(key)}
        kind = "Delete" if self._deletes else "ConditionCheck"
        if self._set or self._set_once:
            kind = "Update"
            parts["UpdateExpression"] = self._update(expressions)
        if self._conditions:
            parts["ConditionExpression"] = " AND ".join(
                expressions.condition(*condition) for condition in self._conditions
            )
        return kind, parts | expressions.placeholders()

    def _update(self, expressions: _Expressions) -> str:
        sets = [
            f"{expressions.name(name)} = {expressions.value(value)}"
            for name, value in self._set.items()
            if value is not None
        ] + [
            "{0} = if_not_exists({0}, {1})".format(expressions.name(name), expressions.value(value))
            for name, value in self._set_once.items()
            if value is not None
        ]
        removes = [expressions.name(name) for name, value in self._set.items() if value is None]
        return " ".join(
            f"{verb} {', '.join(parts)}"
            for verb, parts in (("SET", sets), ("REMOVE", removes))
            if parts
        )


class Write:
    """One statement over some items: all of it is written, or nothing."""

    def __init__(self) -> None:
        self._changes: dict[Key, Change] = {}

    def on(self, key: Key) -> Change:
        """The change of the item under ``key``; what is said of one item twice is one change."""
        return self._changes.setdefault(key, Change())

    def request(self, table: str) -> tuple[str, dict[str, Any]]:
        """The client's method and its parameters."""
        actions = [change.request(table, key) for key, change in self._changes.items()]
        if len(actions) == 1:
            kind, parameters = actions[0]
            return f"{kind.lower()}_item", parameters
        return "transact_write_items", {
            "TransactItems": [{kind: parameters} for kind, parameters in actions],
            "ClientRequestToken": uuid.uuid4().hex,
        }


class _Expressions:
    """Placeholders: attribute names may be DynamoDB's reserved words."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._values: dict[str, dict[str, Any]] = {}

    def name(self, name: str) -> str:
        self._names[f"#{name}"] = name
        return f"#{name}"

    def value(self, value: Value) -> str:
        placeholder = f":{len(self._values)}"
        self._values[placeholder] = as_attribute(value)
        return placeholder

    def condition(self, name: str, test: str, value: Value | None) -> str:
        held = self.name(name)
        if value is None:
            return f"attribute_{'not_exists' if test == 'absent' else 'exists'}({held})"
        comparison = test.removeprefix("absent or ")
        compared = f"{held} {comparison} {self.value(value)}"
        if comparison == test:
            return compared
        return f"(attribute_not_exists({held}) OR {compared})"

    def placeholders(self) -> dict[str, Any]:
        used = {
            "ExpressionAttributeNames": self._names,
            "ExpressionAttributeValues": self._values,
        }
        return {name: held for name, held in used.items() if held}


def named(key: Key) -> dict[str, Any]:
    return {"pk": as_attribute(key[0]), "sk": as_attribute(key[1])}


def as_attribute(value: Value) -> dict[str, Any]:
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, bytes):
        return {"B": value}
    if isinstance(value, list):
        return {"L": [as_attribute(element) for element in value]}
    return {"N": repr(value)}


def as_item(attributes: dict[str, Any]) -> Item:
    return {name: _value(attribute) for name, attribute in attributes.items()}


def _value(attribute: dict[str, Any]) -> Value:
    ((kind, held),) = attribute.items()
    if kind == "L":
        return [element["S"] for element in held]
    if kind == "N":
        return int(held) if held.lstrip("-").isdigit() else float(held)
    value: str | bytes = held
    return value
