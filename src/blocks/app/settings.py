"""The plain tables of a source become structs; everything that is wrong with them is found, and what is right is kept."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Annotated, Any, Union

from blocks.core.config.complaint import At, Complaint, complaints_of
from blocks.core.config.decode import convert
from blocks.core.config.suggest import suggestion
from blocks.core.errors import ConfigError
from blocks.core.quantities import rate, seconds, size

from .sense.defaults import fields_of
from .tables import HANDLERS, KINDS, ProcessTable, StackTable, Table

_QUANTITIES: dict[str, Callable[[Any], Any]] = {"duration": seconds, "size": size, "rate": rate}
_NOT_IN_NAMES = "/:@"  # a name with one of these would read as a URL or an address


def settings_of(tables: Mapping[str, Any], complaints: list[Complaint]) -> tuple[StackTable, set[tuple[str, str]]]:
    """The stack's settings without what is wrong, and which (kind, name) were left out for that."""
    broken: set[tuple[str, str]] = set()
    kept: dict[str, Any] = {}
    for kind, value in tables.items():
        if kind == "process":
            made = _decoded(ProcessTable, value, (kind,), complaints)
            kept[kind] = made if made is not None else ProcessTable()
        elif kind in KINDS:
            kept[kind] = _named(kind, value, complaints, broken)
        elif kind != "include":
            known = ["include", "process", *KINDS]
            complaints.append(Complaint((kind,), f"unknown table {kind!r}{suggestion(kind, known)}"))
    settings = StackTable(**kept)
    _one_namespace(tables, complaints)
    return settings, broken


NOTHING_LISTENS = "nothing listens: give it [servers.NAME] with listen and handler"


def serves(settings: StackTable) -> bool:
    """Whether there is anything that a client could connect to: what a process must have, and a reload must not take away."""
    return bool(settings.servers) or any(table.listen or table.http for table in settings.brokers.values())


def _named(kind: str, value: Any, complaints: list[Complaint], broken: set[tuple[str, str]]) -> dict[str, Any]:
    """``[kind.NAME]`` of all names."""
    if not isinstance(value, Mapping):
        complaints.append(Complaint((kind,), f"expected tables [{kind}.NAME], got {value!r}"))
        return {}
    kept: dict[str, Any] = {}
    for name, table in value.items():
        at: At = (kind, name)
        if not name or any(letter in name for letter in _NOT_IN_NAMES) or not name.isprintable():
            complaints.append(Complaint(at, f"{name!r} cannot be a name: it would read as an address"))
        made = _decoded(KINDS[kind], table, at, complaints)
        if made is None:
            broken.add((kind, name))
        else:
            kept[name] = made
    return kept


def _decoded(type: Any, value: Any, at: At, complaints: list[Complaint]) -> Any:
    """``value`` as that type, its quantities looked at; None when something is wrong."""
    before = len(complaints)
    if not isinstance(value, Mapping):
        complaints.append(Complaint(at, f"expected a table, got {value!r}"))
        return None
    made = convert(type, value, at, complaints)
    if isinstance(made, Table):
        _check_quantities(made, at, complaints)
    return made if len(complaints) == before else None


def _one_namespace(tables: Mapping[str, Any], complaints: list[Complaint]) -> None:
    """Handlers of different kinds have different names: who names one must mean one."""
    first: dict[str, str] = {}
    for kind in HANDLERS:
        value = tables.get(kind)
        for name in value if isinstance(value, Mapping) else ():
            other = first.setdefault(name, kind)
            if other != kind:
                said = f"the name {name!r} is taken by [{other}.{name}]; handlers of all kinds share one namespace"
                complaints.append(Complaint((kind, name), said))


def _check_quantities(table: Table, at: At, complaints: list[Complaint]) -> None:
    """Complain of every duration, size or rate below ``table`` that is none."""
    for field in fields_of(type(table)).values():
        value = getattr(table, field.name)
        if value is None:
            continue
        here = (*at, field.encode_name)
        read = _reader(field.type)
        if read is not None:
            _check(read, value, here, complaints)
        elif isinstance(value, Table):
            _check_quantities(value, here, complaints)
        elif isinstance(value, list):
            for place, item in enumerate(value):
                if isinstance(item, Table):
                    _check_quantities(item, (*here, place), complaints)
        elif isinstance(value, dict):
            of_items = _reader(_item_type(field.type))
            for key, item in value.items():
                if isinstance(item, Table):
                    _check_quantities(item, (*here, key), complaints)
                elif of_items is not None:
                    _check(of_items, item, (*here, key), complaints)


def _check(read: Callable[[Any], Any], value: Any, at: At, complaints: list[Complaint]) -> None:
    try:
        read(value)
    except ConfigError as error:
        complaints.extend(complaints_of(error, at))


@lru_cache(256)
def _reader(kind: Any) -> Callable[[Any], Any] | None:
    """What reads values of an annotated quantity (or None); None for all other types."""
    if typing.get_origin(kind) is Annotated:
        for meta in typing.get_args(kind)[1:]:
            extra = getattr(meta, "extra", None) or {}
            if "quantity" in extra:
                return _QUANTITIES[extra["quantity"]]
    if typing.get_origin(kind) in (Union, types.UnionType):
        return next((found for one in typing.get_args(kind) if (found := _reader(one)) is not None), None)
    return None


def _item_type(kind: Any) -> Any:
    """What the values of a dictionary are; None when it is none."""
    if typing.get_origin(kind) is dict:
        return typing.get_args(kind)[1]
    if typing.get_origin(kind) in (Union, types.UnionType):
        return next((found for one in typing.get_args(kind) if (found := _item_type(one)) is not None), None)
    return None
