"""Complaints as people read them: ``file:line:column: error: what``, the source line, and a mark under the place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..masking import MASK, is_secret, masked
from .complaint import Complaint, ConfigErrors, dotted
from .places import nearest
from .read import Source

TAB = 4


def report(complaints: Iterable[Complaint], source: Source | None, name: str) -> str:
    """All complaints, in the order of the file."""
    rows: list[tuple[int, int, str]] = []
    for complaint in complaints:
        place = nearest(source.places, complaint.at) if source is not None else None
        where = f" ({dotted(complaint.at)})" if complaint.at else ""
        if place is None or source is None:
            rows.append((0, 0, f"{name}: {complaint.level}: {complaint.message}{where}"))
            continue
        lines = source.text.split("\n")
        line = _shown(lines[place.line - 1] if place.line <= len(lines) else "", complaint)
        shown = line.expandtabs(TAB)
        indent = min(len(line[: place.column - 1].expandtabs(TAB)), max(len(shown) - 1, 0))
        width = max(min(place.width, len(shown) - indent), 1)
        mark = " " * indent + "^" * width
        head = f"{name}:{place.line}:{place.column}: {complaint.level}: {complaint.message}{where}"
        rows.append((place.line, place.column, f"{head}\n    {shown}\n    {mark}"))
    return "\n".join(text for _, _, text in sorted(rows, key=lambda row: row[:2]))


def _shown(line: str, complaint: Complaint) -> str:
    """The source line; reports go to logs and the admin API, so what a secret's key holds is left out, and credentials in URLs."""
    if any(is_secret(key) for key in complaint.at if isinstance(key, str)):
        key, equals, _ = line.partition("=")
        return f"{key}{equals} {MASK}" if equals else MASK
    return str(masked(line)) if "://" in line else line


def report_error(error: ConfigErrors, name: str) -> str:
    """Everything that a ``ConfigErrors`` holds."""
    return report(error.complaints, error.source, name)


def rows_of(error: ConfigErrors, name: str) -> list[dict[str, Any]]:
    """The same for programs: ``file``, ``line`` and ``column`` where they are known, ``level``, ``key``, ``message``."""
    rows: list[dict[str, Any]] = []
    for one in error.complaints:
        place = nearest(error.source.places, one.at) if error.source is not None else None
        where = {"line": place.line, "column": place.column} if place is not None else {}
        rows.append({"file": name, **where, "level": one.level, "key": dotted(one.at), "message": one.message})
    return rows
