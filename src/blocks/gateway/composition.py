"""How several answers become one is decided here, without I/O: which branch waits for which, and what a failure does.

A branch is ``required`` (without it there is no answer), ``optional`` (null stands in its place), or has a ``default``. A failure is always
stated: as a member of the answer, and in the field ``Gateway-Partial``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from blocks.core.errors import ConfigError

from .transform.shape import Shape, place
from .transform.template import Template, View

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")
_RESERVED = frozenset(
    {"params", "consumer", "claims", "header", "query", "cookie", "body", "client", "method", "path", "host", "scheme"}
)


class Lack(NamedTuple):
    """Why a branch gave nothing: the status that a service answered (0: none), and a short reason."""

    branch: str
    status: int
    reason: str

    def told(self) -> dict[str, Any]:
        """As an entry of the answer's errors."""
        return {"branch": self.branch, "reason": self.reason, **({"status": self.status} if self.status else {})}


class Branch:
    """One call: whom, with what, where its answer goes (``at``, a dotted path; "" merges an object into the answer), and how needed.

    ``raw``: its answer is placed as the bytes that came, not decoded.
    """

    __slots__ = (
        "after", "at", "default", "fields", "forward", "method", "name", "path", "payload", "query", "raw", "relay",
        "required", "shape", "timeout",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        if not _NAME.match(name) or name in _RESERVED:
            raise ConfigError(
                f"{name!r} cannot name a branch: a-z, 0-9 and _, and not a name that templates know already"
            )
        self.name = name
        self.at: tuple[str, ...] = (name,)
        self.after: frozenset[str] = frozenset()
        self.method = "GET"
        self.path: Template
        self.query: dict[str, Template] = {}
        self.fields: list[tuple[bytes, Template]] = []
        self.forward: tuple[bytes, ...] = ()
        self.payload: Shape | None = None
        self.shape: Shape | None = None
        self.required = True
        self.default: Any = None
        self.relay: frozenset[int] = frozenset()
        self.timeout: float | None = None
        self.raw = False

    def needs(self, names: Iterable[str]) -> frozenset[str]:
        """The branches whose answers it uses: those of ``after``, and those that its templates name."""
        used = set(self.path.names)
        for template in (*self.query.values(), *(template for _, template in self.fields)):
            used |= template.names
        used |= self.payload.names if self.payload is not None else frozenset()
        roots = {name.partition(".")[0] for name in used}
        return self.after | (roots & set(names))


def levels(branches: list[Branch]) -> list[list[Branch]]:
    """The branches in steps: each step needs only the ones before it. Raises ``ConfigError`` for circles and strangers."""
    names = [branch.name for branch in branches]
    if len(set(names)) != len(names):
        raise ConfigError("two branches have the same name")
    needs = {branch.name: branch.needs(names) for branch in branches}
    for name, needed in needs.items():
        strange = needed - set(names)
        if strange or name in needed:
            raise ConfigError(
                f"the branch {name!r} comes after {', '.join(sorted(strange)) or 'itself'}, which cannot be"
            )
    done: set[str] = set()
    steps: list[list[Branch]] = []
    while len(done) < len(branches):
        ready = [branch for branch in branches if branch.name not in done and needs[branch.name] <= done]
        if not ready:
            circle = ", ".join(sorted(set(names) - done))
            raise ConfigError(f"the branches {circle} wait for each other")
        steps.append(ready)
        done.update(branch.name for branch in ready)
    return steps


def mark_raw(branches: list[Branch]) -> None:
    """Find the branches whose bytes can be placed as they are: nobody looks into them, and nothing is placed inside them."""
    names = [branch.name for branch in branches]
    used = frozenset[str]().union(*(branch.needs(names) for branch in branches))
    for branch in branches:
        others = [other.at for other in branches if other is not branch and other.at]
        clear = all(at[: len(branch.at)] != branch.at and branch.at[: len(at)] != at for at in others)
        branch.raw = branch.shape is None and bool(branch.at) and branch.name not in used and clear


def merge(
    branches: list[Branch], answers: Mapping[str, Any], lacks: list[Lack], errors: str, shape: Shape, view: View
) -> bytes:
    """The answer as JSON: every branch's part at its place in the order of the configuration, then what is lacking at ``errors``."""
    merged: Any = {}
    for branch in branches:
        value = answers.get(branch.name)
        if branch.at:
            merged = place(merged, branch.at, value)
        elif isinstance(value, dict):
            merged.update(value)
        elif value is not None:
            merged = place(merged, (branch.name,), value)
    if lacks and errors:
        merged = place(merged, tuple(errors.split(".")), [lack.told() for lack in lacks])
    if not shape.idle:
        merged = shape.apply(_decoded(merged), view)
    return msgspec.json.encode(merged)


def _decoded(value: Any) -> Any:
    """Spliced parts as values, for a shape that looks into them."""
    if isinstance(value, msgspec.Raw):
        return msgspec.json.decode(value)
    if isinstance(value, dict):
        return {name: _decoded(one) for name, one in value.items()}
    return value
