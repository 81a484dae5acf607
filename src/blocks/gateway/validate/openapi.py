"""An OpenAPI 3.1 document becomes operations, each with what its requests and answers must be. Sans-IO; references stay in the document.

Source: OpenAPI Specification 3.1.1; its schemas are JSON Schema 2020-12.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from blocks.core.errors import ConfigError
from blocks.http.filters.negotiation import Types

from .parameters import Parameter
from .schema import Schema

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
MAX_OPERATIONS = 10_000


class Content:
    """The media types of a body and their schemas, the most exact first."""

    __slots__ = ("_entries", "required", "types")

    def __init__(self, entries: list[tuple[str, Schema | None]], *, required: bool) -> None:
        ranked = sorted(entries, key=lambda entry: entry[0].count("*"))
        self._entries = [(Types([kind]), schema) for kind, schema in ranked]
        self.types = ", ".join(kind for kind, _ in entries)
        self.required = required

    def find(self, kind: bytes) -> tuple[bool, Schema | None]:
        """Whether the media type is described, and by which schema."""
        for types, schema in self._entries:
            if kind in types:
                return True, schema
        return False, None


class Operation:
    """One method on one path: its parameters, its body, and its answers by status (``200``, ``2XX``, ``default``)."""

    __slots__ = ("body", "id", "parameters", "responses")

    def __init__(
        self, id: str, parameters: list[Parameter], body: Content | None, responses: Mapping[str, Content | None]
    ) -> None:
        self.id = id
        self.parameters = parameters
        self.body = body
        self.responses = responses

    def response(self, status: int) -> tuple[bool, Content | None]:
        """Whether an answer of that status is described, and its content."""
        for key in (str(status), f"{status // 100}XX", "default"):
            if key in self.responses:
                return True, self.responses[key]
        return False, None


class Document:
    """The operations of an OpenAPI 3.1 document, found by method and path. Raises ``ConfigError`` for a document that is none."""

    def __init__(self, document: Mapping[str, Any], *, formats: bool = True, base: str | None = None) -> None:
        version = document.get("openapi")
        if not (isinstance(version, str) and version.startswith("3.1")):
            raise ConfigError(
                f"openapi is {version!r}: only 3.1 documents are understood (3.0 has another kind of schema)"
            )
        self._document = document
        self._formats = formats
        self._base = _base_path(document) if base is None else base.rstrip("/")
        self._exact: dict[str, dict[str, Operation]] = {}
        self._templated: list[tuple[re.Pattern[str], list[str], dict[str, Operation]]] = []
        paths = document.get("paths", {})
        if not isinstance(paths, Mapping) or len(paths) > MAX_OPERATIONS:
            raise ConfigError("paths is not a table, or larger than an API can be")
        for path in sorted(paths, key=lambda text: (text.count("{"), text)):
            self._add(path, self._resolve(paths[path]))

    def find(self, method: str, path: str) -> tuple[Operation, dict[str, list[str]]] | None:
        """The operation of a request and its path parameters, decoded; a path without parameters goes before one with."""
        if self._base:
            if not path.startswith(self._base):
                return None
            path = path[len(self._base) :] or "/"
        methods = self._exact.get(path)
        if methods is not None and method in methods:
            return methods[method], {}
        for pattern, names, templated in self._templated:
            if method in templated:
                match = pattern.fullmatch(path)
                if match is not None:
                    return templated[method], {
                        name: [unquote(value)] for name, value in zip(names, match.groups(), strict=True)
                    }
        return None

    def _add(self, path: str, item: Mapping[str, Any]) -> None:
        shared = [self._resolve(entry) for entry in item.get("parameters", ())]
        operations: dict[str, Operation] = {}
        for method in METHODS:
            if method in item:
                where = f"{method.upper()} {path}"
                try:
                    operations[method.upper()] = self._operation(item[method], shared, where)
                except ConfigError as error:
                    raise ConfigError(f"{where}: {error}") from None
        if "{" not in path:
            self._exact[path] = operations
        else:
            self._templated.append((*_pattern(path), operations))

    def _operation(self, entry: Mapping[str, Any], shared: list[Mapping[str, Any]], where: str) -> Operation:
        own = [self._resolve(parameter) for parameter in entry.get("parameters", ())]
        named = {(parameter.get("in"), parameter.get("name")): parameter for parameter in (*shared, *own)}
        ignored = {("header", "accept"), ("header", "content-type"), ("header", "authorization")}  # §4.8.12.1
        parameters = [
            self._parameter(parameter)
            for (place, name), parameter in named.items()
            if (place, str(name).lower()) not in ignored
        ]
        request = self._resolve(entry["requestBody"]) if "requestBody" in entry else None
        body = None if request is None else self._content(request, required=bool(request.get("required", False)))
        responses = {
            str(status).upper() if str(status) != "default" else "default": self._content(
                self._resolve(answer), required=False
            )
            for status, answer in entry.get("responses", {}).items()
        }
        return Operation(str(entry.get("operationId", where)), parameters, body, responses)

    def _parameter(self, entry: Mapping[str, Any]) -> Parameter:
        schema: Any = entry.get("schema", True)
        if "content" in entry:
            schema = True  # a parameter that is a serialised document in itself; its presence is what can be judged
        resolved = self._resolve(schema) if isinstance(schema, Mapping) else {}
        items = resolved.get("items", {})
        inner = self._resolve(items) if isinstance(items, Mapping) else {}
        if "properties" in resolved:
            kinds = [_types(self._resolve(one)) for one in resolved["properties"].values()]
            return Parameter(entry, self._schema(schema), _types(resolved), frozenset().union(*kinds))
        return Parameter(entry, self._schema(schema), _types(resolved), _types(inner))

    def _content(self, entry: Mapping[str, Any], *, required: bool) -> Content | None:
        content = entry.get("content")
        if not content:
            return None
        entries = [
            (kind, self._schema(media["schema"]) if "schema" in media else None) for kind, media in content.items()
        ]
        return Content(entries, required=required)

    def _schema(self, schema: Any) -> Schema:
        if isinstance(schema, bool):
            return Schema(schema)
        components = self._document.get("components")
        whole = {**schema, **({"components": components} if components and _refers(schema) else {})}
        return Schema(whole, formats=self._formats)

    def _resolve(self, value: Any, depth: int = 0) -> Mapping[str, Any]:
        """What a reference object points to in this document. Raises ``ConfigError`` for one that leads out or nowhere."""
        if not isinstance(value, Mapping):
            raise ConfigError("a table was expected")
        reference = value.get("$ref")
        if not isinstance(reference, str):
            return value
        if not reference.startswith("#/") or depth > 32:
            raise ConfigError(f"$ref {reference!r} leads out of the document, or in a circle")
        found: Any = self._document
        for step in reference[2:].split("/"):
            key = unquote(step).replace("~1", "/").replace("~0", "~")
            if not isinstance(found, Mapping) or key not in found:
                raise ConfigError(f"$ref {reference!r} leads nowhere")
            found = found[key]
        return self._resolve(found, depth + 1)


def _refers(schema: Any) -> bool:
    """Whether a schema has a reference anywhere in it."""
    if isinstance(schema, Mapping):
        return "$ref" in schema or any(_refers(value) for value in schema.values())
    return isinstance(schema, list) and any(_refers(value) for value in schema)


def _types(schema: Mapping[str, Any]) -> frozenset[str]:
    """The JSON types that a schema names, also inside anyOf, oneOf and allOf."""
    named = schema.get("type", ())
    found = frozenset([named] if isinstance(named, str) else named)
    for key in ("anyOf", "oneOf", "allOf"):
        for one in schema.get(key, ()):
            if isinstance(one, Mapping):
                found |= _types(one)
    return found


def _pattern(path: str) -> tuple[re.Pattern[str], list[str]]:
    """What matches a path template, and the names of its parameters in order."""
    parts = re.split(r"\{([^{}]+)\}", path)
    text = "([^/]+)".join(re.escape(part) for part in parts[::2])
    return re.compile(text), parts[1::2]


def _base_path(document: Mapping[str, Any]) -> str:
    """The path of the first server, under which the operations are."""
    servers = document.get("servers") or [{}]
    url = servers[0].get("url", "") if isinstance(servers[0], Mapping) else ""
    return "" if "{" in url else urlsplit(url).path.rstrip("/")
