"""The files of a stack become one set of tables; for each key it is known which file it came from, and where it stands there.

``include = ["more/*.toml"]`` is relative to the file that says so. Tables of a kind merge, and a name given twice is an error.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from blocks.core.config.complaint import At, Complaint, ConfigErrors, dotted
from blocks.core.config.places import Place, nearest
from blocks.core.config.read import Source as File
from blocks.core.config.read import read
from blocks.core.config.report import report

from .tables import KINDS

_MAGIC = re.compile(r"[*?\[]")
MAX_FILES = 1000  # files of one stack, so that a pattern that matches a whole disk is an error and not a long wait


class Source:
    """The tables of a stack, and the files that they came from. Tables that were given in code have no file."""

    def __init__(self, path: Path | None, tables: dict[str, Any], base: Path | None = None) -> None:
        self.path = path
        self.base = base if base is not None else path.parent if path is not None else Path()
        self.tables = tables
        self._files: dict[At, tuple[File, int]] = {}
        self._named: dict[Path, File] = {}

    def read(self, path: Path, environment: Mapping[str, str]) -> File:
        """A file that a table names, read once for this source however often it is asked for. Raises ``ConfigErrors``."""
        found = self._named.get(path)
        if found is None:
            found = self._named[path] = read(path, environment)
        return found

    def read_all(self, environment: Mapping[str, str]) -> None:
        """Read the gateways' own files. What is wrong with one is told by who makes that gateway."""
        gateways = self.tables.get("gateways")
        for name, table in gateways.items() if isinstance(gateways, Mapping) else ():
            file = table.get("file") if isinstance(table, Mapping) else None
            if isinstance(file, str):
                with suppress(ConfigErrors):
                    self.read(self.folder(("gateways", name)) / file, environment)

    def own(self, at: At, file: File, strip: int = 0) -> None:
        """What is at ``at`` and below stands in ``file``, there without the first ``strip`` keys."""
        self._files[at] = (file, strip)

    def own_broken(self, at: At, path: Path, error: ConfigErrors) -> None:
        """What is wrong at ``at`` and below stands in the file at ``path``, which was opened but could not be read as tables."""
        file = error.source
        if file is None or not file.path.name:  # a syntax error: the parser knows no path
            text = (file.text if file is not None else "") or path.read_text("utf-8", "replace")
            file = File(path, text, {}, file.places if file is not None else {})
        self.own(at, file, len(at))

    def files(self) -> list[Path]:
        """Every file that was read, the stack's own first."""
        return list(dict.fromkeys(file.path for file, _ in self._files.values()))

    @property
    def secrets(self) -> frozenset[str]:
        """What was filled in from files and secret variables: whoever shows the tables masks it."""
        return frozenset(secret for file, _ in self._files.values() for secret in file.secrets)

    def find(self, at: At) -> tuple[File, At] | None:
        """The file that a key stands in, and its keys there; None for tables given in code."""
        for length in range(len(at), -1, -1):
            found = self._files.get(at[:length])
            if found is not None:
                file, strip = found
                return file, at[strip:]
        return None

    def place(self, at: At) -> tuple[Path, Place | None] | None:
        """The file, and the place in it (None in JSON and YAML), of a key or of what encloses it."""
        found = self.find(at)
        if found is None:
            return None
        file, inside = found
        return file.path, nearest(file.places, inside)

    def folder(self, at: At) -> Path:
        """The folder that paths in the table at ``at`` are relative to: that of its file."""
        found = self.find(at)
        return self.base if found is None else found[0].path.parent

    def report(self, complaints: Iterable[Complaint]) -> str:
        """All complaints, file by file, each with its place and the source line underlined."""
        groups: dict[int, tuple[File | None, list[Complaint]]] = {}
        for complaint in complaints:
            found = self.find(complaint.at)
            file, inside = found if found is not None else (None, complaint.at)
            groups.setdefault(id(file), (file, []))[1].append(complaint._replace(at=inside))
        return "\n".join(
            report(told, file, str(file.path if file is not None else self.path or "stack"))
            for file, told in groups.values()
        )

    @property
    def digest(self) -> str:
        """Names this very content, filled; the order of keys does not matter."""
        return hashlib.blake2b(canonical(self.tables).encode(), digest_size=6).hexdigest()


class StackErrors(ConfigErrors):
    """Everything that is wrong with a stack at once; ``report()`` tells it with places in all of its files."""

    def __init__(self, complaints: list[Complaint], origin: Source) -> None:
        super().__init__(complaints)
        self.origin = origin

    def __reduce__(self) -> tuple[Any, ...]:
        return StackErrors, (self.complaints, self.origin)

    def report(self) -> str:
        """For people: file:line:column, what is wrong, the line underlined."""
        return self.origin.report(self.complaints)

    def rows(self) -> list[dict[str, Any]]:
        """For programs: ``file``, ``line`` and ``column`` where they are known, ``level``, ``key``, ``message``."""
        rows: list[dict[str, Any]] = []
        for one in self.complaints:
            found, place = self.origin.find(one.at), self.origin.place(one.at)
            row: dict[str, Any] = {"file": str(self.origin.path or "stack") if place is None else str(place[0])}
            if place is not None and place[1] is not None:
                row |= {"line": place[1].line, "column": place[1].column}
            inside = one.at if found is None else found[1]
            rows.append({**row, "level": one.level, "key": dotted(inside), "message": one.message})
        return rows


