"""A gateway's own file is looked at as if its tables stood in the stack's file; its complaints have their places in its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks.core.config.complaint import ConfigErrors

from ..source import Source


def inlined(source: Source, environment: Mapping[str, str]) -> dict[str, Any]:
    """The tables of ``source`` with those of the gateways' files in their places; a file that cannot be read stays a name."""
    tables = dict(source.tables)
    gateways = tables.get("gateways")
    if isinstance(gateways, Mapping):
        tables["gateways"] = {name: _whole(source, str(name), table, environment) for name, table in gateways.items()}
    return tables


def _whole(source: Source, name: str, table: Any, environment: Mapping[str, str]) -> Any:
    file = table.get("file") if isinstance(table, Mapping) else None
    if not isinstance(file, str):
        return table
    at = ("gateways", name)
    home = source.find(at)
    if home is not None and not home[1]:
        return {"file": file, **home[0].tables}  # the gateway was made: its place is its own file
    path = source.folder(at) / file
    try:
        found = source.read(path, environment)
    except ConfigErrors:
        return table
    source.own(at, found, len(at))
    if home is not None:
        source.own((*at, "file"), home[0])
    return {"file": file, **found.tables}
