"""JSON Schemas (2020-12) of a stack's file and of a gateway's, made of the structs that decode them, for editors.

An editor knows the schema of a file by its first line, ``#:schema ./stack.schema.json`` (taplo, Even Better TOML in VS Code).
"""

from __future__ import annotations

import json
import typing
from importlib import import_module
from typing import Any

import click
import msgspec

from .schema_words import WORDS
from .sense.defaults import default_of
from .sense.readings import quantity
from .sense.view import bare, members
from .tables import StackTable

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REF = "#/$defs/{name}"
_FILLED = r"^.*\$\{.+\}.*$"  # a text with ${NAME} is read when it is filled
PATTERNS = {
    "duration": rf"{_FILLED}|^ *([0-9]+(\.[0-9]+)?|([0-9]+(\.[0-9]+)?(us|µs|ms|min|s|m|h|d|w) *)+) *$",
    "size": rf"{_FILLED}|^ *[0-9]+(\.[0-9]+)? *([bB]|[kKmMgGtT]([iI]?[bB])?)? *$",
    "rate": rf"{_FILLED}|^ *[0-9]+(\.[0-9]+)? *([bB]|[kKmMgGtT]([iI]?[bB])?)? */ *[0-9]* *"
    r"(s|sec|second|m|min|minute|h|hour|d|day) *$",
}
_WORDS = {
    "duration": "seconds, or text like 250ms, 30s, 5m, 1h, 7d",
    "size": "bytes, or text like 64KiB, 256MiB, 4GiB",
    "rate": "so many in a time: 100/s, 5000/h",
}
_NUMBERS = {"above", "clear"}  # of an alert: a number or a share, not a time


def stack_schema() -> dict[str, Any]:
    """The schema of a stack's file; a gateway's tables may stand in it."""
    gateway = gateway_schema()
    definitions: dict[str, Any] = gateway.pop("$defs")
    inline = {**definitions["FileTable"], "properties": dict(definitions["FileTable"]["properties"])}
    inline["properties"]["file"] = {
        "type": "string",
        "description": "The gateway's own file, instead of its tables here.",
    }
    definitions["Gateway"] = {**inline, "description": "A gateway: a file, or the very tables of such a file."}
    definitions |= _renamed(_components([StackTable]), definitions)
    root = definitions.pop("StackTable")
    root["properties"]["gateways"]["additionalProperties"] = {"$ref": _REF.format(name="Gateway")}
    return {"$schema": DIALECT, "title": "blocks: a stack", **_untitled(root), "$defs": definitions}


def gateway_schema() -> dict[str, Any]:
    """The schema of a gateway's file."""
    from blocks.gateway.auth.consumers import ConsumerSettings
    from blocks.gateway.auth.settings import KINDS
    from blocks.gateway.config.schema import FileTable, RouteTable
    from blocks.gateway.messages.connection import BrokerTable
    from blocks.gateway.steps import ENDS, FEATURES

    homes = {feature.home: import_module(feature.home) for feature in (*FEATURES, *ENDS)}
    settings = {home: getattr(module, "Settings", None) for home, module in homes.items()}
    kinds = [kind for kind in settings.values() if kind is not None]
    definitions = _components([FileTable, RouteTable, ConsumerSettings, BrokerTable, *KINDS.values(), *kinds])
    tables = definitions["FileTable"]["properties"]
    tables["consumers"]["additionalProperties"] = {"$ref": _REF.format(name="ConsumerSettings")}
    tables["brokers"]["additionalProperties"] = {"$ref": _REF.format(name=_name(BrokerTable, definitions))}
    tables["auth"]["additionalProperties"] = {"oneOf": [_authenticator(*kind, definitions) for kind in KINDS.items()]}
    steps: dict[str, Any] = {}
    for feature in (*FEATURES, *ENDS):
        kind = settings[feature.home]
        fields = definitions[_name(kind, definitions)]["properties"] if kind is not None else {}
        for word in feature.keywords:
            if feature.keys:
                steps.setdefault(word, fields.get(word, {}))
            elif kind is not None:
                reference = {"$ref": _REF.format(name=_name(kind, definitions))}
                steps[word] = {
                    "description": _said(homes[feature.home]),
                    "anyOf": [reference, {"not": {"type": "object"}}],
                }
            else:
                steps[word] = {"description": _said(homes[feature.home])}
    ends = {feature.key for feature in ENDS}
    route = definitions["RouteTable"]
    route["properties"] = {**route["properties"], **steps}
    definitions["Defaults"] = {
        "type": "object",
        "description": "Steps of every route that does not say otherwise.",
        "properties": {word: schema for word, schema in steps.items() if word not in ends},
        "additionalProperties": False,
    }
    definitions["FileTable"]["properties"]["routes"]["items"] = {"$ref": _REF.format(name="RouteTable")}
    definitions["GatewayTable"]["properties"]["defaults"] = {"$ref": _REF.format(name="Defaults")}
    root = _untitled(definitions["FileTable"])
    return {"$schema": DIALECT, "title": "blocks: a gateway", **root, "$defs": definitions}