def canonical(value: Any) -> str:
    """Plain values as text, equal for equal values."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key!r}:{canonical(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(canonical(item) for item in value) + "]"
    return repr(value)


def of_tables(tables: Mapping[str, Any], base: Path | None = None) -> Source:
    """The source of tables that were given in code; ``base`` is what paths in them are relative to (the working directory)."""
    return Source(None, dict(tables), base)


def gather(path: Path, environment: Mapping[str, str]) -> tuple[Source, list[Complaint]]:
    """Read a file and what it includes: what could be read, and all that cannot be read or is there twice."""
    source = Source(path, {})
    complaints: list[Complaint] = []
    _Reader(source, environment, complaints).run(path)
    return source, complaints


def read_stack(path: Path, environment: Mapping[str, str]) -> Source:
    """Read a file and what it includes. Raises ``StackErrors`` with all that cannot be read, or is there twice."""
    source, complaints = gather(path, environment)
    if complaints:
        raise StackErrors(complaints, source)
    return source


class _Reader:
    """One run over a file and its includes."""

    def __init__(self, source: Source, environment: Mapping[str, str], complaints: list[Complaint]) -> None:
        self._source = source
        self._environment = environment
        self._complaints = complaints
        self._seen: set[Path] = set()

    def run(self, path: Path) -> None:
        """Read ``path`` and what it includes, each file before those that it asks for."""
        self._wanted: list[tuple[Path, At]] = []  # the next at the end
        self._take(path, (), True)
        while self._wanted and len(self._seen) <= MAX_FILES:
            self._take(*self._wanted.pop(), False)

    def _take(self, path: Path, said_at: At, first: bool) -> None:
        """Read ``path``, which is asked for at ``said_at``."""
        real = path.resolve()
        if real in self._seen:
            return  # a file that is included on two ways, or that includes itself by a pattern, counts once
        self._seen.add(real)
        if len(self._seen) > MAX_FILES:
            self._complaints.append(Complaint(said_at, f"more than {MAX_FILES} files are included"))
            return
        mark: At = () if first else (f"{path}:",)
        try:
            file = read(path, self._environment)
        except ConfigErrors as error:
            self._unreadable(path, error, said_at, mark)
            return
        self._take_in(file, mark)

    def _take_in(self, file: File, mark: At) -> None:
        self._source.own(mark, file, len(mark))
        self._merge(file, mark)
        self._include(file, mark)

    def _unreadable(self, path: Path, error: ConfigErrors, said_at: At, mark: At) -> None:
        """What is wrong stands in that file when it could be opened, else where it is included; what can be read of it is taken in."""
        if error.source is None:
            named = "" if not mark else f"{path}: "
            self._complaints.extend(Complaint(said_at, named + one.message) for one in error.complaints)
            return
        if error.source.tables:
            self._take_in(error.source, mark)
        else:
            self._source.own_broken(mark, path, error)
        self._complaints.extend(one._replace(at=self._merged(one.at, mark, path)) for one in error.complaints)

    def _merged(self, at: At, mark: At, path: Path) -> At:
        """Where a key of the file at ``path`` is in the whole."""
        found = self._source.find(at) if mark and at else None
        return at if found is not None and found[0].path == path else (*mark, *at)

    def _merge(self, file: File, mark: At) -> None:
        tables = self._source.tables
        for kind, value in file.tables.items():
            if kind == "include":
                continue
            if kind in KINDS and isinstance(value, dict) and isinstance(tables.get(kind, {}), dict):
                merged = tables.setdefault(kind, {})
                for name, table in value.items():
                    self._put(merged, (kind, name), table, file, mark)
            else:
                self._put(tables, (kind,), value, file, mark)

    def _put(self, holder: dict[str, Any], at: At, value: Any, file: File, mark: At) -> None:
        name = str(at[-1])
        if name not in holder:
            holder[name] = value
            self._source.own(at, file)
            return
        before = self._source.place(at)
        where = "" if before is None else f" in {before[0]}" + (f" line {before[1].line}" if before[1] else "")
        self._complaints.append(Complaint((*mark, *at), f"[{'.'.join(map(str, at))}] is there already{where}"))

    def _include(self, file: File, mark: At) -> None:
        patterns = file.tables.get("include", [])
        at: At = (*mark, "include")
        if not isinstance(patterns, list) or not all(isinstance(pattern, str) for pattern in patterns):
            self._complaints.append(Complaint(at, 'include is a list of files or patterns, like ["more/*.toml"]'))
            return
        folder = file.path.parent
        wanted: list[tuple[Path, At]] = []
        for number, pattern in enumerate(patterns):
            try:
                found = sorted(folder.glob(pattern)) if _MAGIC.search(pattern) else [folder / pattern]
            except (ValueError, NotImplementedError) as error:
                self._complaints.append(Complaint((*at, number), f"{pattern!r} is no pattern of files: {error}"))
                continue
            wanted += [(path, (*at, number)) for path in found]
        self._wanted += reversed(wanted)
