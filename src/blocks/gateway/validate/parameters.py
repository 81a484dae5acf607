"""Parameters come as text and are judged as the values that their schema means (OpenAPI 3.1 §4.8.12, styles of RFC 6570)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from blocks.core.errors import ConfigError

from .schema import Fault, Schema

_INTEGER = re.compile(r"-?(?:0|[1-9]\d{0,17})")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,17})(?:\.\d{1,17})?(?:[eE][+-]?\d{1,3})?")
_STYLES = {"path": "simple", "header": "simple", "query": "form", "cookie": "form"}
_SEPARATORS = {"form": ",", "simple": ",", "spaceDelimited": " ", "pipeDelimited": "|"}


class Parameter:
    """One parameter: where it is (path, query, header, cookie), and the schema of its value."""

    __slots__ = ("_deep", "_explode", "_item", "_schema", "_separator", "_types", "name", "place", "required")

    def __init__(self, entry: Mapping[str, Any], schema: Schema, types: frozenset[str], item: frozenset[str]) -> None:
        self.place = str(entry.get("in"))
        self.name = str(entry.get("name"))
        if self.place not in _STYLES:
            raise ConfigError(
                f"the parameter {self.name!r} is in {self.place!r}; it can be in path, query, header or cookie"
            )
        style = entry.get("style", _STYLES[self.place])
        if style not in (*_SEPARATORS, "deepObject"):
            raise ConfigError(f"the parameter {self.name!r} has the style {style!r}, which is not understood")
        self.required = bool(entry.get("required", False)) or self.place == "path"
        self._explode = bool(entry.get("explode", style in ("form", "deepObject")))
        self._separator = _SEPARATORS.get(style, ",")
        self._deep = style == "deepObject"
        self._schema = schema
        self._types = types
        self._item = item

    def faults(self, given: Mapping[str, list[str]]) -> list[Fault]:
        """What is wrong with it, in the raw values of its place."""
        values = self._values(given)
        at = f"/{self.place}/{self.name}"
        if values is None:
            return [Fault(at, "this parameter is required")] if self.required else []
        value = self._read(values)
        return [] if self._schema.accepts(value) else self._schema.faults(value, at=at)

    def owns(self, name: str) -> bool:
        """Whether a query parameter of that name is this one's."""
        return name == self.name or (self._deep and name.startswith(self.name + "["))

    def _values(self, given: Mapping[str, list[str]]) -> Any:
        if not self._deep:
            return given.get(self.name.lower() if self.place == "header" else self.name)
        prefix = self.name + "["
        found = {
            name[len(prefix) : -1]: values
            for name, values in given.items()
            if name.startswith(prefix) and name.endswith("]")
        }
        return found or None

    def _read(self, values: Any) -> Any:
        if self._deep:
            return {name: coerce(texts[0], self._item) for name, texts in values.items()}
        if "array" in self._types:
            texts = (
                values
                if self._explode and len(values) != 1
                else [part for text in values for part in text.split(self._separator)]
            )
            if self._explode and self.place == "query":
                texts = values
            return [coerce(text, self._item) for text in texts]
        if len(values) > 1:
            return [
                coerce(text, self._types) for text in values
            ]  # twice where it should be once: no schema of one value takes it
        return coerce(values[0], self._types)


def coerce(text: str, types: frozenset[str]) -> Any:
    """``text`` as a value of one of the ``types`` that it can be read as; else the text itself, which its schema then judges."""
    if "integer" in types and _INTEGER.fullmatch(text):
        return int(text)
    if "number" in types and _NUMBER.fullmatch(text):
        return float(text)
    if "boolean" in types and text in ("true", "false"):
        return text == "true"
    if "null" in types and text in ("", "null"):
        return None
    return text


def pairs(query: str) -> dict[str, list[str]]:
    """The parameters of a query, decoded, each with all its values in order."""
    found: dict[str, list[str]] = {}
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        found.setdefault(unquote(name.replace("+", " ")), []).append(unquote(value.replace("+", " ")))
    return found