def _renamed(components: dict[str, Any], taken: dict[str, Any]) -> dict[str, Any]:
    """The components under names that are not taken: ``StackBrokerTable``."""
    text = json.dumps(components)
    for name in set(components) & set(taken):
        text = text.replace(f'"{_REF.format(name=name)}"', f'"{_REF.format(name=f"Stack{name}")}"')
    return {f"Stack{name}" if name in taken else name: schema for name, schema in json.loads(text).items()}


def _authenticator(word: str, kind: type[msgspec.Struct], definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of ``[auth.NAME]`` with that ``type``."""
    name = _name(kind, definitions)
    definitions[name]["properties"]["type"] = {"const": word}
    return {"$ref": _REF.format(name=name)}


def _untitled(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != "title"}


def _components(kinds: list[Any]) -> dict[str, Any]:
    """The definitions of those structs and all inside them, with descriptions, defaults, and what a text must look like."""
    _, found = msgspec.json.schema_components(kinds, schema_hook=lambda kind: {}, ref_template=_REF)
    components = {name: dict(schema) for name, schema in found.items()}
    for kind in _structs(kinds):
        component = components[_name(kind, components)]
        component["description"] = " ".join((kind.__doc__ or "").split()).replace("``", "")
        component.pop("title", None)
        words = WORDS.get(kind.__name__, {})
        for field in msgspec.structs.fields(kind):
            name = field.encode_name
            schema = _patterned(field.type, component["properties"][name], name)
            component["properties"][name] = _told(kind, name, schema, words.get(name, ""))
    return components


def _structs(kinds: list[Any]) -> list[type[msgspec.Struct]]:
    """Those types and all the structs inside them, each once."""
    seen: dict[type[msgspec.Struct], None] = {}
    waiting = list(kinds)
    while waiting:
        for kind in members(waiting.pop()):
            if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
                if kind not in seen:
                    seen[kind] = None
                    waiting += [field.type for field in msgspec.structs.fields(kind)]
            else:
                waiting += [part for part in typing.get_args(kind) if part is not Ellipsis]
    return list(seen)


def _name(kind: type[msgspec.Struct], components: dict[str, Any]) -> str:
    """What msgspec calls it: its own name, or the whole path where two have the same."""
    return kind.__name__ if kind.__name__ in components else f"{kind.__module__}.{kind.__qualname__}"


def _told(kind: type[msgspec.Struct], name: str, schema: dict[str, Any], words: str) -> dict[str, Any]:
    """A property as an editor shows it: TOML has no null, and what is left out is as the block has it."""
    choices = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    if len(choices) == 1 and set(schema) <= {"anyOf", "default", "description"}:
        schema = {**{key: value for key, value in schema.items() if key != "anyOf"}, **choices[0]}
    elif choices:
        schema = {**schema, "anyOf": choices}
    if schema.get("default") is None:
        schema = {key: value for key, value in schema.items() if key != "default"}
        default = default_of(kind, name)
        if default is not None:
            schema["default"] = default
    return (
        {"description": words, **{key: value for key, value in schema.items() if key != "description"}}
        if words
        else schema
    )


def _patterned(kind: Any, schema: dict[str, Any], name: str) -> dict[str, Any]:
    """``schema`` with the pattern of a quantity where the type is marked as one, also inside lists and tables."""
    word = quantity(kind) or _unmarked(kind, name)
    if word:
        return _strings(schema, word)
    for one in members(kind):
        origin, arguments = typing.get_origin(one), typing.get_args(one)
        place = {dict: "additionalProperties", list: "items", tuple: "items"}.get(origin) if origin else None
        if place and place in schema:
            schema = {
                **schema,
                place: _patterned(arguments[-1] if origin is dict else arguments[0], schema[place], name),
            }
    return schema


def _unmarked(kind: Any, name: str) -> str:
    """A gateway's tables have durations as ``float | str`` and sizes as ``int | str``."""
    found = tuple(one for one in members(bare(kind)) if one is not type(None))
    if found == (float, str) and name not in _NUMBERS and name != "ttl_jitter" and name != "health":
        return "duration"
    return "size" if found == (int, str) else ""


def _strings(schema: dict[str, Any], word: str) -> dict[str, Any]:
    """Every text in ``schema`` looks as that quantity is written."""
    told: dict[str, Any] = {"description": _WORDS[word]}
    if "anyOf" in schema:
        choices = [_strings(one, word) if one != {"type": "null"} else one for one in schema["anyOf"]]
        flat = [{key: value for key, value in one.items() if key != "description"} for one in choices]
        return {**schema, **told, "anyOf": [part for one in flat for part in one.get("anyOf", [one])]}
    if schema.get("type") == "string":
        return {**schema, **told, "pattern": PATTERNS[word]}
    if schema.get("type") in ("number", "integer"):
        return {**schema, "minimum": schema.get("minimum", 0)}
    return schema


def _said(module: Any) -> str:
    """The first line of a module's docstring."""
    return (module.__doc__ or "").strip().partition("\n")[0].replace("``", "")


@click.command("schema")
@click.argument("kind", type=click.Choice(["stack", "gateway"]), default="stack")
def schema(kind: str) -> None:
    """Print the JSON Schema of a file, for editors: blocks schema > stack.schema.json

    The file then begins with the line "#:schema ./stack.schema.json" (taplo, VS Code's Even Better TOML).
    """
    click.echo(json.dumps(stack_schema() if kind == "stack" else gateway_schema(), indent=2, ensure_ascii=False))
