"""JSON is reshaped by four plain operations, always in this order: keep, rename, remove, set; or built anew from a template.

Paths are dotted; ``*`` stands for every item of a list or every member. Nothing is computed: that is a service's work.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec

from blocks.core.errors import ConfigError

from .template import Template, View

MAX_PATH = 16  # steps of a path


class ShapeSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``keep``: only these paths stay; ``remove``: these go; ``rename``: from → to; ``set``: path → value with templates.

    ``template``: the whole value is built from it instead.
    """

    keep: list[str] = []
    remove: list[str] = []
    rename: dict[str, str] = {}
    set: dict[str, Any] = {}
    template: Any = None


class Shape:
    """What is done to a JSON value. ``None`` operations leave it as it is (``idle``)."""

    __slots__ = ("_keep", "_remove", "_rename", "_set", "_template", "idle")

    def __init__(
        self, settings: ShapeSettings, *, params: Collection[str] | None = None, roots: Collection[str] = ()
    ) -> None:
        self._keep = [_path(text) for text in settings.keep]
        self._remove = [_path(text) for text in settings.remove]
        self._rename = [(_path(old), _path(new)) for old, new in settings.rename.items()]
        self._set = [(_path(path), _compile(value, params, roots)) for path, value in settings.set.items()]
        self._template = None if settings.template is None else _compile(settings.template, params, roots)
        for path in (
            [new for _, new in self._rename] + [old for old, _ in self._rename] + [path for path, _ in self._set]
        ):
            if "*" in path:
                raise ConfigError("a place to put a value in cannot have * in its path")
        if self._template is not None and (self._keep or self._remove or self._rename):
            raise ConfigError("template builds the whole value; keep, remove and rename have nothing to work on")
        self.idle = self._template is None and not (self._keep or self._remove or self._rename or self._set)

    @property
    def names(self) -> frozenset[str]:
        """The names that its templates use."""
        return frozenset().union(*(_names(filled) for filled in (self._template, *(one for _, one in self._set))))

    def apply(self, value: Any, view: View) -> Any:
        """The reshaped value; ``value`` itself may be changed."""
        if self._template is not None:
            value = _fill(self._template, view)
        elif self._keep:
            value = _kept(value, self._keep)
        for old, new in self._rename:
            moved = _take(value, old)
            if moved is not _NOTHING:
                value = place(value, new, moved)
        for path in self._remove:
            _remove(value, path)
        for path, filled in self._set:
            value = place(value, path, _fill(filled, view))
        return value


_NOTHING = object()


def _path(text: str) -> tuple[str, ...]:
    steps = tuple(text.split("."))
    if not text or not all(steps) or len(steps) > MAX_PATH:
        raise ConfigError(f"{text!r} is not a path; write it like user.name or items.*.price")
    return steps


def _compile(value: Any, params: Collection[str] | None, roots: Collection[str]) -> Any:
    """A value whose texts are templates where they have braces."""
    if isinstance(value, str):
        return Template(value, params=params, roots=roots) if "{" in value or "}" in value else value
    if isinstance(value, Mapping):
        return {str(name): _compile(one, params, roots) for name, one in value.items()}
    if isinstance(value, list):
        return [_compile(one, params, roots) for one in value]
    return value


def _names(compiled: Any) -> frozenset[str]:
    if isinstance(compiled, Template):
        return compiled.names
    inner = compiled.values() if isinstance(compiled, dict) else compiled if isinstance(compiled, list) else ()
    return frozenset().union(*(_names(one) for one in inner))


def _fill(compiled: Any, view: View) -> Any:
    if isinstance(compiled, Template):
        return compiled.value(view)
    if isinstance(compiled, dict):
        return {name: _fill(one, view) for name, one in compiled.items()}
    if isinstance(compiled, list):
        return [_fill(one, view) for one in compiled]
    return compiled


def _kept(value: Any, paths: Iterable[tuple[str, ...]]) -> Any:
    """A copy that has only what the paths lead to."""
    here: dict[str, list[tuple[str, ...]]] = {}
    for path in paths:
        if not path:
            return value
        here.setdefault(path[0], []).append(path[1:])
    everywhere = here.get("*", [])
    if isinstance(value, dict):
        return {
            name: _kept(one, here.get(name, []) + everywhere)
            for name, one in value.items()
            if name in here or everywhere
        }
    if isinstance(value, list):
        return [
            _kept(one, here.get(str(place), []) + everywhere)
            for place, one in enumerate(value)
            if everywhere or str(place) in here
        ]
    return value


def _remove(value: Any, path: tuple[str, ...]) -> None:
    step, rest = path[0], path[1:]
    if isinstance(value, dict):
        if not rest:
            if step == "*":
                value.clear()
            else:
                value.pop(step, None)
            return
        for one in list(value.values()) if step == "*" else ([value[step]] if step in value else []):
            _remove(one, rest)
    elif isinstance(value, list):
        if not rest:
            if step == "*":
                value.clear()
            elif step.isdecimal() and int(step) < len(value):
                del value[int(step)]
            return
        for one in value if step == "*" else value[int(step) : int(step) + 1] if step.isdecimal() else []:
            _remove(one, rest)


def _take(value: Any, path: tuple[str, ...]) -> Any:
    for step in path[:-1]:
        value = value.get(step) if isinstance(value, dict) else None
    return value.pop(path[-1], _NOTHING) if isinstance(value, dict) else _NOTHING


def place(value: Any, path: tuple[str, ...], what: Any) -> Any:
    """``value`` with ``what`` at ``path``; objects on the way are made, and whatever else is in the way is replaced by one."""
    if not path:
        return what
    root = value if isinstance(value, dict) else {}
    here = root
    for step in path[:-1]:
        inner = here.get(step)
        if not isinstance(inner, dict):
            inner = here[step] = {}
        here = inner
    here[path[-1]] = what
    return root
