"""A stack's plain tables, looked at so that one mistake does not lead to another: what is not surely known is None."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union

import msgspec

from blocks.core.config.complaint import At
from blocks.core.errors import ConfigError
from blocks.core.quantities import seconds, size

from .defaults import default_of, fields_of

T = TypeVar("T")
_NONE = object()


class View:
    """The tables as they were written, with the defaults of the constructors that the structs of ``root`` are calls of.

    A value is known when it was given and can be read, or when it was left out of a table whose keys are all known (a misspelt key may
    have been meant for it).
    """

    def __init__(
        self, tables: Mapping[str, Any], root: type[msgspec.Struct], folder: Callable[[At], Path] | None = None
    ) -> None:
        self.tables = tables
        self.root = root
        self._folder = folder

    def folder(self, at: At) -> Path:
        """What paths in the table at ``at`` are relative to."""
        return Path() if self._folder is None else self._folder(at)

    def raw(self, at: At) -> Any:
        """What stands at ``at``, or None."""
        found = self._raw(at)
        return None if found is _NONE else found

    def _raw(self, at: At) -> Any:
        value: Any = self.tables
        for key in at:
            held = key in value if isinstance(value, Mapping) else isinstance(key, int) and _has(value, key)
            if not held:
                return _NONE
            value = value[key]
        return value

    def given(self, at: At) -> bool:
        """Whether something stands at ``at``."""
        return self._raw(at) is not _NONE

    def absent(self, at: At) -> bool:
        """Whether it was surely left out: not given, and no key beside it is an unknown one that was meant for it."""
        if self.given(at):
            return False
        table = self.raw(at[:-1])
        if table is None and len(at) > 1:
            return self.absent(at[:-1])
        fields = _fields(self.kind(at[:-1]))
        return isinstance(table, Mapping) and not any(key not in fields for key in table)

    def kind(self, at: At) -> Any:
        """The type of what belongs at ``at``, or None when nothing does."""
        kind: Any = self.root
        for key in at:
            kind = below(kind, key)
            if kind is None:
                return None
        return kind

    def value(self, at: At) -> Any:
        """What was given, else the default, else None."""
        found = self._raw(at)
        if found is not _NONE:
            return found
        return self._default(at) if at and self.absent(at) else None

    def _default(self, at: At) -> Any:
        for one in members(self.kind(at[:-1])):
            if isinstance(one, type) and issubclass(one, msgspec.Struct) and str(at[-1]) in fields_of(one):
                return default_of(one, str(at[-1]))
        return None

    def read(self, at: At, reader: Callable[[Any], T]) -> T | None:
        """The value as ``reader`` reads it; None when there is none or it is wrong."""
        value = self.value(at)
        if value is None or isinstance(value, Mapping | list | tuple):
            return None
        try:
            return reader(value)
        except (ConfigError, ValueError, TypeError):
            return None

    def seconds(self, at: At) -> float | None:
        """A duration."""
        return self.read(at, seconds)

    def size(self, at: At) -> int | None:
        """A size in bytes."""
        return self.read(at, size)

    def number(self, at: At) -> float | None:
        """A number as it stands."""
        value = self.value(at)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    def text(self, at: At) -> str | None:
        """A text that is not empty."""
        value = self.value(at)
        return value if isinstance(value, str) and value else None

    def names(self, kind: str) -> list[str]:
        """The names of the tables ``[kind.NAME]``, in the order of the file."""
        tables = self.tables.get(kind)
        return [str(name) for name in tables] if isinstance(tables, Mapping) else []

    def tables_of(self, *kinds: str) -> Iterator[tuple[At, Mapping[str, Any]]]:
        """(place, table) of every well-formed ``[kind.NAME]``."""
        for kind in kinds:
            for name in self.names(kind):
                table = self.raw((kind, name))
                if isinstance(table, Mapping):
                    yield (kind, name), table

    def texts(self, at: At) -> Iterator[tuple[At, str]]:
        """The text or the texts at ``at``, each with its place."""
        value = self.value(at)
        if isinstance(value, str):
            yield at, value
        elif isinstance(value, list | tuple):
            for place, item in enumerate(value):
                if isinstance(item, str):
                    yield (*at, place), item

    @property
    def workers(self) -> int:
        """How many processes there will be."""
        found = self.number(("process", "workers"))
        return int(found) if found is not None and found >= 1 else 1


def _has(value: Any, place: int) -> bool:
    return isinstance(value, list | tuple) and place < len(value)


def bare(kind: Any) -> Any:
    """A type without its annotations."""
    while typing.get_origin(kind) is Annotated:
        kind = typing.get_args(kind)[0]
    return kind


def members(kind: Any) -> tuple[Any, ...]:
    """The members of a union, bare; any other type alone."""
    kind = bare(kind)
    if typing.get_origin(kind) in (Union, types.UnionType):
        return tuple(one for part in typing.get_args(kind) for one in members(part))
    return (kind,)


def below(kind: Any, key: str | int) -> Any:
    """The type of what ``key`` leads to in a value of type ``kind``, or None."""
    for one in members(kind):
        origin, arguments = typing.get_origin(one), typing.get_args(one)
        if isinstance(key, int):
            if origin in (list, tuple) and arguments:
                return arguments[0]
        elif origin is dict:
            return arguments[1]
        elif isinstance(one, type) and issubclass(one, msgspec.Struct) and key in fields_of(one):
            return fields_of(one)[key].type
    return None


def _fields(kind: Any) -> Mapping[str, msgspec.structs.FieldInfo]:
    for one in members(kind):
        if isinstance(one, type) and issubclass(one, msgspec.Struct):
            return fields_of(one)
    return {}
