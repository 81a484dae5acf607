"""Plain values become structs, and every error in them is found in one pass: msgspec alone stops at the first."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar, Union, cast

import msgspec

from ..errors import ConfigError
from .complaint import At, Complaint, ConfigErrors, Misread
from .kinds import reader_of
from .suggest import suggestion

T = TypeVar("T")
_BAD = object()


def decode(type: type[T], value: Any) -> T:
    """``value`` as a ``type``. Raises ``ConfigErrors`` with everything that is wrong, each with its path below ``value``."""
    complaints: list[Complaint] = []
    made = convert(type, value, (), complaints)
    if complaints:
        raise ConfigErrors(complaints)
    return cast(T, made)


def convert(kind: Any, value: Any, at: At, complaints: list[Complaint]) -> Any:
    """``value`` as a ``kind``; what is wrong is added to ``complaints``."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        try:
            made = value if isinstance(value, kind) else msgspec.convert(value, kind)
        except msgspec.ValidationError:  # something is wrong: once more, slowly, to find all of it
            return _struct(kind, value, at, complaints)
        _read(made, at, complaints)
        return made
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        chosen = _choose(arguments, value)
        if chosen is not None:
            return convert(chosen, value, at, complaints)
    elif origin is typing.Literal:
        if value not in arguments:
            complaints.append(Complaint(at, f"{value!r} is not known{suggestion(str(value), arguments)}"))
            return _BAD
        return value
    elif origin in (list, tuple) and isinstance(value, list | tuple) and arguments:
        items = [convert(arguments[0], item, (*at, place), complaints) for place, item in enumerate(value)]
        return tuple(items) if origin is tuple else items
    elif origin is dict and isinstance(value, Mapping):
        return {key: convert(arguments[1], item, (*at, key), complaints) for key, item in value.items()}
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        complaints.append(Complaint(at, _words(str(error))))
        return _BAD


def _choose(arguments: tuple[Any, ...], value: Any) -> Any:
    """The member of a union that a table or list can only be meant for, so that errors inside it get their places."""
    for kind in arguments:
        if isinstance(value, Mapping) and isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return kind
        origin = typing.get_origin(kind)
        if isinstance(value, Mapping) and origin is dict:
            return kind
        if isinstance(value, list | tuple) and origin in (list, tuple):
            return kind
    return None


def _struct(kind: type[msgspec.Struct], value: Any, at: At, complaints: list[Complaint]) -> Any:
    if not isinstance(value, Mapping):
        complaints.append(Complaint(at, f"expected a table, got {value!r}"))
        return _BAD
    before = len(complaints)
    fields = _fields(kind)
    given: dict[str, Any] = {}
    for key, item in value.items():
        field = fields.get(key)
        if field is None:
            complaints.append(Complaint((*at, key), f"unknown key {key!r}{suggestion(key, fields)}"))
        else:
            given[field.name] = made = convert(field.type, item, (*at, key), complaints)
            read = None if made is _BAD else reader_of(field.type)
            if read is not None and made is not None:
                _refused(read, made, (*at, key), complaints)
    for key, field in fields.items():
        if field.required and key not in value:
            complaints.append(Complaint(at, f"the key {key!r} is missing"))
    if not all(isinstance(one, Misread) for one in complaints[before:]):
        return _BAD
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        complaints.append(Complaint(at, str(error)))
        return _BAD


def _read(value: Any, at: At, complaints: list[Complaint]) -> None:
    """Read every quantity in a struct that was made, and in those inside it."""
    if isinstance(value, msgspec.Struct):
        for name, key, default, read in _quantities(type(value)):
            given = getattr(value, name)
            if given is None or given is default:
                continue
            if read is None:
                _read(given, (*at, key), complaints)
            else:
                _refused(read, given, (*at, key), complaints)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _read(item, (*at, key), complaints)
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            _read(item, (*at, place), complaints)


def _refused(read: Callable[[Any], object], value: Any, at: At, complaints: list[Complaint]) -> None:
    try:
        read(value)
    except ConfigError as error:
        complaints.append(Misread(at, str(error)))


@lru_cache(256)
def _quantities(kind: type[msgspec.Struct]) -> tuple[tuple[str, str, Any, Callable[[Any], object] | None], ...]:
    """(field, key, default, reader) of the fields that are quantities, and, with None for a reader, of those with structs inside."""
    found = []
    for field in msgspec.structs.fields(kind):
        read = reader_of(field.type)
        if read is not None or _holds_struct(field.type):
            found.append((field.name, field.encode_name, field.default, read))
    return tuple(found)


def _holds_struct(kind: Any) -> bool:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return bool(_quantities(kind))
    return any(_holds_struct(part) for part in typing.get_args(kind))


@lru_cache(256)
def _fields(kind: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


def _words(message: str) -> str:
    """msgspec's message in a user's words."""
    return message.replace("`", "").replace("object", "table").replace("Expected", "expected", 1)
