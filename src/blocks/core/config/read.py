"""A file becomes plain tables and the places of their keys; ``${NAME}`` is filled from the environment, ``${file:PATH}`` from a file.

TOML is the format; ``.json`` and ``.yaml`` files are read, too.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError, MissingExtra
from ..masking import is_secret
from .complaint import At, Complaint, ConfigErrors
from .places import Place, places_of

_FILL = re.compile(r"\$\$|\$\{([^}]*)\}")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.S)
_WHERE = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.S)
_OTHERS = (".json", ".yaml", ".yml")
MAX_FILE = 16 * 1024 * 1024  # bytes of a configuration file


class Source:
    """A file that was read: its tables, filled; its text; and ``places``, worked out only when somebody asks.

    ``secrets`` are what ``${file:…}`` and variables like ``${DB_PASSWORD}`` gave: whoever shows the tables masks them.
    """

    def __init__(
        self,
        path: Path,
        text: str,
        tables: dict[str, Any],
        places: dict[At, Place] | None = None,
        secrets: frozenset[str] = frozenset(),
    ) -> None:
        self.path = path
        self.text = text
        self.tables = tables
        self.secrets = secrets
        self._places = places

    @property
    def places(self) -> dict[At, Place]:
        """Where each key stands."""
        if self._places is None:
            self._places = _places(self.text, self.path.suffix)
        return self._places


def read(path: Path, environment: Mapping[str, str]) -> Source:
    """Read a file. Raises ``ConfigErrors``; syntax errors and unset variables are told with their places."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigErrors([Complaint((), f"cannot be read: {error.strerror or error}")]) from error
    if len(data) > MAX_FILE:
        raise ConfigErrors([Complaint((), f"has more than {MAX_FILE} bytes")])
    try:
        text = data.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ConfigErrors([Complaint((), f"is not UTF-8: {error.reason} at byte {error.start}")]) from error
    complaints: list[Complaint] = []
    secrets: set[str] = set()
    try:
        tables = parse(text, path.suffix)
        filled = tables
        # An escape may stand for a dollar, YAML for endless nesting.
        if "$" in text or "\\" in text or path.suffix in _OTHERS:
            filled = _fill(tables, (), _Lookup(environment, path.parent, secrets), complaints)
    except RecursionError as error:
        raise ConfigErrors([Complaint((), "is nested too deep")]) from error
    source = Source(path, text, filled, secrets=frozenset(secrets))
    if complaints:
        raise ConfigErrors(complaints, source)
    return source


def _places(text: str, suffix: str) -> dict[At, Place]:
    if suffix not in _OTHERS:
        return places_of(text)
    from .markers import json_places, yaml_places

    return json_places(text) if suffix == ".json" else yaml_places(text)


def parse(text: str, suffix: str = ".toml") -> dict[str, Any]:
    """The tables of a text. Raises ``ConfigErrors`` for a syntax error."""
    if suffix == ".json":
        try:
            return _table(json.loads(text, object_pairs_hook=_once))
        except json.JSONDecodeError as error:
            source = Source(Path(), text, {}, {(): Place(error.lineno, error.colno, 1)})
            raise ConfigErrors([Complaint((), f"is not JSON: {error.msg}")], source) from error
        except _Twice as error:
            from .markers import json_twice

            source = Source(Path(), text, {}, {(): json_twice(text)})
            raise ConfigErrors([Complaint((), f"{error.args[0]!r} is there already")], source) from error
    if suffix in _OTHERS:
        return _table(_yaml(text))
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = _WHERE.fullmatch(str(error))
        message = match.group(1) if match else str(error)
        lines = text.count("\n") + 1
        line, column = (int(match.group(2)), int(match.group(3))) if match and match.group(2) else (lines, 1)
        source = Source(Path(), text, {}, {(): Place(line, column, 1)})
        raise ConfigErrors([Complaint((), message)], source) from error
    return tables


class _Twice(Exception):
    """A key is twice in one table: the later one would silently be the only one, where TOML says so."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Twice(next(key for place, key in enumerate(keys) if key in keys[:place]))
    return table


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtra("a configuration in YAML", "yaml") from error
    from .strict_yaml import load

    try:
        return load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        source = Source(Path(), text, {}, {(): Place(mark.line + 1, mark.column + 1, 1)}) if mark is not None else None
        raise ConfigErrors([Complaint((), f"is not YAML: {error.problem or error}")], source) from error
    except yaml.YAMLError as error:
        raise ConfigErrors([Complaint((), f"is not YAML: {error}")]) from error


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigErrors([Complaint((), "is not a table of settings")])
    return value


def _fill(value: Any, at: At, look_up: _Lookup, complaints: list[Complaint]) -> Any:
    if isinstance(value, dict):
        return {key: _fill(item, (*at, key), look_up, complaints) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, (*at, place), look_up, complaints) for place, item in enumerate(value)]
    if not isinstance(value, str) or "$" not in value:
        return value

    def fill(match: re.Match[str]) -> str:
        if match.group() == "$$":
            return "$"
        try:
            return look_up(match.group(1))
        except ConfigError as error:
            complaints.append(Complaint(at, str(error)))
            return ""

    return _FILL.sub(fill, value)


class _Lookup:
    """What the words in ``${…}`` stand for; notes what of it is secret."""

    def __init__(self, environment: Mapping[str, str], base: Path, secrets: set[str]) -> None:
        self._environment = environment
        self._base = base
        self._secrets = secrets

    def __call__(self, words: str) -> str:
        if words.startswith("file:"):
            found = self._read(words)
            self._secrets.add(found)
            return found
        match = _NAME.fullmatch(words)
        if match is None:
            raise ConfigError(
                f"${{{words}}} is not understood; write ${{NAME}}, ${{NAME:-default}}, ${{file:PATH}} or $$ for a dollar"
            )
        name, default = match.groups()
        value = self._environment.get(name, default)
        if value is None:
            raise ConfigError(f"the environment variable {name} is not set; give a default with ${{{name}:-…}}")
        if is_secret(name):
            self._secrets.add(value)
        return value

    def _read(self, words: str) -> str:
        try:
            return (self._base / words[5:]).read_text().rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"${{{words}}} cannot be read") from error
