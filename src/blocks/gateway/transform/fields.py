"""Header fields are kept, removed, renamed, set and added, in this order, for requests and for answers."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from blocks.core.config.complaint import below
from blocks.core.errors import ClientFault, ConfigError
from blocks.http.message import Headers, Pair, field_name, field_value

from .template import Template, View

_FRAMING = frozenset(
    {b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"trailer", b"te", b"keep-alive"}
)


class FieldSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``remove``: names, or starts as ``x-internal-*``; ``rename``: old → new; ``set`` and ``add``: name → template.

    A ``set`` whose only name is missing takes the field out: what a client sent under it never gets through.
    """

    remove: list[str] = []
    rename: dict[str, str] = {}
    set: dict[str, str] = {}
    add: dict[str, str] = {}


class Fields:
    """What is done to a header section; ``idle`` when nothing is."""

    __slots__ = ("_add", "_remove", "_rename", "_set", "_starts", "idle")

    def __init__(self, settings: FieldSettings, params: Collection[str] | None = None) -> None:
        with below("remove"):
            self._remove = frozenset(_name(name) for name in settings.remove if not name.endswith("*"))
            self._starts = tuple(_name(name[:-1]) for name in settings.remove if name.endswith("*"))
        with below("rename"):
            self._rename = {_name(old): _name(new) for old, new in settings.rename.items()}
        self._set = _templates("set", settings.set, params)
        self._add = _templates("add", settings.add, params)
        self.idle = not (self._remove or self._starts or self._rename or self._set or self._add)

    def apply(self, headers: Headers, view: View) -> None:
        """Change ``headers``. Raises ``ClientFault`` when a value of the request cannot be a field's value."""
        pairs = headers.raw
        drop = set(self._remove)
        drop.update(name for name, _ in self._set)
        if self._starts:
            drop.update(name for name, _ in pairs if name.startswith(self._starts))
        add: list[Pair] = []
        if self._rename:
            for name, value in pairs:
                new = self._rename.get(name)
                if new is not None and name not in drop:
                    add.append((new, value))
            drop.update(self._rename)
            drop.update(self._rename.values())
        for name, template in (*self._set, *self._add):
            if template.single is None or view.find(template.single) is not None:
                add.append((name, _value(template.render(view), name)))
        if add or not drop.isdisjoint(headers.section.index):
            headers.replace(drop, add)


def _templates(key: str, given: dict[str, str], params: Collection[str] | None) -> list[tuple[bytes, Template]]:
    made: list[tuple[bytes, Template]] = []
    for name, text in given.items():
        with below(key, name):
            made.append((_name(name), Template(text, params=params)))
    return made


def _name(text: str) -> bytes:
    try:
        name = field_name(text)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if name in _FRAMING:
        raise ConfigError(f"{text!r} belongs to the connection; it cannot be transformed")
    return name


def _value(text: str, name: bytes) -> bytes:
    try:
        return field_value(text.encode("utf-8"))
    except ValueError:
        raise ClientFault(f"the value for {name.decode()!r} holds control characters", reason="bad-value") from None
